"""The directory as a TOML file (`accounts.toml`), followed when it changes: how a standalone relay learns its accounts.

Owns the file format (documented in `docs/settings.md`). A file that does not parse never replaces one that did: the relay
goes on with what it has and says so. Secrets' hashes and keys are read with the file; key files are named relative to it.
"""

import asyncio
import contextlib
import difflib
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import msgspec

from postbud.link.replica import Directory, Replica
from postbud.link.secret import is_stored_form
from postbud.model.account import Account, Credential, DkimKey, Domain, Kind, Server, Status
from postbud.model.ids import AccountId, CredentialId, ServerId
from postbud.model.mailbox import Mailbox, MailboxError, parse_domain
from postbud.model.settings import SettingsError, convert
from postbud.policy.chain import RULES

FOLLOW_SECONDS = 0.25
KEPT_NAME = "directory-{}.toml"  # in data/replica, one a worker
_RULE_IDS = frozenset(rule.id for rule in RULES)
_NAMED_FILE = re.compile(r"\b(?:key_file|suppression_file)[\"']?\s*=\s*[\"']([^\"']+)[\"']")
_MODES = ("off", "shadow", "enforce")
_WIDEST = {4: 24, 6: 56}  # a network credential is at most this wide


class DkimEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`[[account.domain.dkim]]`."""

    selector: str
    key_file: str


class DomainEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`[[account.domain]]`."""

    name: str
    dkim: list[DkimEntry] = []


class CredentialEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`[[account.server.credential]]`."""

    id: str
    username: str | None = None
    secret_hash: str | None = None
    networks: list[str] = []
    status: Status = Status.ACTIVE
    allow_from: list[str] = []
    hourly_cap: int | None = None
    normalise_line_ends: bool = False
    allow_null_reverse_path: bool = False
    api: bool = False


class ServerEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`[[account.server]]`."""

    id: str
    kind: Kind = Kind.TRANSACTIONAL
    status: Status = Status.ACTIVE
    pool: str | None = None
    credential: list[CredentialEntry] = []


class AccountEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`[[account]]`."""

    id: str
    name: str = ""
    status: Status = Status.ACTIVE
    block_reference: str | None = None
    suppression_file: str | None = None
    domain: list[DomainEntry] = []
    server: list[ServerEntry] = []


class PolicyEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`[[policy]]`: how one rule acts."""

    rule: str
    mode: str


class DirectoryFile(msgspec.Struct, forbid_unknown_fields=True):
    """`accounts.toml` whole."""

    account: list[AccountEntry] = []
    suppression_file: str | None = None
    policy: list[PolicyEntry] = []


def load(path: Path, check_key: Callable[[bytes], str | None], *, folder: Path | None = None) -> Directory:
    """Read a directory file. `check_key` tells what is wrong with a PEM, or None; files are named relative to `folder`.

    A key that is missing or broken does not stop the load: its domain is held instead of sent unsigned.

    Raises:
        SettingsError: The file is missing, no TOML, or says something that cannot be.
    """
    return read(path, check_key, folder=folder)[0]


def read(path: Path, check_key: Callable[[bytes], str | None], *, folder: Path | None = None) -> tuple[Directory, bytes]:
    """Load a directory file as `load` does; give the octets that it was read from, too: a moment later the file may differ.

    Raises:
        SettingsError: As `load`.
    """
    try:
        octets = path.read_bytes()
        tree = msgspec.toml.decode(octets)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name}: {error}") from error
    file = convert(tree, DirectoryFile, path.name)
    folder = folder or path.parent
    try:
        for entry in file.policy:
            if entry.rule not in _RULE_IDS:
                near = difflib.get_close_matches(entry.rule, _RULE_IDS, 1)
                raise ValueError(f"policy {entry.rule}: no such rule" + (f"; did you mean {near[0]}?" if near else ""))
            if entry.mode not in _MODES:
                raise ValueError(f"policy {entry.rule}: mode is one of {', '.join(_MODES)}")
        directory = Directory.of(
            [_account(entry, folder, check_key) for entry in file.account],
            suppressed=_suppressions(file.suppression_file, folder),
            suppressed_by_account={
                AccountId(entry.id): _suppressions(entry.suppression_file, folder)
                for entry in file.account
                if entry.suppression_file
            },
            policy_modes={entry.rule: entry.mode for entry in file.policy},
        )
    except (ValueError, OSError) as error:
        raise SettingsError(f"{path.name}: {error}") from error
    return directory, octets


def _account(entry: AccountEntry, folder: Path, check_key: Callable[[bytes], str | None]) -> Account:
    return Account(
        id=AccountId(entry.id),
        name=entry.name,
        status=entry.status,
        domains=tuple(
            Domain(_domain_name(domain.name), tuple(_key(key, folder, check_key) for key in domain.dkim))
            for domain in entry.domain
        ),
        servers=tuple(
            Server(
                id=ServerId(server.id),
                kind=server.kind,
                status=server.status,
                pool=server.pool,
                credentials=tuple(_credential(credential) for credential in server.credential),
            )
            for server in entry.server
        ),
        block_reference=entry.block_reference,
    )


def _domain_name(name: str) -> str:
    try:
        return parse_domain(name)
    except MailboxError as error:
        raise ValueError(f"domain {name!r}: {error.why}") from error


def _key(entry: DkimEntry, folder: Path, check_key: Callable[[bytes], str | None]) -> DkimKey:
    try:
        pem = (folder / entry.key_file).read_bytes()
    except OSError as error:
        return DkimKey(entry.selector, None, f"key file {entry.key_file}: {error.strerror}")
    problem = check_key(pem)
    return DkimKey(entry.selector, pem if problem is None else None, problem)


