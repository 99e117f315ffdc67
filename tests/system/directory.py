"""Writes what a relay under test is told: accounts.toml, postbud.toml, keys and secrets.

Names that every test may use:

| account | domains | credentials (username / secret) |
|---|---|---|
| acct_acme | acme.example (RSA s1 + Ed25519 s2) | printer-1, fax-1, daemon-1, gone-1, capped-1 |
| acct_beta | beta.example (RSA b1) | beta-1 |
| acct_blocked | blocked.example | blocked-1 |
| acct_paused | paused.example | paused-1 (its server is paused) |
| acct_system | relay.example (RSA sys) | none |

Keys of the sending API: `KEYS["api-1"]` and `KEYS["api-gone"]` (revoked), `KEYS["api-capped"]` (3 an hour) of srv_office,
`KEYS["api-2"]` of acme's second server srv_second, `KEYS["api-sandbox"]` of its sandbox, and those of beta, blocked and paused.

fax-1 normalises line ends, daemon-1 may use the null reverse-path, gone-1 is revoked, capped-1 may send 3 an hour.
The network credential `crd_network` of acct_acme is 127.0.0.1/32, only honoured by the listener `network`.
"""

import hashlib
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from postbud.model.api_key import write_key

SECRETS = {
    name: f"{name}-secret-of-a-test-23456789"
    for name in ("printer-1", "fax-1", "daemon-1", "gone-1", "capped-1", "beta-1", "blocked-1", "paused-1")
}
KEY_SECRETS = {
    name: f"{name.replace('-', 'X')}SecretOfATestKey0123456789abcdefghij"[:32]
    for name in ("api-1", "api-2", "api-gone", "api-capped", "api-sandbox", "api-beta", "api-blocked", "api-paused")
}
KEYS = {name: write_key(f"crd_{name.replace('-', '_')}", secret) for name, secret in KEY_SECRETS.items()}
RSA_SELECTOR, ED25519_SELECTOR = "s1", "s2"


def secret_hash(secret: str) -> str:
    """Give the stored form of a secret: sha256$<salt hex>$<SHA-256(salt ‖ secret) hex>."""
    salt = os.urandom(16)
    return f"sha256${salt.hex()}${hashlib.sha256(salt + secret.encode()).hexdigest()}"


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """Make an RSA-2048 key, once a name and process: they are slow to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ed25519_key(name: str) -> ed25519.Ed25519PrivateKey:
    """Make an Ed25519 key, once a name and process."""
    return ed25519.Ed25519PrivateKey.generate()


def rsa_pem(name: str) -> bytes:
    """Give an RSA key as PKCS#8 PEM."""
    return _pem(rsa_key(name))


def ed25519_pem(name: str) -> bytes:
    """Give an Ed25519 key as PKCS#8 PEM."""
    return _pem(ed25519_key(name))


def _credential(name: str, *more: str) -> list[str]:
    return [
        "[[account.server.credential]]",
        f'id = "crd_{name.replace("-", "_")}"',
        f'username = "{name}"',
        f'secret_hash = "{secret_hash(SECRETS[name])}"',
        *more,
    ]


def _api(name: str, *more: str) -> list[str]:
    return [
        "[[account.server.credential]]",
        f'id = "crd_{name.replace("-", "_")}"',
        "api = true",
        f'secret_hash = "{secret_hash(KEY_SECRETS[name])}"',
        *more,
    ]


def _account(identifier: str, domain: str, keys: list[tuple[str, str]], server: list[str], status: str = "active") -> list[str]:
    lines = ["[[account]]", f'id = "{identifier}"', f'name = "{identifier[5:].title()} ApS"', f'status = "{status}"']
    lines += ["[[account.domain]]", f'name = "{domain}"']
    for selector, key_file in keys:
        lines += ["[[account.domain.dkim]]", f'selector = "{selector}"', f'key_file = "{key_file}"']
    return [*lines, *server, ""]


def _server(identifier: str, *more: str) -> list[str]:
    return ["[[account.server]]", f'id = "{identifier}"', 'kind = "transactional"', *more]


