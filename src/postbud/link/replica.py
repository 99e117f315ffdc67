"""The replica: the directory as this worker knows it, indexed for the questions that the journey asks.

Owns the indexes and the moment of change. Does not know where a directory comes from (`link.file`, later `link.follow`).
Invariant: a reader sees one whole directory, old or new, never a mixture; look-ups take microseconds and touch no disk.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeVar

from postbud.model.account import Account, Credential, Domain, Server, Status
from postbud.model.ids import AccountId, CredentialId, ServerId

K = TypeVar("K")
V = TypeVar("V")

_DUMMY_HASH = "sha256$00$0000000000000000000000000000000000000000000000000000000000000000"


@dataclass(frozen=True, slots=True)
class Grant:
    """A credential with the server and account it belongs to."""

    account: Account
    server: Server
    credential: Credential

    @property
    def status(self) -> Status:
        """The strictest of the three: blocked before revoked before paused."""
        states = (self.account.status, self.server.status, self.credential.status)
        return next((s for s in (Status.BLOCKED, Status.REVOKED, Status.PAUSED) if s in states), Status.ACTIVE)


@dataclass(frozen=True)
class Directory:
    """One whole directory. Build it with `Directory.of`; never change it."""

    accounts: Mapping[AccountId, Account]
    suppressed: frozenset[str] = frozenset()  # `Mailbox.key()` of the whole platform
    suppressed_by_account: Mapping[AccountId, frozenset[str]] = field(default_factory=dict)
    policy_modes: Mapping[str, str] = field(default_factory=dict)  # rule id → off | shadow | enforce
    _by_username: Mapping[str, Grant] = field(default_factory=dict)
    _by_address: Mapping[IPv4Address | IPv6Address, Grant] = field(default_factory=dict)
    _by_network: tuple[tuple[IPv4Network | IPv6Network, Grant], ...] = ()
    _by_credential: Mapping[CredentialId, Grant] = field(default_factory=dict)
    _owners: Mapping[str, Mapping[AccountId, Domain]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        accounts: Iterable[Account],
        *,
        suppressed: frozenset[str] = frozenset(),
        suppressed_by_account: Mapping[AccountId, frozenset[str]] | None = None,
        policy_modes: Mapping[str, str] | None = None,
    ) -> "Directory":
        """Index accounts.

        Raises:
            ValueError: An id or username stands twice, or a network credential overlaps another account's.
        """
        by_id: dict[AccountId, Account] = {}
        grants: list[Grant] = []
        owners: dict[str, dict[AccountId, Domain]] = {}
        for account in accounts:
            _put_once(by_id, account.id, account, "account")
            for domain in account.domains:
                _put_once(owners.setdefault(domain.name, {}), account.id, domain, f"domain {domain.name} of account")
            grants.extend(Grant(account, server, credential) for server in account.servers for credential in server.credentials)
        by_username: dict[str, Grant] = {}
        by_credential: dict[CredentialId, Grant] = {}
        servers: dict[ServerId, AccountId] = {}
        for account in by_id.values():
            for server in account.servers:
                _put_once(servers, server.id, account.id, "server")
        networks: list[tuple[IPv4Network | IPv6Network, Grant]] = []
        for grant in grants:
            _put_once(by_credential, grant.credential.id, grant, "credential")
            if grant.credential.username is not None:
                _put_once(by_username, grant.credential.username, grant, "username")
            networks.extend((network, grant) for network in grant.credential.networks)
        _check_overlaps(networks)
        networks.sort(key=lambda entry: -entry[0].prefixlen)
        return cls(
            accounts=by_id,
            suppressed=suppressed,
            suppressed_by_account=suppressed_by_account or {},
            policy_modes=policy_modes or {},
            _by_username=by_username,
            _by_address={network.network_address: grant for network, grant in networks if network.num_addresses == 1},
            _by_network=tuple(entry for entry in networks if entry[0].num_addresses > 1),
            _by_credential=by_credential,
            _owners=owners,
        )

    def authenticate(self, username: str, secret: bytes) -> Grant | None:
        """Give the grant of a username whose secret matches; None otherwise, after the same work for an unknown name."""
        grant = self._by_username.get(username)
        stored = grant.credential.secret_hash if grant is not None else None
        matches = verify_secret(stored or _DUMMY_HASH, secret)
        return grant if matches and stored is not None else None

    def authenticate_key(self, credential: CredentialId, secret: bytes) -> Grant | None:
        """Give the grant of a key of the sending API whose secret matches; None otherwise, after the same work."""
        grant = self._by_credential.get(credential)
        stored = grant.credential.secret_hash if grant is not None and grant.credential.api else None
        matches = verify_secret(stored or _DUMMY_HASH, secret)
        return grant if matches and stored is not None else None

    def identify(self, address: str) -> Grant | None:
        """Give the grant of the network credential that an address belongs to, the narrowest network first."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        exact = self._by_address.get(parsed)
        if exact is not None:
            return exact
        return next((grant for network, grant in self._by_network if parsed in network), None)

    def grant(self, credential: CredentialId) -> Grant | None:
        """Give the grant as it is now; None when the credential is gone."""
        return self._by_credential.get(credential)

    def covering(self, account: AccountId, domain: str) -> Domain | None:
        """Give the account's verified domain that covers a domain name; the deepest verified one decides, whoever owns it."""
        name = domain
        while name:
            owners = self._owners.get(name)
            if owners is not None:
                return owners.get(account)
            name = name.partition(".")[2]
        return None

    def is_suppressed(self, account: AccountId, mailbox_key: str) -> bool:
        """Whether a mailbox is suppressed for the platform or the account."""
        return mailbox_key in self.suppressed or mailbox_key in self.suppressed_by_account.get(account, ())

    def standing(self, account: AccountId, server: ServerId, credential: CredentialId) -> Status:
        """Tell whether queued mail may go out. An account or server that is gone is blocked; a credential that is gone
        was replaced and holds nothing back.
        """
        owner = self.accounts.get(account)
        if owner is None:
            return Status.BLOCKED
        grant = self._by_credential.get(credential)
        if grant is not None:
            return grant.status
        found = next((s for s in owner.servers if s.id == server), None)
        if found is None or Status.BLOCKED in (owner.status, found.status):
            return Status.BLOCKED
        return Status.PAUSED if Status.PAUSED in (owner.status, found.status) else Status.ACTIVE


