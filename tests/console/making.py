"""What tests begin with: people, accounts, servers, made by the services themselves."""

from django.test import Client

from postbud.console.accounts import audit, people
from postbud.console.accounts.membership import add_member
from postbud.console.accounts.models import Account, Person
from postbud.console.accounts.services import create_account
from postbud.console.link.models import LinkRecord
from postbud.console.servers.models import Server
from postbud.console.servers.services import create_server

PASSWORD = "four quiet otters read"
CONSOLE = audit.Actor("command", "root")


def make_person(email: str = "ane@acme.example", **values: object) -> Person:
    """Make a person with the password of all."""
    return people.create_person(CONSOLE, email, PASSWORD, **values)  # type: ignore[arg-type]


def make_account(name: str = "Acme", owner: Person | None = None) -> Account:
    """Make an account, with an owner if one is given."""
    return create_account(CONSOLE, name, owner=owner)


def make_member(account: Account, role: str, email: str) -> Person:
    """Make a person who is a member of an account."""
    person = make_person(email)
    add_member(CONSOLE, account.id, person.id, role)
    return person


def make_server(account: Account, name: str = "Office", kind: str = "transactional") -> Server:
    """Make a server."""
    return create_server(CONSOLE, account.id, name, kind)


def browser_of(person: Person | None) -> Client:
    """Give a browser in which a person is signed in."""
    client = Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
    if person is not None:
        client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def actor_for(person: Person) -> audit.Actor:
    """Give a person as who acts."""
    return audit.Actor("person", person.id, "192.0.2.1", "test")


def told(kind: str, key: str) -> bytes | None:
    """Give what relays are told of a record; None when they are told nothing or that it is gone."""
    found = LinkRecord.objects.filter(kind=kind, key=key, gone=False).first()
    return bytes(found.body) if found is not None else None
