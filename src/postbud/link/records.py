"""From the link's records to a directory: what changed is indexed anew, by account; sealed keys are opened in memory only.

Owns the records as they are now. Does not know where they come from (`link.snapshot`) or who reads the directory. Invariant: a
record that cannot be used (a key that does not open, a network that is none) costs what depends on it, never the rest, and is
told in `problems`: a domain without its key is held, a secret without its pepper is answered "later".
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

from postbud.link.replica import Directory
from postbud.link.sets import HashedSets, SetReader
from postbud.link.snapshot import News
from postbud.model.account import Account, Credential, DkimKey, Domain, Server
from postbud.model.ids import AccountId, CredentialId, ServerId
from postbud.model.link import (
    AccountRecord,
    CommandRecord,
    CredentialRecord,
    DomainRecord,
    Gone,
    PolicyRecord,
    Record,
    SealedKey,
    SecretRecord,
    ServerRecord,
    VerdictRecord,
)
from postbud.model.sealed import SealError, unseal
from postbud.model.token import TokenKeys

_TOKEN_KEY_IDS = range(16)


class Records:
    """All records of a console, and the directory that they make."""

    def __init__(self, sets: SetReader, key: bytes | None) -> None:
        """`key` is the installation key; None: it is missing, and nothing that is sealed opens."""
        self._sets = sets
        self._key = key
        self._accounts: dict[str, AccountRecord] = {}
        self._servers: dict[str, ServerRecord] = {}
        self._credentials: dict[str, CredentialRecord] = {}
        self._domains: dict[str, DomainRecord] = {}
        self._servers_of: dict[str, set[str]] = {}  # account → servers
        self._credentials_of: dict[str, set[str]] = {}  # server → credentials
        self._domains_of: dict[str, set[str]] = {}  # account → domains
        self._secrets: dict[str, SecretRecord] = {}
        self._policies: dict[str, str] = {}
        self._touched: set[str] = set()
        self.problems: dict[str, str] = {}  # by what it is about
        self.directory = Directory({}, suppressions=HashedSets(sets, {}))

    def apply(self, news: News) -> list[CommandRecord]:
        """Take changes in; give the commands among them. `directory` is another one afterwards, if anything in it changed."""
        if news.whole:
            self._forget()
        commands = []
        secrets = policies = news.whole
        for change in news.changes:
            record = change.record
            if isinstance(record, CommandRecord):
                commands.append(record)
                continue
            kind = record.what if isinstance(record, Gone) else str(record.__struct_config__.tag)
            secrets |= kind == "secret"
            policies |= kind == "policy"
            self._take(record)
        if secrets:
            self._open_secrets()
        if policies:
            self.directory = replace(self.directory, policy_modes=dict(self._policies))
        self._index_touched()
        return commands

    def use_key(self, key: bytes | None) -> None:
        """Open everything anew with another installation key."""
        self._key = key
        self._open_secrets()
        self._touched |= self._accounts.keys()
        self._index_touched()

    def _forget(self) -> None:
        self._touched |= self._accounts.keys()
        for table in (self._accounts, self._servers, self._credentials, self._domains, self._secrets, self._policies):
            table.clear()
        for index in (self._servers_of, self._credentials_of, self._domains_of):
            index.clear()
        self.problems.clear()

    # -- one record -----------------------------------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        match record:
            case AccountRecord():
                self._accounts[record.id] = record
                self._touched.add(record.id)
            case ServerRecord():
                self._drop("server", record.id)
                self._servers[record.id] = record
                self._servers_of.setdefault(record.account, set()).add(record.id)
                self._touched.add(record.account)
            case CredentialRecord():
                self._drop("credential", record.id)
                self._credentials[record.id] = record
                self._credentials_of.setdefault(record.server, set()).add(record.id)
                self._touch_server(record.server)
            case DomainRecord():
                self._drop("domain", record.id)
                self._domains[record.id] = record
                self._domains_of.setdefault(record.account, set()).add(record.id)
                self._touched.add(record.account)
            case SecretRecord():
                self._secrets[record.id] = record
            case PolicyRecord():
                self._policies[record.id] = record.mode
            case Gone():
                self._drop(record.what, record.id)
            case CommandRecord() | VerdictRecord():
                pass

    def _drop(self, kind: str, identifier: str) -> None:
        if kind == "account" and self._accounts.pop(identifier, None) is not None:
            self._touched.add(identifier)
        elif kind == "server" and (server := self._servers.pop(identifier, None)) is not None:
            self._servers_of[server.account].discard(identifier)
            self._touched.add(server.account)
        elif kind == "credential" and (credential := self._credentials.pop(identifier, None)) is not None:
            self._credentials_of[credential.server].discard(identifier)
            self._touch_server(credential.server)
        elif kind == "domain" and (domain := self._domains.pop(identifier, None)) is not None:
            self._domains_of[domain.account].discard(identifier)
            self._touched.add(domain.account)
        elif kind == "secret":
            self._secrets.pop(identifier, None)
        elif kind == "policy":
            self._policies.pop(identifier, None)

    def _touch_server(self, server_id: str) -> None:
        server = self._servers.get(server_id)
        if server is not None:
            self._touched.add(server.account)

    # -- what depends on them -------------------------------------------------------------------------------------------------

    def _index_touched(self) -> None:
        touched, self._touched = self._touched, set()
        if not touched:
            return
        for account_id in touched:
            self.problems.pop(account_id, None)
        made = [self._account(self._accounts[each]) for each in touched if each in self._accounts]
        gone = [AccountId(each) for each in touched if each not in self._accounts]
        try:
            self.directory = self.directory.with_accounts(made, gone)
        except ValueError:  # somebody's names or networks collide: find whose, the others are as they should be
            self.directory = self.directory.with_accounts((), [*gone, *(account.id for account in made)])
            for account in made:
                self._add_or_strip(account)

    def _add_or_strip(self, account: Account) -> None:
        try:
            self.directory = self.directory.with_accounts([account])
        except ValueError as error:
            self.problems[account.id] = f"{account.id}: {error}; its credentials are left out"
            bare = tuple(_without_credentials(server) for server in account.servers)
            self.directory = self.directory.with_accounts([_with_servers(account, bare)])

    def _account(self, record: AccountRecord) -> Account:
        domains = (self._domains[each] for each in sorted(self._domains_of.get(record.id, ())))
        servers = (self._servers[each] for each in sorted(self._servers_of.get(record.id, ())))
        return Account(
            id=AccountId(record.id),
            name=record.name,
            status=record.status,
            domains=tuple(self._domain(domain) for domain in domains),
            servers=tuple(self._server(server) for server in servers),
            block_reference=record.block_reference,
            hourly_cap=record.hourly_cap,
            month_allowance=record.month_allowance,
        )

    def _server(self, record: ServerRecord) -> Server:
        return Server(
            id=ServerId(record.id),
            kind=record.purpose,
            credentials=tuple(self._made(self._credentials_of.get(record.id, ()), record.account)),
            status=record.status,
            pool=record.pool,
            hourly_cap=record.hourly_cap,
            keep_content=record.keep_content,
        )

    def _made(self, credentials: Iterable[str], account_id: str) -> Iterable[Credential]:
        for each in sorted(credentials):
            try:
                yield _credential(self._credentials[each])
            except ValueError as error:
                self.problems[account_id] = f"credential {each}: {error}"

    def _domain(self, domain: DomainRecord) -> Domain:
        return Domain(domain.name, tuple(self._dkim_key(domain, key) for key in domain.keys), domain.return_path)

    def _dkim_key(self, domain: DomainRecord, key: SealedKey) -> DkimKey:
        if key.sealed is None:
            return DkimKey(key.selector, None, "the key is lost")
        try:
            return DkimKey(key.selector, self._open(f"{domain.id}/{key.selector}", key.sealed))
        except SealError as error:
            self.problems[domain.account] = f"domain {domain.name} is held: key {error}"
            return DkimKey(key.selector, None, str(error))

    def _open(self, record_id: str, sealed: bytes) -> bytes:
        if self._key is None:
            raise SealError(f"{record_id}: the installation key is missing")
        return unseal(self._key, record_id, sealed)

    def _open_secrets(self) -> None:
        opened: dict[str, bytes] = {}
        self.problems = {about: why for about, why in self.problems.items() if about in self._accounts}
        for record in self._secrets.values():
            try:
                opened[record.id] = self._open(record.id, record.sealed)
            except SealError as error:
                self.problems[record.id] = f"secret {error}"
        set_keys = _under("set", opened)
        tokens = {int(name): key for name, key in _under("token", opened).items() if _is_token_key(name)}
        self.directory = replace(
            self.directory,
            peppers=_under("pepper", opened),
            token_keys=TokenKeys(tokens, max(tokens)) if tokens else None,
            set_keys=set_keys,
            suppressions=HashedSets(self._sets, set_keys),
        )


def _under(what: str, secrets: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removeprefix(f"{what}/"): key for name, key in secrets.items() if name.startswith(f"{what}/")}


def _is_token_key(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) in _TOKEN_KEY_IDS


def _credential(record: CredentialRecord) -> Credential:
    return Credential(
        id=CredentialId(record.id),
        username=record.username,
        secret_hash=record.secret_hash,
        networks=tuple(map(ip_network, record.networks)),
        status=record.status,
        allow_from=tuple(allowed.lower() for allowed in record.allow_from),
        hourly_cap=record.hourly_cap,
        normalise_line_ends=record.normalise_line_ends,
        allow_null_reverse_path=record.allow_null_reverse_path,
        api=record.api,
        former_hash=record.former_hash,
        former_until=record.former_until,
    )


def _without_credentials(server: Server) -> Server:
    return Server(server.id, server.kind, (), server.status, server.pool, server.hourly_cap, server.keep_content)


def _with_servers(account: Account, servers: tuple[Server, ...]) -> Account:
    return Account(
        account.id, account.name, account.status, account.domains, servers, account.block_reference, account.hourly_cap,
        account.month_allowance,
    )  # fmt: skip
