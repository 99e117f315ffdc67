"""Every write to credentials: one function, one transaction, its audit entry included; relays are told last.

Invariants: a secret leaves a function once and is kept as a hash; a network is one credential's
alone; what was revoked stays so.
"""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.services import clean_name
from postbud.console.refused import Refused
from postbud.console.servers.models import Credential, CredentialKind, CredentialStatus, Server
from postbud.console.servers.records import publish_credential
from postbud.console.servers.secrets import ensure_pepper, new_secret, new_username
from postbud.console.transaction import alone, write
from postbud.model.mailbox import Mailbox, MailboxError, parse_domain

LONGEST_OVERLAP = timedelta(days=30)
MAX_CREDENTIALS = 5000  # of one server
_MAX_ENTRIES = 100
_WIDEST = {4: 24, 6: 56}  # prefix lengths of the widest network that a credential may be
_SINGLE = {4: 32, 6: 128}
_MOST_CAP = 10**9
_MAX_ICON = 32
_TRUSTED = ("operator", "command", "system")
_KEEP: Any = object()
Network = IPv4Network | IPv6Network


def create_credential(
    who: audit.Actor,
    account: str,
    server: str,
    *,
    kind: str,
    name: str,
    icon: str = "",
    networks: Sequence[str] = (),
    allow_from: Sequence[str] = (),
    hourly_cap: int | None = None,
    normalise_line_ends: bool = False,
    credential_id: str | None = None,
) -> tuple[Credential, str]:
    """Make a credential; give it with its secret, which is shown once (empty for a network).

    Raises:
        Refused: A value cannot be, the account has no such server, or the network is another credential's.
    """
    if kind not in CredentialKind.values:
        raise Refused("kind", _("There is no such kind of credential."))
    credential = Credential(
        kind=kind, name=clean_name(name), icon=icon[:_MAX_ICON], networks=clean_networks(networks),
        allow_from=clean_allow_from(allow_from), hourly_cap=_cap(hourly_cap), normalise_line_ends=normalise_line_ends,
    )  # fmt: skip
    if credential_id is not None:
        credential.id = credential_id
    secret = ""
    ensure_pepper()
    with write():
        found = Server.objects.select_for_update().filter(account=account, id=server).first()
        if found is None:
            raise Refused("server", _("There is no such server."))
        if Credential.objects.filter(account=account, server=server).count() >= MAX_CREDENTIALS:
            raise Refused("", _("A server has at most %d credentials.") % MAX_CREDENTIALS)
        credential.account_id, credential.server = account, found
        _judge_networks(who, credential)
        if kind != CredentialKind.NETWORK:
            secret, credential.secret_hash = new_secret(credential)
        if kind == CredentialKind.SMTP:
            credential.username = _free_username(credential.name)
        credential.save(force_insert=True)
        audit.record(who, account, "credential.create", credential.id, after=_shown(credential))
        publish_credential(credential)
    return credential, secret


def update_credential(
    who: audit.Actor,
    account: str,
    credential: str,
    *,
    name: str = _KEEP,
    icon: str = _KEEP,
    networks: Sequence[str] = _KEEP,
    allow_from: Sequence[str] = _KEEP,
    hourly_cap: int | None = _KEEP,
    normalise_line_ends: bool = _KEEP,
) -> Credential:
    """Change what is named of a credential.

    Raises:
        Refused: A value cannot be, the account has no such credential, or it was revoked.
    """
    changes: dict[str, Any] = {}
    if name is not _KEEP:
        changes["name"] = clean_name(name)
    if icon is not _KEEP:
        changes["icon"] = icon[:_MAX_ICON]
    if networks is not _KEEP:
        changes["networks"] = clean_networks(networks)
    if allow_from is not _KEEP:
        changes["allow_from"] = clean_allow_from(allow_from)
    if hourly_cap is not _KEEP:
        changes["hourly_cap"] = _cap(hourly_cap)
    if normalise_line_ends is not _KEEP:
        changes["normalise_line_ends"] = normalise_line_ends
    return _change(who, account, credential, "credential.update", changes)