def _credential(entry: CredentialEntry) -> Credential:
    name = f"credential {entry.id}"
    if entry.api:
        if entry.username is not None or entry.networks or entry.secret_hash is None:
            raise ValueError(f"{name}: a key of the sending API (api = true) has a secret_hash, no username and no networks")
    elif (entry.username is None) != (entry.secret_hash is None):
        raise ValueError(f"{name}: username and secret_hash go together")
    elif entry.username is None and not entry.networks:
        raise ValueError(f"{name}: needs a username with a secret_hash, networks, or api = true")
    if entry.secret_hash is not None and not is_stored_form(entry.secret_hash):
        raise ValueError(f"{name}: secret_hash is sha256$<salt hex>$<digest hex>; `postbud credential hash` makes one")
    for allowed in entry.allow_from:
        if not allowed.startswith("@"):
            Mailbox.parse(allowed, smtputf8=True)
    return Credential(
        id=CredentialId(entry.id),
        username=entry.username,
        secret_hash=entry.secret_hash,
        networks=tuple(_network(text, name) for text in entry.networks),
        status=entry.status,
        allow_from=tuple(allowed.lower() for allowed in entry.allow_from),
        hourly_cap=entry.hourly_cap,
        normalise_line_ends=entry.normalise_line_ends,
        allow_null_reverse_path=entry.allow_null_reverse_path,
        api=entry.api,
    )


def _network(text: str, name: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{name}: network {error}") from error
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{name}: network {text}: write an IPv4-mapped network as IPv4; such clients are known by that")
    if network.prefixlen < _WIDEST[network.version]:
        raise ValueError(f"{name}: network {text} is wider than /{_WIDEST[network.version]}")
    return network


def _suppressions(name: str | None, folder: Path) -> frozenset[str]:
    if name is None:
        return frozenset()
    keys = set()
    for number, line in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            keys.add(Mailbox.parse(text, smtputf8=True).key())
        except MailboxError as error:
            raise ValueError(f"{name} line {number}: {error.why}") from error
    return frozenset(keys)


Seen = tuple[tuple[str, int, int, int], ...]


def fingerprint(path: Path, before: Seen = ()) -> Seen:
    """Give what changes when the file, or a key or suppression file that it names, is written; zeros for what is missing.

    The file is read for the names only if it changed since `before`: in a large directory that is most of the work.

    Raises:
        OSError: Out of descriptors, say; what is missing is no error.
    """
    own = _state(path, "")
    if before and before[0] == own:
        names = [name for name, *_ in before[1:]]
    elif own[1]:
        names = _NAMED_FILE.findall(path.read_text(encoding="utf-8", errors="replace"))
    else:
        names = []
    return (own, *(_state(path.parent / name, name) for name in names))


def _state(path: Path, name: str) -> tuple[str, int, int, int]:
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return name, 0, 0, 0
    return name, state.st_mtime_ns, state.st_size, state.st_ino


def load_or_last_good(path: Path, kept: Path, check_key: Callable[[bytes], str | None]) -> tuple[Directory, str | None]:
    """Load a directory file, else the copy of the last one that was good; with it, what is wrong with the file.

    Raises:
        SettingsError: Neither can be had.
    """
    try:
        directory, octets = read(path, check_key)
    except SettingsError as error:
        good = last_good(kept.parent)
        if good is None:
            raise
        return load(good, check_key, folder=path.parent), str(error)
    with contextlib.suppress(OSError):  # a full disk: mail waits for a start, and the copy only for a bad file
        keep(octets, kept)
    return directory, None


def last_good(folder: Path) -> Path | None:
    """Give the newest of the copies that the workers keep; each worker has its own, and a new one has none yet."""
    found = [(path.stat().st_mtime_ns, path) for path in folder.glob(KEPT_NAME.format("*"))]
    return max(found)[1] if found else None


def keep(octets: bytes, kept: Path) -> None:
    """Keep what a good directory was read from (mode 0600), so that a restart does not depend on the file being good then."""
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = kept.with_name(f".{kept.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        part.replace(kept)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class FileFollower:
    """Keeps a replica as the file says, looking for changes four times a second."""

    def __init__(
        self,
        path: Path,
        kept: Path,
        replica: Replica,
        check_key: Callable[[bytes], str | None],
        on_problem: Callable[[str], None],
        *,
        seen: Seen,
        problem: str | None = None,
    ) -> None:
        """`seen` is the fingerprint from before the directory was loaded, `problem` what was wrong with it then."""
        self._path = path
        self._kept = kept
        self._replica = replica
        self._check_key = check_key
        self._on_problem = on_problem
        self._seen = seen
        self.problem = problem

    async def run(self) -> None:
        """Follow until cancelled."""
        if self.problem is not None:
            self._on_problem(f"{self.problem}; started with the last good copy")
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            found = self._seen
            try:
                found = await asyncio.to_thread(fingerprint, self._path, self._seen)
                if found == self._seen:
                    continue
                directory, octets = await asyncio.to_thread(read, self._path, self._check_key)
                self._seen = found
                self.problem = None
                self._replica.replace(directory)
                await asyncio.to_thread(keep, octets, self._kept)
            except SettingsError as error:
                self._seen = found
                self.problem = str(error)
                self._on_problem(self.problem)
            except OSError as error:  # out of descriptors, a full disk: the next look may do
                self._on_problem(str(error))
