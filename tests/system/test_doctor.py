"""`postbud doctor` in a network namespace of its own: a world where all is well, and one fault planted at a time."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.system.harness import POSTBUD, wait_until
from tests.system.product import serving

ADDRESS, PROBE = "203.0.113.5", "198.51.100.25"
REVERSE = "5.113.0.203.in-addr.arpa"
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="a network namespace needs root and iproute2"),
]


def good_zone() -> dict[tuple[str, str], list[str]]:
    return {
        ("mx.post.example", "A"): [ADDRESS],
        (REVERSE, "PTR"): ["mx.post.example."],
        ("bounce.post.example", "MX"): ["10 mx.post.example."],
        ("bounce.post.example", "TXT"): [f'"v=spf1 ip4:{ADDRESS} -all"'],
        ("_dmarc.post.example", "TXT"): ['"v=DMARC1; p=reject"'],
        ("mx.probe.example", "A"): [PROBE],
        ("list.example", "A"): ["127.0.0.1"],
    }


@dataclass
class World:
    """What the doctor finds."""

    folder: Path
    namespace: str
    zone: dict[tuple[str, str], list[str]] = field(default_factory=good_zone)
    listens: str = PROBE
    settings: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def certificate(self, name: str = "mx.post.example", days: int = 90) -> None:
        """Put a certificate of an authority there, for a name and so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(time.time(), UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=100))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        (self.data / "tls").mkdir(parents=True, exist_ok=True)
        (self.data / "tls" / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def examine(self) -> dict[str, list[dict[str, Any]]]:
        """Run the doctor; give its findings by name."""
        config = self.folder / "postbud.toml"
        spool = "\n".join(f"{name} = {value}" for name, value in self.settings.items())
        config.write_text(
            f'data_dir = "{self.data}"\n[relay]\nhostname = "mx.post.example"\nbounce_domain = "bounce.post.example"\n'
            f'[[relay.listener]]\naddress = "0.0.0.0:587"\n[[source]]\nid = "out"\naddress = "{ADDRESS}"\n'
            f'[dns]\nnameservers = ["127.0.0.1"]\n[doctor]\nprobes = ["{PROBE}:25"]\nblocklists = ["list.example"]\n'
            f"[spool]\n{spool}\n"
        )
        plan = self.folder / "plan.json"
        words = [*self.before, str(POSTBUD), "doctor", "--json", "--config", str(config)]
        plan.write_text(json.dumps({"zone": list(self.zone.items()), "listens": self.listens, "words": words}))
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "tests.system.doctor_child", str(plan)],
            capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        found: dict[str, list[dict[str, Any]]] = {}
        for line in done.stdout.splitlines():
            finding = json.loads(line)
            found.setdefault(finding["name"], []).append(finding)
        assert done.returncode == any(one["state"] == "fail" for each in found.values() for one in each)
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    namespace = f"pbdoctor{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        inside = ["ip", "netns", "exec", namespace, "ip"]
        subprocess.run([*inside, "link", "set", "lo", "up"], check=True)
        for address in (ADDRESS, PROBE):
            subprocess.run([*inside, "addr", "add", f"{address}/32", "dev", "lo"], check=True)
        made = World(tmp_path, namespace)
        made.data.mkdir()
        made.certificate()
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)


def test_a_world_where_all_is_well_has_nothing_to_mend(world: World) -> None:
    found = world.examine()
    failed = [one for each in found.values() for one in each if one["state"] == "fail"]
    assert failed == []
    for name in ("port 25", "ptr", "helo", "spf", "blocklist", "bounces", "dmarc", "tls", "disk"):
        assert [one["state"] for one in found[name]] == ["ok"], found[name]


def _no_way_out(world: World) -> None:
    world.listens = ""


def _clock_back(world: World) -> None:
    (world.data / "run").mkdir()
    beat = world.data / "run" / "worker-0.beat"
    beat.touch()
    ahead = time.time() + 7200
    os.utime(beat, (ahead, ahead))


def _broken_database(world: World) -> None:
    (world.data / "console.db").write_bytes(b"SQLite format 3\0" + os.urandom(4096))


def _empty_database(world: World) -> None:
    sqlite3.connect(world.data / "console.db").close()


