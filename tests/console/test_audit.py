"""The audit log: every write is in it, and a change of the past shows."""

import threading
from datetime import timedelta

import pytest
from django.db import connections

from postbud.console.accounts import audit
from postbud.console.accounts.models import AuditEntry, AuditHead
from postbud.console.accounts.services import pause_account, update_account
from postbud.console.transaction import write
from tests.console.making import CONSOLE, make_account, make_person

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def chain(database: str) -> str:
    """An account with five entries."""
    account = make_account(owner=make_person())
    for name in ("B", "C", "D"):
        update_account(CONSOLE, account.id, name=name)
    return account.id


def test_entries_are_numbered_without_gaps_and_chained(chain: str) -> None:
    entries = list(AuditEntry.objects.filter(account=chain).order_by("number"))
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.previous_hash for entry in entries] == [audit.GENESIS, *(entry.hash for entry in entries[:-1])]
    assert entries[2].before == {"name": "Acme"}
    assert entries[2].after == {"name": "B"}
    assert audit.verify_chain(chain) == []
    assert audit.verify_chain(audit.INSTALLATION) == []
    assert audit.verify_chain("acct_nobody") == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor", "per_somebody"), ("action", "account.delete"), ("after", {"name": "E"}), ("before", None), ("address", "::9"),
        ("object_id", "x"), ("user_agent", "x"), ("actor_kind", "system"), ("hash", "0" * 64), ("previous_hash", "1" * 64),
    ],
)  # fmt: skip
def test_a_changed_entry_is_found(chain: str, field: str, value: object) -> None:
    AuditEntry.objects.filter(account=chain, number=3).update(**{field: value})
    assert 3 in {flaw.number for flaw in audit.verify_chain(chain)}


def test_a_changed_time_is_found(chain: str) -> None:
    entry = AuditEntry.objects.get(account=chain, number=3)
    AuditEntry.objects.filter(id=entry.id).update(at=entry.at + timedelta(microseconds=1))
    assert [flaw.number for flaw in audit.verify_chain(chain)] == [3]


def test_a_rewritten_entry_breaks_the_next(chain: str) -> None:
    entry = AuditEntry.objects.get(account=chain, number=3)
    entry.after = {"name": "Z"}
    entry.hash = audit.hash_of(entry)
    entry.save()
    assert [flaw.number for flaw in audit.verify_chain(chain)] == [4]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_removed_entry_is_found(chain: str, number: int) -> None:
    AuditEntry.objects.filter(account=chain, number=number).delete()
    assert audit.verify_chain(chain) != []


def test_a_chain_that_was_removed_whole_is_found(chain: str) -> None:
    AuditEntry.objects.filter(account=chain).delete()
    assert audit.verify_chain(chain) != []
    AuditHead.objects.filter(account=chain).delete()
    assert audit.verify_chain(chain) == []  # an account that never was; the account itself is still there


def test_an_entry_from_another_account_does_not_fit(chain: str) -> None:
    other = make_account("Other")
    AuditEntry.objects.filter(account=chain, number=5).delete()
    AuditEntry.objects.filter(account=other.id, number=1).update(account=chain, number=5)
    assert audit.verify_chain(chain) != []


def test_many_writers_of_one_account_make_one_chain(chain: str) -> None:
    problems: list[BaseException] = []

    def add(name: str) -> None:
        try:
            for number in range(5):
                with write():
                    audit.record(CONSOLE, chain, "test.write", f"{name}{number}")
        except BaseException as error:
            problems.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert AuditEntry.objects.filter(account=chain).count() == 25
    assert audit.verify_chain(chain) == []


def test_the_entry_goes_with_the_write() -> None:
    account = make_account()
    count = AuditEntry.objects.count()
    with pytest.raises(ZeroDivisionError), write():  # noqa: PT012
        pause_account(CONSOLE, account.id)
        raise ZeroDivisionError
    account.refresh_from_db()
    assert account.status == "active"
    assert AuditEntry.objects.count() == count


def test_outside_of_a_transaction_nothing_is_recorded() -> None:
    with pytest.raises(RuntimeError):
        audit.record(CONSOLE, "", "test.write", "x")


@pytest.mark.parametrize("name", ["secret", "password", "token", "secret_hash", "sealed"])
def test_a_secret_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name), write():
        audit.record(CONSOLE, "", "test.write", "x", after={name: "x"})


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "Ø🎺", "\\u0000", '"', "\u2028", "<script>"])
def test_strange_text_is_kept_and_still_verifies(text: str) -> None:
    with write():
        audit.record(
            audit.Actor("person", "x" + text, "::1", text * 400),
            "acct_x",
            "test.write",
            text,
            before={"a": text},
            after={"b": [1, None]},
        )
    assert audit.verify_chain("acct_x") == []


def test_nothing_is_written_when_nothing_changes() -> None:
    account = make_account()
    count = AuditEntry.objects.count()
    update_account(CONSOLE, account.id, name="Acme")
    assert AuditEntry.objects.count() == count
