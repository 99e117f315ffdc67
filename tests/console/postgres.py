"""A PostgreSQL of the tests' own: started once a session in a temporary folder, on a Unix socket, nothing on the network."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "shared_buffers=64MB")
TEMPLATE = "postbud_template"


class Postgres:
    """A server that runs from `start` to `stop`; the socket's folder is its host."""

    def __init__(self, settings: tuple[str, ...] = _FAST) -> None:
        self._settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="pbpg", dir="/tmp"))  # a socket's path is short
        self._user: list[str] = []
        self._made = 0

    @staticmethod
    def missing() -> str | None:
        """Tell what is missing, if something is."""
        if not _BINARIES:
            return "PostgreSQL is not installed (apt-get install postgresql)"
        if os.geteuid() == 0:
            try:
                pwd.getpwnam("postgres")
            except KeyError:
                return "there is no user postgres, and PostgreSQL does not run as root"
        return None

    def start(self) -> None:
        """Make a cluster and start it."""
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._user = ["runuser", "-u", "postgres", "--"]
        self._run("initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        settings = "\n".join((*self._settings, "listen_addresses=''", f"unix_socket_directories='{self.folder}'"))
        configuration = self.folder / "data" / "postgresql.conf"
        configuration.write_text(configuration.read_text() + "\n" + settings + "\n")
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "start")

    def stop(self) -> None:
        """Stop it at once and remove its folder."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        """Give the setting that names a database."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def create(self, name: str, template: str = "template0") -> None:
        """Make a database, as a copy of another."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def fresh(self) -> str:
        """Make a database as the migrations leave it, and give its name."""
        self._made += 1
        name = f"postbud_{self._made}"
        self.create(name, TEMPLATE)
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str) -> None:
        """Run a statement in the server's own database."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program: str, *words: object) -> None:
        command = [*self._user, str(_BINARIES[-1] / program), *(str(word) for word in words)]
        # its output goes to a file: a server that lives on would hold a pipe open
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, cwd="/", timeout=60, check=False)
            if done.returncode:
                said.seek(0)
                raise RuntimeError(f"{program} failed: {said.read().decode(errors='replace')}")
