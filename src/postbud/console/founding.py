"""What an installation has from its first start on: keys that relays need, a plan, and `acct_system` to write to people with.

Idempotent: run at every start, it makes what is missing. Invariant: no key that was told to relays is ever replaced here.
"""

import os
import secrets
from datetime import timedelta

import msgspec

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account
from postbud.console.accounts.notices import SystemLogin
from postbud.console.accounts.services import create_account
from postbud.console.billing.services import standard_plan
from postbud.console.configuration import current
from postbud.console.domains.models import Domain, DomainStatus
from postbud.console.domains.services import add_domain, verify_domain
from postbud.console.installation import make_key, seal_value
from postbud.console.link.models import LinkRecord
from postbud.console.link.publish import publish
from postbud.console.link.secrets import set_key
from postbud.console.servers.credentials import create_credential, rotate_credential
from postbud.console.servers.models import Credential, CredentialKind, CredentialStatus, Server
from postbud.console.servers.secrets import ensure_pepper
from postbud.console.servers.services import create_server
from postbud.console.transaction import alone, write
from postbud.model.account import SYSTEM_ACCOUNT
from postbud.model.link import SecretRecord
from postbud.model.sealed import KEY_OCTETS

_SERVER = "srv_system"
_NAME = "Postbud"
_KEYS = ("token/1", "unsubscribe/1")
_LOCAL_PART = "postbud"


def ensure_installation() -> None:
    """Make what is missing. Not inside of a transaction."""
    settings = current()
    make_key(settings.folder)
    ensure_pepper()
    set_key("platform")
    for record_id in _KEYS:
        _ensure_key(record_id)
    with write():
        alone("founding")
        standard_plan()
    _ensure_system_account(settings.hostname)


def _ensure_key(record_id: str) -> None:
    with write():
        alone("founding")
        if not LinkRecord.objects.filter(kind="secret", key=record_id, gone=False).exists():
            publish(SecretRecord(id=record_id, sealed=seal_value(record_id, secrets.token_bytes(KEY_OCTETS))))


def _ensure_system_account(hostname: str) -> None:
    if not Account.objects.filter(id=SYSTEM_ACCOUNT).exists():
        create_account(audit.SYSTEM, _NAME, account_id=SYSTEM_ACCOUNT)
    if not Server.objects.filter(id=_SERVER).exists():
        create_server(audit.SYSTEM, SYSTEM_ACCOUNT, _NAME, "transactional", server_id=_SERVER)
    domain = Domain.objects.filter(account=SYSTEM_ACCOUNT, name=hostname).first()
    if domain is None:
        domain = add_domain(audit.SYSTEM, SYSTEM_ACCOUNT, hostname)
    if domain.status != DomainStatus.VERIFIED:
        verify_domain(audit.SYSTEM, SYSTEM_ACCOUNT, domain.id)
    _ensure_login(f"{_LOCAL_PART}@{hostname}")


def _ensure_login(mailbox: str) -> None:
    path = current().folder / "keys" / "system.json"
    credential = Credential.objects.filter(
        account=SYSTEM_ACCOUNT, server=_SERVER, kind=CredentialKind.SMTP, status=CredentialStatus.ACTIVE
    ).first()
    try:
        known = msgspec.json.decode(path.read_bytes(), type=SystemLogin)
    except (FileNotFoundError, msgspec.DecodeError):
        known = None
    if known is not None and credential is not None and known.username == credential.username:
        if known.mailbox != mailbox:
            _write_login(SystemLogin(known.username, known.secret, mailbox))
        return
    if credential is None:
        credential, secret = create_credential(audit.SYSTEM, SYSTEM_ACCOUNT, _SERVER, kind="smtp", name="Notices")
    else:
        credential, secret = rotate_credential(audit.SYSTEM, SYSTEM_ACCOUNT, credential.id, timedelta(hours=1))
    _write_login(SystemLogin(credential.username or "", secret, mailbox))


def _write_login(login: SystemLogin) -> None:
    path = current().folder / "keys" / "system.json"
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(login))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    made.replace(path)