def rotate_credential(who: audit.Actor, account: str, credential: str, overlap: timedelta) -> tuple[Credential, str]:
    """Make a new secret; the former one is good until the overlap's end. Gives the new one, which is shown once.

    Raises:
        Refused: The account has no such credential, it has no secret, was revoked, or the overlap is too long.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise Refused("overlap", _("The former secret works for at most 30 days."))
    with write():
        found = _locked(account, credential)
        if found.kind == CredentialKind.NETWORK:
            raise Refused("", _("A network has no secret."))
        former, until = (found.secret_hash, timezone.now() + overlap) if overlap else ("", None)
        secret, found.secret_hash = new_secret(found)
        found.former_hash, found.former_until = former, until
        found.save()
        told = {"former_until": until.isoformat() if until is not None else None}
        audit.record(who, account, "credential.rotate", found.id, after=told)
        publish_credential(found)
    return found, secret


def revoke_credential(who: audit.Actor, account: str, credential: str) -> Credential:
    """Let a device in no more, and send nothing of it that waits. For ever. Idempotent.

    Raises:
        Refused: The account has no such credential.
    """
    with write():
        found = Credential.objects.select_for_update().filter(account=account, id=credential).first()
        if found is None:
            raise Refused("credential", _("There is no such credential."))
        if found.status == CredentialStatus.REVOKED:
            return found
        before, found.status = str(found.status), CredentialStatus.REVOKED
        found.revoked_at, found.former_hash, found.former_until = timezone.now(), "", None
        found.save()
        audit.record(who, account, "credential.revoke", found.id, before={"status": before}, after={"status": "revoked"})
        publish_credential(found)
    return found


def pause_credential(who: audit.Actor, account: str, credential: str) -> Credential:
    """Let a device wait until resumed. Idempotent.

    Raises:
        Refused: The account has no such credential, or it was revoked.
    """
    return _change(who, account, credential, "credential.pause", {"status": str(CredentialStatus.PAUSED)})


def resume_credential(who: audit.Actor, account: str, credential: str) -> Credential:
    """End a pause. Idempotent.

    Raises:
        Refused: The account has no such credential, or it was revoked.
    """
    return _change(who, account, credential, "credential.resume", {"status": str(CredentialStatus.ACTIVE)})


def clean_networks(networks: Sequence[str]) -> list[str]:
    """Give networks in their canonical form.

    Raises:
        Refused: One of them is none.
    """
    if len(networks) > _MAX_ENTRIES:
        raise Refused("networks", _("At most %d networks.") % _MAX_ENTRIES)
    try:
        return [str(network) for network in dict.fromkeys(ip_network(word.strip()) for word in networks)]
    except ValueError as error:
        raise Refused("networks", _("Networks are written such as 192.0.2.7 or 192.0.2.0/28.")) from error


def clean_allow_from(allowed: Sequence[str]) -> list[str]:
    """Give mailboxes and `@domain`s in their canonical form.

    Raises:
        Refused: One of them is neither.
    """
    if len(allowed) > _MAX_ENTRIES:
        raise Refused("allow_from", _("At most %d senders.") % _MAX_ENTRIES)
    cleaned = []
    for text in allowed:
        word = text.strip()
        try:
            cleaned.append(f"@{parse_domain(word[1:])}" if word.startswith("@") else Mailbox.parse(word).key())
        except MailboxError as error:
            raise Refused("allow_from", _("“%s” is neither a mailbox nor “@” and a domain.") % word[:100]) from error
    return list(dict.fromkeys(cleaned))


def _judge_networks(who: audit.Actor, credential: Credential) -> None:
    """Judge the networks of a credential that is known by them alone (design §4)."""
    if credential.kind != CredentialKind.NETWORK:
        return
    if not credential.networks:
        raise Refused("networks", _("Give the address that the device sends from."))
    own = [ip_network(text) for text in credential.networks]
    for network in own:
        if network.prefixlen < _WIDEST[network.version]:
            raise Refused("networks", _("A network is at most a /24, or a /56 of IPv6."))
        if network.is_loopback or network.is_unspecified or network.is_multicast or network.is_link_local:
            raise Refused("networks", _("%s is no address of a device.") % network)
        if network.prefixlen != _SINGLE[network.version] and who.kind not in _TRUSTED:
            raise Refused("networks", _("More than one address needs the operator's approval: ask them to set it."))
    alone("networks")
    # all accounts: an address speaks for one credential of the installation
    others = (
        Credential.objects.filter(kind=CredentialKind.NETWORK)
        .exclude(status=CredentialStatus.REVOKED)
        .exclude(id=credential.id)
    )
    taken = (ip_network(text) for networks in others.values_list("networks", flat=True) for text in networks)
    for other in taken:
        if any(network.version == other.version and network.overlaps(other) for network in own):
            raise Refused("networks", _("This address is in use by another credential."))


def _free_username(name: str) -> str:
    while True:
        username = new_username(name)
        if not Credential.objects.filter(username=username).exists():  # all accounts: usernames are the installation's
            return username


def _change(who: audit.Actor, account: str, credential: str, action: str, changes: dict[str, Any]) -> Credential:
    with write():
        found = _locked(account, credential)
        before = _shown(found)
        for name, value in changes.items():
            setattr(found, name, value)
        if "networks" in changes:
            _judge_networks(who, found)
        told = audit.changed(before, _shown(found))
        if told[1]:
            found.save()
            audit.record(who, account, action, found.id, before=told[0], after=told[1])
            publish_credential(found)
    return found


def _locked(account: str, credential: str) -> Credential:
    found = Credential.objects.select_for_update().filter(account=account, id=credential).first()
    if found is None:
        raise Refused("credential", _("There is no such credential."))
    if found.status == CredentialStatus.REVOKED:
        raise Refused("", _("The credential was revoked."))
    return found


def _cap(cap: int | None) -> int | None:
    if cap is not None and not 0 < cap <= _MOST_CAP:
        raise Refused("hourly_cap", _("A limit is a number above 0, or empty for none."))
    return cap


def _shown(credential: Credential) -> dict[str, Any]:
    return {
        "server": credential.server_id,
        "kind": str(credential.kind),
        "name": credential.name,
        "icon": credential.icon,
        "username": credential.username,
        "networks": credential.networks,
        "allow_from": credential.allow_from,
        "hourly_cap": credential.hourly_cap,
        "normalise_line_ends": credential.normalise_line_ends,
        "status": str(credential.status),
    }
