"""Fills a fresh console for the browser: people, accounts, servers, credentials, domains, and a day of deliveries.

Run as a process of its own (`python -m tests.browser.seed`) with the console's settings in the environment; prints what tests
need as JSON. Everything is made by the product's own services, and events go the way that a relay's events go.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "postbud.console.settings")
django.setup()

PASSWORD = "heather tractor window lighthouse"


def main() -> None:
    # after `django.setup()`: models need the registry
    from django.core.management import call_command

    from postbud.console.accounts import audit, membership, people, services
    from postbud.console.domains.services import add_domain, verify_domain
    from postbud.console.founding import ensure_installation
    from postbud.console.mail.ingest import ingest
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
            }
        )
    )


if __name__ == "__main__":
    main()
