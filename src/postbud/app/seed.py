"""Seeds the demo through the console's own services, in one transaction; `demo.json` is written as its last act.

Invariant: either all of it is there, with its secrets noted, or nothing is. A second start seeds nothing and keeps the
secrets; only addresses are noted anew.
"""

import secrets
from dataclasses import dataclass

from postbud.app.config import Settings
from postbud.app.demo import DemoServer, Noted, Person, note, read_noted
from postbud.console.accounts import audit, people
from postbud.console.accounts.identity import judge_identity, submit_identity
from postbud.console.accounts.models import Account
from postbud.console.accounts.services import create_account
from postbud.console.domains.services import add_domain, verify_domain
from postbud.console.servers.models import Server
from postbud.console.servers.services import create_credential, create_server
from postbud.console.transaction import write
from postbud.model.settings import SettingsError

DOMAIN = "acme.example"
_SYSTEM_ACCOUNT = "acct_system"
_WORDS = (
    "amber", "anchor", "apple", "autumn", "basket", "beacon", "birch", "bridge", "candle", "canvas", "cedar", "cloud", "copper",
    "coral", "cotton", "dune", "ember", "falcon", "fern", "fjord", "forest", "garden", "harbor", "hazel", "heather", "island",
    "ivory", "juniper", "lantern", "lemon", "linen", "maple", "marble", "meadow", "mirror", "needle", "ocean", "olive",
    "paper", "pebble", "pepper", "pillow", "planet", "quartz", "ribbon", "river", "saffron", "sailor", "shadow", "silver",
    "spruce", "summer", "thimble", "timber", "tulip", "velvet", "walnut", "willow", "winter",
)  # fmt: skip


@dataclass(frozen=True)
class _Seeded:
    """A server of Acme, and who sends through it."""

    kind: str
    name: str
    credential: str
    icon: str
    program: str


_IDENTITY = {
    "legal_name": "Acme ApS", "street": "Havnegade 4", "postcode": "8000", "city": "Aarhus C", "country": "DK",
    "register_number": "13585628", "mailbox": f"post@{DOMAIN}", "phone": "+45 70 10 20 30", "website": f"https://{DOMAIN}",
}  # fmt: skip
_SERVERS = (
    _Seeded("transactional", "Office devices", "Printer, 2nd floor", "printer", "Order system"),
    _Seeded("marketing", "Newsletter", "Newsletter editor", "mail", "Newsletter program"),
    _Seeded("sandbox", "Tests", "Developer", "code", "Test suite"),
)


def seed(settings: Settings) -> Noted:
    """Seed an empty database; give what `demo.json` says.

    Raises:
        SettingsError: The database holds accounts that no demo made.
    """
    noted = read_noted(settings.data)
    accounts = Account.objects.exclude(id=_SYSTEM_ACCOUNT)
    if noted is not None and Server.objects.filter(id__in=[server.id for server in noted.servers]).exists():
        return note(settings, noted.operator, noted.customer, noted.servers)
    if accounts.exists():
        raise SettingsError("the console's database holds accounts: a demo cannot be switched on over real data")
    with write():
        operator = Person("operator@postbud.example", _password())
        customer = Person("anna@acme.example", _password())
        people.create_person(audit.SYSTEM, operator.email, operator.password, name="Oda Operator", operator=True)
        owner = people.create_person(audit.SYSTEM, customer.email, customer.password, name="Anna Holm")
        account = create_account(audit.SYSTEM, "Acme", owner=owner)
        domain = add_domain(audit.SYSTEM, account.id, DOMAIN)
        verify_domain(audit.SYSTEM, account.id, domain.id)
        submit_identity(audit.SYSTEM, account.id, **_IDENTITY)
        judge_identity(audit.SYSTEM, account.id, accepted=True)
        servers = [_server(account.id, seeded) for seeded in _SERVERS]
        return note(settings, operator, customer, servers)


def _server(account: str, seeded: _Seeded) -> DemoServer:
    server = create_server(audit.SYSTEM, account, seeded.name, seeded.kind)
    credential, secret = create_credential(
        audit.SYSTEM, account, server.id, kind="smtp", name=seeded.credential, icon=seeded.icon
    )  # fmt: skip
    _, key = create_credential(audit.SYSTEM, account, server.id, kind="api", name=seeded.program, icon="code")
    return DemoServer(server.id, seeded.kind, DOMAIN, credential.username or "", secret, key)


def _password() -> str:
    """Give a password that a person can type: four words, a number."""
    return "-".join([*(secrets.choice(_WORDS) for _ in range(4)), str(secrets.randbelow(90) + 10)])
