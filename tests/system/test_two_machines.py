"""Console and relay on two machines: TLS, a node's token, keys that travel sealed; a revoked node is not heard."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.harness import Recorder, wait_until
from tests.system.product import Product
from tests.system.test_console_away import Pair
from tests.system.test_serve import run, send

pytestmark = pytest.mark.timeout(240)


class Apart(Pair):
    """The console in one folder, the relay in another; `folder` is the console's."""

    def __init__(self, folder: Path, relay_folder: Path, sink: Recorder) -> None:
        super().__init__(folder, sink)
        self.relay_folder = relay_folder
        self.link_port = free_port()
        self.environment["POSTBUD__CONSOLE__LINK_ADDRESS"] = f'"127.0.0.1:{self.link_port}"'

    def join(self, name: str) -> Path:
        """Bring to the relay's machine what it needs; give the token's file."""
        token = self.command("node", "add", name, "--data", str(self.folder)).strip().split()[-1]
        keys = self.relay_folder / "keys"
        keys.mkdir(parents=True, mode=0o700, exist_ok=True)
        (keys / "installation.key").write_bytes((self.folder / "keys" / "installation.key").read_bytes())
        (keys / "installation.key").chmod(0o600)
        path = self.relay_folder / "token"
        path.write_text(token)
        return path

    def start_far_relay(self, token: Path, ca_file: Path) -> None:
        """Start the relay with the console's address."""
        address = f"https://localhost:{self.link_port}"
        self.words = ["relay", "--console", address, "--token-file", str(token), "--data", str(self.relay_folder)]
        self.environment |= {"POSTBUD__RELAY__CONSOLE_CA_FILE": f'"{ca_file}"', "POSTBUD__RELAY__NODE": '"far"'}
        self.start(wait=False)
        wait_until(lambda: self.is_healthy() and self.greets(), "the relay takes mail", 60)
        self._learn_secrets()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[Apart, Recorder]]:
    sink = Recorder(tmp_path)
    sink.start("--no-content")
    both = Apart(tmp_path / "console", tmp_path / "relay", sink)
    (tmp_path / "relay").mkdir()
    make_certificate(tmp_path)
    both.environment |= {
        "POSTBUD__CONSOLE__LINK_CERTIFICATE_FILE": f'"{tmp_path}/link.pem"',
        "POSTBUD__CONSOLE__LINK_CERTIFICATE_KEY_FILE": f'"{tmp_path}/link.key"',
    }
    try:
        both.start_console()
        yield both, sink
    finally:
        both.close()
        sink.close()


def make_certificate(folder: Path) -> None:
    """A certificate of localhost that signs itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "link.key"), "-out", str(folder / "link.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


def test_a_relay_elsewhere_joins_by_token_and_is_shut_out_by_its_revocation(
    apart: tuple[Apart, Recorder], tmp_path: Path
) -> None:
    both, sink = apart
    token = both.join("far")
    both.start_far_relay(token, tmp_path / "link.pem")
    message, _ = send(both, "far@dest.example")
    both.wait_state(message, "delivered")
    (receipt,) = sink.wait_for(lambda record: "far@dest.example" in record["recipients"])
    assert receipt
    node = both.rows("SELECT name, token_hash FROM link_node WHERE name = 'far'")
    assert node[0]["token_hash"]
    assert token.read_text() not in str(both.rows("SELECT * FROM link_node"))

    both.command("node", "revoke", "far", "--data", str(both.folder))
    after, _ = send(both, "after@dest.example")  # what it knows it goes on with
    sink.wait_for(lambda record: "after@dest.example" in record["recipients"])
    time.sleep(2.0)
    assert not both.deliveries(after)  # and the console hears nothing of it any more


def test_a_relay_without_what_it_needs_says_so(tmp_path: Path) -> None:
    product = Product(tmp_path / "demo")
    product.environment.pop("POSTBUD__CONSOLE__ADDRESS")
    data = tmp_path / "relay"
    for words, said in (
        (["relay", "--data", str(data)], "name the console with --console"),
        (["relay", "--console", "https://localhost:1", "--data", str(data)], "needs --token-file"),
        (["relay", "--console", "http://localhost:1", "--data", str(data)], "unix:PATH or https://HOST:PORT"),
        (["relay", "--console", "https://localhost:1", "--token-file", "none", "--data", str(data)], "No such file"),
    ):
        done = run(words, product)
        assert done.returncode == 2, (words, done.stderr)
        assert said in done.stderr, (words, done.stderr)
    (tmp_path / "token").write_text("pbn_x")
    words = ["relay", "--console", "https://localhost:1", "--token-file", str(tmp_path / "token"), "--data", str(data)]
    done = run(words, product)
    assert done.returncode == 2
    assert "copy it from the console's data folder" in done.stderr
    assert os.listdir(data / "keys") == []
