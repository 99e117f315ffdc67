"""The directory's words: accounts, their servers, credentials, domains and keys, as a relay sees them."""

from datetime import datetime
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

import msgspec

from postbud.model.ids import AccountId, CredentialId, ServerId

SYSTEM_ACCOUNT = AccountId("acct_system")


class Status(Enum):
    """Whether an account, server or credential may send."""

    ACTIVE = "active"
    PAUSED = "paused"
    BLOCKED = "blocked"
    REVOKED = "revoked"


class Kind(Enum):
    """What a server is for. A sandbox captures and never delivers."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"
    SANDBOX = "sandbox"


class DkimKey(msgspec.Struct, frozen=True):
    """One signing key: selector and PKCS#8 PEM. `pem` None is a key that is missing or broken: the domain is held."""

    selector: str
    pem: bytes | None
    problem: str | None = None


class Domain(msgspec.Struct, frozen=True):
    """A verified sending domain of an account; covers its subdomains. Without keys it is sent unsigned only if `unsigned`.

    `return_path`: a name below it that leads to our bounce host, so that SPF counts for it; empty: our own is used.
    """

    name: str
    keys: tuple[DkimKey, ...] = ()
    return_path: str = ""


class Credential(msgspec.Struct, frozen=True):
    """What one device or program signs in with: a username and secret, (network credential) the networks it comes from, or
    (`api`) a key of the sending API, whose secret `secret_hash` is of.

    `former_hash` is of the secret before a rotation, which is good until `former_until`.
    """

    id: CredentialId
    username: str | None = None
    secret_hash: str | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    status: Status = Status.ACTIVE
    allow_from: tuple[str, ...] = ()  # mailboxes or `@domain`; empty allows every mailbox at the account's domains
    hourly_cap: int | None = None
    normalise_line_ends: bool = False
    allow_null_reverse_path: bool = False
    api: bool = False
    former_hash: str | None = None
    former_until: datetime | None = None


class Server(msgspec.Struct, frozen=True):
    """One virtual SMTP server of an account. `keep_content`: the console keeps what was delivered, too."""

    id: ServerId
    kind: Kind
    credentials: tuple[Credential, ...] = ()
    status: Status = Status.ACTIVE
    pool: str | None = None
    hourly_cap: int | None = None
    keep_content: bool = False


class Account(msgspec.Struct, frozen=True):
    """A customer, as much as a relay must know. `hourly_cap`, `month_allowance`: recipients; None is no limit."""

    id: AccountId
    name: str
    status: Status = Status.ACTIVE
    domains: tuple[Domain, ...] = ()
    servers: tuple[Server, ...] = ()
    block_reference: str | None = None
    hourly_cap: int | None = None
    month_allowance: int | None = None
