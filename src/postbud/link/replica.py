"""The replica: the directory as this worker knows it, indexed for the questions that the journey asks.

Owns the indexes and the moment of change. Does not know where a directory comes from (`link.file`, `link.replicated`).
Invariant: a reader sees one whole directory, old or new, never a mixture; look-ups take microseconds and touch no disk.
A change copies the indexes, which are small, and indexes anew only the accounts that changed.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol, TypeVar

from postbud.link.secret import dummy_form, verify_secret
from postbud.model.account import Account, Credential, Domain, Server, Status
from postbud.model.ids import AccountId, CredentialId, ServerId
from postbud.model.token import TokenKeys

K = TypeVar("K")
V = TypeVar("V")
Network = IPv4Network | IPv6Network


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


class Suppressions(Protocol):
    """Which mailboxes get no mail: lists in files (`ListedMailboxes`), or hashes from the console (`link.sets.HashedSets`)."""

    def hold(self, account: AccountId, mailbox_key: str) -> bool:
        """Whether a mailbox, by `Mailbox.key()`, is suppressed for the platform or the account."""


@dataclass(frozen=True, slots=True)
class ListedMailboxes:
    """Suppressions by their text, `Mailbox.key()`."""

    platform: frozenset[str] = frozenset()
    by_account: Mapping[AccountId, frozenset[str]] = field(default_factory=dict)

    def hold(self, account: AccountId, mailbox_key: str) -> bool:
        """As `Suppressions.hold`."""
        return mailbox_key in self.platform or mailbox_key in self.by_account.get(account, ())


@dataclass(frozen=True)
class Directory:
    """One whole directory. Build it with `Directory.of` or `with_accounts`; never change it."""

    accounts: Mapping[AccountId, Account]
    suppressions: Suppressions = field(default_factory=ListedMailboxes)
    policy_modes: Mapping[str, str] = field(default_factory=dict)  # rule id → off | shadow | enforce
    peppers: Mapping[str, bytes] = field(default_factory=dict)  # number in `hmac$<n>$…` → key
    token_keys: TokenKeys | None = None  # of return paths; None: the relay's own file
    set_keys: Mapping[str, bytes] = field(default_factory=dict)  # `platform` or account → key of its hashes
    _by_username: Mapping[str, Grant] = field(default_factory=dict)
    _by_address: Mapping[IPv4Address | IPv6Address, Grant] = field(default_factory=dict)
    _by_network: tuple[tuple[Network, Grant], ...] = ()
    _by_credential: Mapping[CredentialId, Grant] = field(default_factory=dict)
    _servers: Mapping[ServerId, AccountId] = field(default_factory=dict)
    _owners: Mapping[str, Mapping[AccountId, Domain]] = field(default_factory=dict)
    _networks: Mapping[AccountId, tuple[tuple[Network, Grant], ...]] = field(default_factory=dict)

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
        listed = ListedMailboxes(suppressed, suppressed_by_account or {})
        return cls({}, suppressions=listed, policy_modes=policy_modes or {}).with_accounts(accounts)

    def with_accounts(self, changed: Iterable[Account], gone: Iterable[AccountId] = ()) -> "Directory":
        """Give the directory with these accounts as they are now, and without those that are gone.

        Raises:
            ValueError: As `of`; this one stays as it is.
        """
        index = _Index(self)
        new: dict[AccountId, Account] = {}
        for account in changed:
            _put_once(new, account.id, account, "account")
        for account_id in {*new, *gone}:
            index.remove(account_id)
        for account in new.values():
            index.add(account)
        return index.directory(self)

    def authenticate(self, username: str, secret: bytes, now: float = math.inf) -> Grant | None:
        """Give the grant of a username whose secret matches; None otherwise, after the same work for an unknown name.

        `now` (seconds since 1970) tells whether a secret from before a rotation is still good.

        Raises:
            PepperMissingError: Nobody can tell.
        """
        return self._verified(self._by_username.get(username), secret, now)

    def authenticate_key(self, credential: CredentialId, secret: bytes, now: float = math.inf) -> Grant | None:
        """Give the grant of a key of the sending API whose secret matches; None otherwise, after the same work.

        Raises:
            PepperMissingError: Nobody can tell.
        """
        grant = self._by_credential.get(credential)
        return self._verified(grant if grant is not None and grant.credential.api else None, secret, now)

    def _verified(self, grant: Grant | None, secret: bytes, now: float) -> Grant | None:
        stored = grant.credential.secret_hash if grant is not None else None
        if verify_secret(stored or dummy_form(self.peppers), secret, self.peppers) and stored is not None:
            return grant
        if grant is not None and grant.credential.former_hash is not None and grant.credential.former_until is not None:
            is_good = now < grant.credential.former_until.timestamp()
            if is_good and verify_secret(grant.credential.former_hash, secret, self.peppers):
                return grant
        return None

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

    def server(self, account: AccountId, server: ServerId) -> Server | None:
        """Give a server of an account, None when it has none such."""
        owner = self.accounts.get(account)
        return next((one for one in owner.servers if one.id == server), None) if owner is not None else None

    def covering(self, account: AccountId, domain: str) -> Domain | None:
        """Give the account's verified domain that covers a domain name; the deepest verified one decides, whoever owns it."""
        name = domain
        while name:
            owners = self._owners.get(name)
            if owners is not None:
                return owners.get(account)
            name = name.partition(".")[2]
        return None

    def is_return_path(self, domain: str) -> bool:
        """Tell whether a domain is one below a verified domain that leads to our bounce host."""
        owners = self._owners.get(domain.partition(".")[2], {})
        return any(one.return_path == domain for one in owners.values())

    def is_suppressed(self, account: AccountId, mailbox_key: str) -> bool:
        """Whether a mailbox is suppressed for the platform or the account."""
        return self.suppressions.hold(account, mailbox_key)

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
        found = self.server(account, server)
        if found is None or Status.BLOCKED in (owner.status, found.status):
            return Status.BLOCKED
        return Status.PAUSED if Status.PAUSED in (owner.status, found.status) else Status.ACTIVE