def _zone(**changes: list[str] | None) -> Callable[[World], None]:
    names = {
        "ptr": (REVERSE, "PTR"), "a": ("mx.post.example", "A"), "spf": ("bounce.post.example", "TXT"),
        "mx": ("bounce.post.example", "MX"), "dmarc": ("_dmarc.post.example", "TXT"),
        "listed": ("5.113.0.203.list.example", "A"),
    }  # fmt: skip

    def plant(world: World) -> None:
        for name, records in changes.items():
            if records is None:
                world.zone.pop(names[name])
            else:
                world.zone[names[name]] = records

    return plant


@pytest.mark.parametrize(
    ("plant", "name", "state", "words"),
    [
        (_no_way_out, "port 25", "fail", "open port 25 out"),
        (_zone(ptr=None), "ptr", "fail", "have its provider set PTR"),
        (_zone(ptr=["other.example."]), "ptr", "fail", "other.example"),
        (_zone(a=["203.0.113.77"]), "helo", "fail", "203.0.113.77"),
        (_zone(spf=None), "spf", "fail", f"ip4:{ADDRESS}"),
        (_zone(spf=['"v=spf1 ip4:198.51.100.0/24 -all"']), "spf", "fail", "says fail"),
        (_zone(mx=None), "bounces", "fail", "publish MX 10 mx.post.example."),
        (_zone(dmarc=None), "dmarc", "warn", "v=DMARC1"),
        (_zone(listed=["127.0.0.2"]), "blocklist", "fail", "is on list.example"),
        (lambda world: world.certificate(days=-3), "tls", "fail", "ended"),
        (lambda world: world.certificate(days=5), "tls", "warn", "renew"),
        (lambda world: world.certificate(name="other.example"), "tls", "fail", "other.example"),
        (_clock_back, "clock", "fail", "the clock went back"),
        (lambda world: world.settings.update(reserve_octets=str(1 << 50)), "disk", "fail", "make room"),
        (_broken_database, "database", "fail", "postbud restore"),
        (_empty_database, "database", "fail", "postbud restore"),
    ],
)
def test_each_planted_fault_is_named_with_its_fix(
    world: World, plant: Callable[[World], None], name: str, state: str, words: str
) -> None:
    plant(world)
    found = world.examine()
    told = [one for one in found[name] if one["state"] == state]
    assert told, found[name]
    assert words in f"{told[0]['said']} {told[0]['fix']}"
    others = [one for each, ones in found.items() for one in ones if one["state"] == "fail" and each not in (name, "ptr")]
    assert others == [], others  # nothing else is blamed, but a name that leads elsewhere has two ends


def test_our_own_keys_are_looked_for(world: World) -> None:
    world.examine()  # writes the settings
    config = ["--config", str(world.folder / "postbud.toml")]
    subprocess.run([str(POSTBUD), "console-prepare", *config], check=True, capture_output=True, timeout=120)
    missing = world.examine()["dkim"]
    assert [one["state"] for one in missing] == ["fail", "fail"]
    database = sqlite3.connect(world.data / "console.db")
    keys = database.execute("SELECT selector, public_record FROM domains_dkimkey").fetchall()
    database.close()
    for (selector, record), finding in zip(sorted(keys), sorted(missing, key=lambda one: one["said"]), strict=True):
        assert record in finding["fix"]
        name = finding["said"].partition(" ")[0]
        assert name.startswith(f"{selector}._domainkey.")
        world.zone[(name, "TXT")] = [" ".join(f'"{record[start : start + 200]}"' for start in range(0, len(record), 200))]
    assert [one["state"] for one in world.examine()["dkim"]] == ["ok", "ok"]
    assert [one["state"] for one in world.examine()["database"]] == ["ok"]


def test_a_node_tells_its_console_what_the_doctor_found(tmp_path: Path) -> None:
    with serving(tmp_path / "demo", settings={"doctor.every_hours": 1}) as product:  # a demo: nothing outside is asked

        def told() -> list[dict[str, str]]:
            rows = product.rows("SELECT state FROM link_node")
            return json.loads(rows[0]["state"]).get("health", []) if rows else []

        found = {one["name"]: one["state"] for one in wait_until(told, "the node tells its health", 90)}
        assert (found["database"], found["disk"], found["workers"]) == ("ok", "ok", "ok")
        assert "port 25" not in found
