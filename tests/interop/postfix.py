"""A real Postfix of a test's own: configuration, queue and log in a folder of its own, nothing outside loopback. Needs root."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port
from tests.system.harness import wait_until

_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr fifo n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_SETTINGS = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/state
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
alias_maps =
alias_database =
{more}
"""

AVAILABLE = os.geteuid() == 0 and shutil.which("postfix", path="/usr/sbin:/usr/bin:/bin") is not None


class Postfix:
    """One instance."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    @property
    def log(self) -> str:
        """What it logged."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "maillog").read_text(errors="replace")
        return ""

    def mails(self) -> list[bytes]:
        """Give what lies in its mailbox."""
        return [path.read_bytes() for path in sorted((self.folder / "mail" / "inbox" / "new").glob("*"))]


@contextlib.contextmanager
def postfix(more: str) -> Iterator[Postfix]:
    """Run an instance with these further settings (`{folder}` is its folder)."""
    folder = Path(
        tempfile.mkdtemp(prefix="postbud-postfix-", dir="/tmp")
    )  # its users must reach it: pytest's folders are closed to them
    instance = Postfix(folder, free_port())
    try:
        folder.chmod(0o755)
        for name in ("etc", "queue", "state", "mail"):
            (folder / name).mkdir(mode=0o755)
        shutil.chown(folder / "state", "postfix")
        shutil.chown(folder / "mail", "nobody", "nogroup")
        (folder / "etc" / "main.cf").write_text(_SETTINGS.format(folder=folder, more=more.format(folder=folder)))
        (folder / "etc" / "master.cf").write_text(_SERVICES.format(port=instance.port))
        _control(folder, "start")
        wait_until(lambda: "daemon started" in instance.log, "Postfix started", 30)
        yield instance
    finally:
        _control(folder, "abort", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _control(folder: Path, word: str, *, check: bool = True) -> None:
    done = subprocess.run(
        ["/usr/sbin/postfix", "-c", str(folder / "etc"), word], capture_output=True, text=True, timeout=60, check=False
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"postfix {word}: {done.stdout}{done.stderr}")