class _Index:
    """The indexes of a directory, copied, while accounts are taken out and put in."""

    def __init__(self, old: Directory) -> None:
        self._accounts = dict(old.accounts)
        self._by_username = dict(old._by_username)  # noqa: SLF001 (the same class's own, in the making)
        self._by_credential = dict(old._by_credential)  # noqa: SLF001
        self._servers = dict(old._servers)  # noqa: SLF001
        self._owners = dict(old._owners)  # noqa: SLF001
        self._networks = dict(old._networks)  # noqa: SLF001
        self._by_address = dict(old._by_address)  # noqa: SLF001
        self._by_network = old._by_network  # noqa: SLF001
        self._former: dict[AccountId, list[Network]] = {}  # networks of the accounts that were taken out

    def remove(self, account_id: AccountId) -> None:
        account = self._accounts.pop(account_id, None)
        if account is None:
            return
        for domain in account.domains:
            owners = {owner: its for owner, its in self._owners.pop(domain.name).items() if owner != account_id}
            if owners:
                self._owners[domain.name] = owners
        for server in account.servers:
            del self._servers[server.id]
            for credential in server.credentials:
                del self._by_credential[credential.id]
                if credential.username is not None:
                    del self._by_username[credential.username]
        if entries := self._networks.pop(account_id, None):
            self._former[account_id] = [network for network, _ in entries]

    def add(self, account: Account) -> None:
        self._accounts[account.id] = account
        for domain in account.domains:
            owners = dict(self._owners.get(domain.name, {}))
            _put_once(owners, account.id, domain, f"domain {domain.name} of account")
            self._owners[domain.name] = owners
        networks: list[tuple[Network, Grant]] = []
        for server in account.servers:
            _put_once(self._servers, server.id, account.id, "server")
            for credential in server.credentials:
                grant = Grant(account, server, credential)
                _put_once(self._by_credential, credential.id, grant, "credential")
                if credential.username is not None:
                    _put_once(self._by_username, credential.username, grant, "username")
                networks.extend((network, grant) for network in credential.networks)
        if networks:
            self._networks[account.id] = tuple(networks)
        if networks and [network for network, _ in networks] == self._former.get(account.id):
            del self._former[account.id]
            self._regrant(account.id, dict(networks))
        elif networks:
            self._former.setdefault(account.id, [])

    def _regrant(self, account_id: AccountId, grants: dict[Network, Grant]) -> None:
        """Put new grants behind the same networks: nothing can overlap that did not."""
        for network, grant in grants.items():
            if network.num_addresses == 1:
                self._by_address[network.network_address] = grant
        self._by_network = tuple(
            (network, grants[network] if grant.account.id == account_id else grant) for network, grant in self._by_network
        )

    def _index_networks(self) -> None:
        networks = [entry for entries in self._networks.values() for entry in entries]
        _check_overlaps(networks)
        networks.sort(key=lambda entry: -entry[0].prefixlen)
        self._by_address = {network.network_address: grant for network, grant in networks if network.num_addresses == 1}
        self._by_network = tuple(entry for entry in networks if entry[0].num_addresses > 1)

    def directory(self, old: Directory) -> Directory:
        if self._former:
            self._index_networks()
        return replace(
            old,
            accounts=self._accounts,
            _by_username=self._by_username,
            _by_address=self._by_address,
            _by_network=self._by_network,
            _by_credential=self._by_credential,
            _servers=self._servers,
            _owners=self._owners,
            _networks=self._networks,
        )


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


def _check_overlaps(networks: list[tuple[Network, Grant]]) -> None:
    for version in (4, 6):
        ordered = sorted(
            (entry for entry in networks if entry[0].version == version),
            key=lambda entry: (int(entry[0].network_address), entry[0].prefixlen),
        )
        open_networks: list[tuple[Network, Grant]] = []
        for network, grant in ordered:
            while open_networks and int(open_networks[-1][0].broadcast_address) < int(network.network_address):
                open_networks.pop()
            if open_networks and open_networks[-1][1].account.id != grant.account.id:
                raise ValueError(f"network {network} of {grant.account.id} overlaps {open_networks[-1][0]} of another account")
            open_networks.append((network, grant))