def accounts_toml(statuses: dict[str, str] | None = None, extra: str = "") -> str:
    """Give the directory file. `statuses` changes an account's status by its id."""
    statuses = {"acct_blocked": "blocked"} | (statuses or {})
    acme = [
        *_server("srv_office"),
        *_credential("printer-1"),
        *_credential("fax-1", "normalise_line_ends = true"),
        *_credential("daemon-1", "allow_null_reverse_path = true"),
        *_credential("gone-1", 'status = "revoked"'),
        *_credential("capped-1", "hourly_cap = 3"),
        "[[account.server.credential]]",
        'id = "crd_network"',
        'networks = ["127.0.0.1/32"]',
        *_api("api-1"),
        *_api("api-gone", 'status = "revoked"'),
        *_api("api-capped", "hourly_cap = 3"),
        *_server("srv_second"),
        *_api("api-2"),
        "[[account.server]]",
        'id = "srv_sandbox"',
        'kind = "sandbox"',
        *_api("api-sandbox"),
    ]
    accounts = [
        _account(
            "acct_acme",
            "acme.example",
            [("s1", "acme-s1.pem"), ("s2", "acme-s2.pem")],
            acme,
            statuses.get("acct_acme", "active"),
        ),
        _account(
            "acct_beta",
            "beta.example",
            [("b1", "beta-b1.pem")],
            [*_server("srv_beta"), *_credential("beta-1"), *_api("api-beta")],
            statuses.get("acct_beta", "active"),
        ),
        _account(
            "acct_blocked",
            "blocked.example",
            [],
            [*_server("srv_blocked"), *_credential("blocked-1"), *_api("api-blocked")],
            statuses["acct_blocked"],
        ),
        _account(
            "acct_paused",
            "paused.example",
            [],
            [*_server("srv_paused", 'status = "paused"'), *_credential("paused-1"), *_api("api-paused")],
        ),
        _account("acct_system", "relay.example", [("sys", "system.pem")], []),
    ]
    return "\n".join(line for account in accounts for line in account) + extra


def write_keys(folder: Path) -> None:
    """Write the key files that `accounts_toml` names."""
    for name, pem in (
        ("acme-s1.pem", rsa_pem("acme")),
        ("acme-s2.pem", ed25519_pem("acme")),
        ("beta-b1.pem", rsa_pem("beta")),
        ("system.pem", rsa_pem("system")),
    ):
        path = folder / name
        path.write_bytes(pem)
        path.chmod(0o600)


@dataclass(frozen=True)
class Listener:
    """One listener of a relay under test."""

    name: str
    role: str = "submission"
    tls: str = "starttls"
    more: tuple[str, ...] = ()


LISTENERS = (
    Listener("submission", more=("auth_without_tls = false",)),
    Listener("cleartext", more=("auth_without_tls = true",)),
    Listener("implicit", tls="implicit"),
    Listener("network", tls="starttls", more=("auth_without_tls = true", "ip_credentials = true")),
    Listener("inbound", role="inbound"),
)


@dataclass
class Settings:
    """What a test wants of postbud.toml."""

    workers: int = 1
    listeners: tuple[Listener, ...] = LISTENERS
    bounce_domain: str | None = None
    relay: dict[str, object] = field(default_factory=dict)
    next_hop: str | None = None  # host:port of the catch-all route; None: MX resolution
    route_tls: str = "none"
    routes: dict[str, str] = field(default_factory=dict)  # match -> host:port, before the catch-all
    extra: str = ""  # appended as it is


def postbud_toml(settings: Settings, ports: dict[str, int], telemetry_port: int) -> str:
    """Give the settings file."""
    relay: dict[str, object] = {
        "hostname": "relay.example",
        "workers": settings.workers,
        "retry_first_seconds": 1,
        "retry_max_seconds": 3,
        "drain_seconds": 10,
        "allow_private_networks": ["127.0.0.0/8"],
    }
    if settings.bounce_domain:
        relay |= {"bounce_domain": settings.bounce_domain, "token_key_file": "token.key"}
    relay |= settings.relay
    lines = ['data_dir = "data"', "[relay]", *(f"{key} = {_toml(value)}" for key, value in relay.items())]
    for listener in settings.listeners:
        lines += [
            "[[relay.listener]]",
            f'address = "127.0.0.1:{ports[listener.name]}"',
            f'role = "{listener.role}"',
            f'tls = "{listener.tls}"',
            *listener.more,
        ]
    for match, next_hop in settings.routes.items():
        lines += ["[[relay.route]]", f'match = "{match}"', f'next_hop = "{next_hop}"', f'tls = "{settings.route_tls}"']
    if settings.next_hop:
        lines += ["[[relay.route]]", 'match = "*"', f'next_hop = "{settings.next_hop}"', f'tls = "{settings.route_tls}"']
    lines += ["[telemetry]", f'address = "127.0.0.1:{telemetry_port}"', settings.extra, ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return '"' + str(value) + '"'