def _put_once(index: dict[K, V], key: K, value: V, what: str) -> None:
    if key in index:
        raise ValueError(f"{what} {key} stands twice")
    index[key] = value


class Replica:
    """Holds the current directory and tells its readers when it changed."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._readers: list[Callable[[], None]] = []
        self.generation = 1

    @property
    def directory(self) -> Directory:
        """The directory as of now."""
        return self._directory

    def on_change(self, reader: Callable[[], None]) -> None:
        """Call `reader` after every change."""
        self._readers.append(reader)

    def replace(self, directory: Directory) -> None:
        """Put a new whole directory in place and tell the readers."""
        self._directory = directory
        self.generation += 1
        for reader in self._readers:
            reader()


def hash_secret(secret: bytes, salt: bytes) -> str:
    """Give the stored form of a machine-made secret: `sha256$<salt hex>$<SHA-256(salt ‖ secret) hex>`."""
    return f"sha256${salt.hex()}${hashlib.sha256(salt + secret).hexdigest()}"


def verify_secret(stored: str, secret: bytes) -> bool:
    """Compare a secret with its stored form, in constant time for equal forms."""
    scheme, _, rest = stored.partition("$")
    salt_hex, _, digest = rest.partition("$")
    if scheme != "sha256":
        return False
    computed = hashlib.sha256(bytes.fromhex(salt_hex) + secret).hexdigest()
    return hmac.compare_digest(computed.encode(), digest.lower().encode())


def _check_overlaps(networks: list[tuple[IPv4Network | IPv6Network, Grant]]) -> None:
    for version in (4, 6):
        ordered = sorted(
            (entry for entry in networks if entry[0].version == version),
            key=lambda entry: (int(entry[0].network_address), entry[0].prefixlen),
        )
        open_networks: list[tuple[IPv4Network | IPv6Network, Grant]] = []
        for network, grant in ordered:
            while open_networks and int(open_networks[-1][0].broadcast_address) < int(network.network_address):
                open_networks.pop()
            if open_networks and open_networks[-1][1].account.id != grant.account.id:
                raise ValueError(f"network {network} of {grant.account.id} overlaps {open_networks[-1][0]} of another account")
            open_networks.append((network, grant))
