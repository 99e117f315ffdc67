"""Fills a fresh console for the browser: people, accounts, servers, credentials, domains, and a day of deliveries.

Run as a process of its own (`python -m tests.browser.seed`) with the console's settings in the environment; prints what tests
need as JSON. Everything is made by the product's own services, and events go the way that a relay's events go.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "postbud.console.settings")
django.setup()

_HTML = """<div style="font:16px sans-serif;max-width:32em"><h2>Faktura 10432</h2><p>Kære kunde</p>
<p>Hermed faktura 10432. <b>Tak for handlen.</b></p><p style="color:#666">Holm Bogtryk · Havnegade 4 · 8000 Aarhus</p></div>"""
PASSWORD = "heather tractor window lighthouse"


def main() -> None:
    # after `django.setup()`: models need the registry
    from django.core.management import call_command

    from postbud.console.accounts import audit, membership, people, services
    from postbud.console.accounts.identity import submit_identity
    from postbud.console.accounts.permissions import Permission
    from postbud.console.api.services import create_key
    from postbud.console.domains.services import add_domain, verify_domain
    from postbud.console.founding import ensure_installation
    from postbud.console.hooks import services as hooks
    from postbud.console.mail.ingest import ingest
    from postbud.console.mail.services import keep_view
    from postbud.console.operator.services import announce
    from postbud.console.servers import services as servers
    from tests.browser.mail_day import MailDay

    call_command("migrate", interactive=False, verbosity=0)
    ensure_installation()
    who = audit.SYSTEM
    ada = people.create_person(who, "ada@holm.example", PASSWORD, name="Ada Holm")
    bo = people.create_person(who, "bo@holm.example", PASSWORD, name="Bo Vestergaard")
    people.create_person(who, "operator@postbud.example", PASSWORD, name="Otto Drift", operator=True)
    people.create_person(who, "new@holm.example", PASSWORD, name="Nina Ny")
    account = services.create_account(audit.Actor("person", ada.id, "192.0.2.10", "Firefox"), "Holm Bogtryk", owner=ada)
    fresh = services.create_account(who, "Fjord & Co.", owner=ada)
    actor = audit.Actor("person", ada.id, "192.0.2.10", "Firefox")
    membership.add_member(who, account.id, bo.id, "developer")
    membership.invite(actor, account.id, "carla@holm.example", "viewer")
    domain = add_domain(actor, account.id, "holm.example")
    verify_domain(who, account.id, domain.id)
    pending = add_domain(actor, account.id, "post.holm.example")
    _looked_at(pending)
    office = servers.create_server(actor, account.id, "Office devices", "transactional")
    news = servers.create_server(actor, account.id, "Newsletter", "marketing")
    sandbox = servers.create_server(actor, account.id, "Try-out", "sandbox")
    made = {}
    for server, name, icon, kind, more in (
        (office, "Printer, 2nd floor", "printer", "smtp", {"hourly_cap": 200, "allow_from": ["scanner@holm.example"]}),
        (office, "Front door camera", "camera", "smtp", {"hourly_cap": 60}),
        (office, "Old franking machine", "sensor", "network", {"networks": ["192.0.2.77"], "normalise_line_ends": True}),
        (office, "Invoices", "api", "api", {}),
        (news, "Letter of the month", "newsletter", "smtp", {"hourly_cap": 20000}),
        (sandbox, "Staging shop", "shop", "smtp", {}),
    ):
        credential, secret = servers.create_credential(actor, account.id, server.id, kind=kind, name=name, icon=icon, **more)
        made[name] = {"id": credential.id, "username": credential.username, "secret": secret, "server": server.id}
    old, _ = servers.create_credential(actor, account.id, office.id, kind="smtp", name="Scanner, basement", icon="scanner")
    servers.revoke_credential(actor, account.id, old.id)
    servers.rotate_credential(actor, account.id, made["Front door camera"]["id"], timedelta(days=1))
    senders = [(one["server"], one["id"]) for name, one in made.items() if name not in ("Staging shop", "Front door camera")]
    ingest(MailDay(datetime.now(UTC), account.id, "holm.example").batch(senders, 240))
    message, content = _kept(account.id, office.id, made["Invoices"]["id"])
    endpoint, _ = hooks.create_endpoint(actor, account.id, "https://shop.holm.example/postbud", [], datetime.now(UTC))
    hook = hooks.send_test(actor, account.id, endpoint.id, datetime.now(UTC))
    create_key(actor, account.id, "Invoices, nightly", ["servers", "send"], frozenset(Permission))
    submit_identity(
        actor, account.id, legal_name="Holm Bogtryk ApS", street="Havnegade 4", postcode="8000", city="Aarhus C", country="DK",
        register_number="13585628", mailbox="post@holm.example", phone="+45 70 10 20 30", brands=["Holm Prent"],
    )  # fmt: skip
    node = _told_state()
    announce(who, "On Sunday from 6 to 7 the relays move to a new machine: mail waits a little.", "info", *_soon())
    keep_view(actor, account.id, ada.id, "Bounced this week", "period=7d&state=bounced")
    sys.stdout.write(
        json.dumps(
            {
                "password": PASSWORD,
                "account": account.id,
                "fresh": fresh.id,
                "server": office.id,
                "sandbox": sandbox.id,
                "credentials": made,
                "domain": domain.id,
                "pending": pending.id,
                "node": node,
                "message": message,
                "content": content,
                "endpoint": endpoint.id,
                "hook": hook.pk,
            }
        )
    )


def _soon() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now, now + timedelta(days=4)


def _told_state() -> str:
    """Let a relay tell its state: a lane that flows, one that is slowed, one out of reach."""
    from postbud.console.link.models import Node
    from postbud.console.link.services import note_state
    from postbud.model.link import NodeState, WorkerState

    now = datetime.now(UTC)
    common = {"paused_until": None, "dead_until": None, "messages_per_second": None, "why": "", "stopped_accounts": {}}
    lanes: list[dict[str, object]] = [
        common
        | {"source": "out-1", "site": "gmail-smtp-in.l.google.com", "ready": 412, "connections": 8, "connections_allowed": 20},
        common
        | {"source": "out-1", "site": "mx1.tele.example", "ready": 96, "connections": 1, "connections_allowed": 2}
        | {"messages_per_second": 0.8, "why": "421 4.7.0 Too many messages from your address, slow down"},
        common
        | {"source": "out-2", "site": "mail.fjord.example", "ready": 14, "connections": 0, "connections_allowed": 1}
        | {"dead_until": now.timestamp() + 540, "why": "connection refused"},
    ]
    numbers = {"postbud_queued_deliveries": 571.0, "postbud_held_deliveries": 12.0, "postbud_spool_has_space": 1.0}
    more = {"postbud_oldest_due_seconds": 48.0, "postbud_events_waiting": 0.0, "postbud_loop_lag_seconds": 0.004}
    workers = [WorkerState(0, 1, numbers | more, lanes), WorkerState(1, 2, numbers | more)]
    listeners: list[dict[str, object]] = [
        {"address": "0.0.0.0:587", "role": "submission", "tls": "starttls"},
        {"address": "0.0.0.0:465", "role": "submission", "tls": "implicit"},
        {"address": "0.0.0.0:25", "role": "inbound", "tls": "starttls"},
    ]
    health = [
        {"name": "port 25", "state": "ok", "said": "203.0.113.5 reaches gmail-smtp-in.l.google.com"},
        {"name": "ptr", "state": "fail", "said": "203.0.113.6 has no reverse name", "fix": "have its provider set PTR"},
        {"name": "clock", "state": "warn", "said": "nothing is seen that keeps the clock right", "fix": "run chronyd"},
    ]
    source: dict[str, object] = {"id": "out-1", "address": "203.0.113.5", "helo": "out1.postbud.example", "pool": "fast"}
    sources = [source]
    told = NodeState("relay1.postbud.example", now, "0.9.0", 1204, workers, listeners, sources, health, now)
    note_state(told, None, now + timedelta(hours=2))
    return str(Node.objects.get().id)


def _looked_at(domain: Any) -> None:
    """Write down a look at a domain at which one record is wrong and others are missing."""
    from postbud.console.domains import checking
    from postbud.console.domains.looking import Dmarc, Seen, Sight
    from postbud.console.domains.records import Purpose

    now = datetime.now(UTC)
    states = {Purpose.PROOF: "missing", Purpose.DKIM: "wrong", Purpose.RETURN_PATH: "present"}
    seen = [
        Seen(one.purpose.value, one.name, states[one.purpose], one.selector, ("v=DKIM1; k=rsa; p=MIIBIjANBgkqhk",))
        if one.algorithm == "rsa-sha256"
        else Seen(one.purpose.value, one.name, "missing" if one.algorithm else states[one.purpose], one.selector)
        for one in checking.records_of(domain)
    ]
    dmarc = Dmarc(
        "post.holm.example", "none", "post.holm.example", "holm.example", ("mailto:dmarc@holm.example",), removed_tags=("pct",)
    )
    sight = Sight(now, tuple(seen), dmarc, ("v=spf1 mx -all",), "present", "holm.example", ("ns1.simply.com", "ns2.simply.com"))
    checking.note_sight(domain.account_id, domain.id, sight, now)


def _kept(account: str, server: str, credential: str) -> tuple[str, str]:
    """Give a message that bounced, and one whose content is kept."""
    from postbud.console.configuration import current
    from postbud.console.link.content import ContentStore
    from postbud.console.mail.models import DeliveryRow

    bounced = DeliveryRow.objects.filter(account=account, state="bounced").first()
    kept = DeliveryRow.objects.filter(account=account, server=server, credential=credential, state="delivered").first()
    assert bounced is not None
    assert kept is not None
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "Holm Bogtryk <faktura@holm.example>", kept.mailbox, kept.subject
    letter.set_content("Kære kunde\n\nHermed faktura 10432. Tak for handlen.\n\nHolm Bogtryk\n")
    letter.add_alternative(_HTML, subtype="html")
    letter.add_attachment(b"%PDF-1.4" + bytes(48_000), maintype="application", subtype="pdf", filename="faktura-10432.pdf")
    store = ContentStore(current().folder / "content")
    store.put(account, server, kept.message, letter.as_bytes(policy=SMTP), datetime.now(UTC))
    return bounced.message, kept.message


if __name__ == "__main__":
    main()
