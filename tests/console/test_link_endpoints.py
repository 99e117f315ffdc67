"""The link as relays meet it: long polls that wake, doors that stay shut, and a problem for whatever is no request."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account
from postbud.console.accounts.services import create_account
from postbud.console.link import endpoints, services
from postbud.console.link.models import Content, LinkRecord, Node
from postbud.console.link.publish import publish
from postbud.console.mail.models import EventRow
from postbud.console.servers.models import Server
from postbud.console.servers.services import create_server
from postbud.console.transaction import write
from postbud.model.event import EventKind
from postbud.model.link import AccountRecord, DirectoryPage, HighWater, NodeState, SetChanges
from tests.console.link_server import Relay, Served, served

pytestmark = pytest.mark.usefixtures("database")
WHO = audit.SYSTEM
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


def directory_page(answer: object) -> DirectoryPage:
    return msgspec.json.decode(answer.content, type=DirectoryPage)  # type: ignore[attr-defined]


def account(name: str = "Ann") -> Account:
    return create_account(WHO, name)


def server(owner: Account, kind: str = "sandbox") -> Server:
    return create_server(WHO, owner.id, f"{kind} of {owner.name}", kind)


def test_the_directory_is_given_and_a_change_wakes_who_waits(link: Served) -> None:
    with write():
        publish(AccountRecord(id="acct_a", name="A"))
    with link.local() as relay:
        first = directory_page(relay.get("/link/directory", params={"since": 0}))
        assert {change.record.id for change in first.changes} >= {"acct_a"}

        def change() -> None:
            time.sleep(0.3)
            with write():
                publish(AccountRecord(id="acct_b", name="B"))
            told.append(time.monotonic())

        told: list[float] = []
        thread = threading.Thread(target=_closing(change))
        thread.start()
        second = directory_page(relay.get("/link/directory", params={"since": first.seq, "wait": 30}))
        heard = time.monotonic()
        thread.join()
        assert [one.record.id for one in second.changes] == ["acct_b"]
        assert heard - told[0] < 5  # 0.05 s when the machine is quiet


def _closing(work: object) -> object:
    from django.db import connections

    def run() -> None:
        try:
            work()  # type: ignore[operator]
        finally:
            connections.close_all()

    return run


def test_many_wait_at_once_and_all_hear(link: Served) -> None:
    heard: list[int] = []

    def wait() -> None:
        with link.local() as relay:
            page = directory_page(relay.get("/link/directory", params={"since": start, "wait": 20}))
            heard.append(len(page.changes))

    with link.local() as relay:
        start = directory_page(relay.get("/link/directory", params={"since": 0})).seq
    threads = [threading.Thread(target=wait) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    with write():
        publish(AccountRecord(id="acct_b", name="B"))
    for thread in threads:
        thread.join()
    assert heard == [1] * 12


def test_a_wait_without_a_change_ends_with_nothing(link: Served) -> None:
    with link.local() as relay:
        start = directory_page(relay.get("/link/directory", params={"since": 0})).seq
        page = directory_page(relay.get("/link/directory", params={"since": start, "wait": 1}))
        assert (page.seq, page.changes, page.restart) == (start, (), False)
        sets = msgspec.json.decode(relay.get("/link/sets", params={"since": 0, "wait": 1}).content, type=SetChanges)
        assert sets.names == ()
        assert directory_page(relay.get("/link/directory", params={"since": start + 99, "wait": 9})).restart


def test_events_are_shipped_and_the_mark_is_told(link: Served) -> None:
    spool = Relay()
    with link.local() as relay:
        assert relay.get("/link/events", params={"spool": 7}).json() == {"seq": 0}
        answer = relay.post("/link/events", content=spool.body(spool.accepted(), spool.accepted()))
        assert msgspec.json.decode(answer.content, type=HighWater).seq == 2
        assert relay.get("/link/events", params={"spool": 7}).json() == {"seq": 2}
    assert EventRow.objects.count() == 2


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"node":1,"spool":"x","events":{}}',
    b'{"node":"n","spool":7,"events":[{"id":"e","kind":"nonsense","at":"2026-01-01T00:00:00Z","seq":1}]}',
    b'{"node":"n","spool":7,"events":[{"id":"e","kind":"accepted","at":"yesterday","seq":1}]}',
    b'{"node":"n","spool":7,"events":[{"id":"\\ud800","kind":"accepted","at":"2026-01-01T00:00:00Z","seq":1}]}',
    b'{"node":"n","spool":-1,"events":[]}',
    b'{"node":"n","spool":99999999999999999999999,"events":[]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("path", ["/link/events", "/link/quota", "/link/state"])
def test_garbage_is_answered_by_a_problem(link: Served, path: str) -> None:
    with link.local() as relay:
        for body in GARBAGE:
            if path != "/link/events" and body.startswith(b'{"node":"n"'):
                continue
            answer = relay.post(path, content=body)
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), body[:60]
            assert "Traceback" not in answer.text
            assert answer.json()["title"] == "Bad request"
    assert not EventRow.objects.exists()


def test_numbers_that_do_not_rise_are_refused_and_nothing_is_kept(link: Served) -> None:
    spool = Relay()
    first, second = spool.accepted(), spool.accepted()
    with link.local() as relay:
        assert relay.post("/link/events", content=spool.body(second, first)).status_code == 400
        assert relay.post("/link/events", content=spool.body(first, first)).status_code == 400
    assert not EventRow.objects.exists()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "since=",
        "since=-1",
        "since=x",
        "since=1e3",
        "since=99999999999999999999",
        "since=0&wait=x",
        "since=0&wait=-1",
        "since=٣",
    ],
)
def test_a_query_that_is_none_is_answered_by_a_problem(link: Served, query: str) -> None:
    with link.local() as relay:
        for path in ("/link/directory", "/link/sets"):
            assert relay.get(f"{path}?{query}").status_code == 400
        assert relay.get("/link/events?spool=99999999999").status_code == 400
        assert relay.get("/link/sets/platform?after=99999999999999999999999").status_code == 400
        assert relay.get("/link/nothing").status_code == 404
        assert relay.delete("/link/events").status_code == 405


def test_a_body_beyond_its_bound_is_refused_before_it_is_read(link: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MAX_BATCH_OCTETS", 1000)
    monkeypatch.setattr(endpoints, "MAX_OCTETS", 1000)
    monkeypatch.setattr(endpoints, "MAX_BATCH_EVENTS", 2)
    spool = Relay()
    with link.local() as relay:
        assert relay.post("/link/events", content=b"x" * 1001).status_code == 413
        assert relay.post("/link/events", content=(b"x" * 100 for _ in range(11))).status_code == 413
        assert relay.put("/link/content/msg_1?account=a&server=b", content=b"x" * 1001).status_code == 413
        monkeypatch.setattr(endpoints, "MAX_BATCH_OCTETS", 100_000)
        assert relay.post("/link/events", content=spool.body(*(spool.accepted() for _ in range(3)))).status_code == 413


def test_a_nul_in_a_text_does_not_stop_a_spool(link: Served) -> None:
    spool = Relay()
    accepted = spool.accepted(subject="a\x00b", metadata="\\u0000")
    with link.local() as relay:
        assert relay.post("/link/events", content=spool.body(accepted)).json() == {"seq": 1}


def test_outside_of_the_socket_a_token_is_needed_and_a_revoked_one_opens_nothing(link: Served) -> None:
    node, token = services.add_node(WHO, "north", NOW)
    assert token not in str(Node.objects.values_list())
    paths = [
        ("GET", "/link/directory?since=0"),
        ("GET", "/link/sets?since=0"),
        ("GET", "/link/sets/platform"),
        ("GET", "/link/events?spool=1"),
    ]
    paths += [
        ("POST", "/link/events"),
        ("POST", "/link/quota"),
        ("POST", "/link/state"),
        ("PUT", "/link/content/msg_1"),
        ("GET", "/link/health"),
    ]
    for wrong in ("", "x", token + "x", token[:-1], "pbn_" + "é" * 10):
        with link.remote() as stranger:
            for method, path in paths:
                headers = {"Authorization": f"Bearer {wrong}".encode()} if wrong else {}
                answer = stranger.request(method, path, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (method, path, wrong)
    with link.remote(token) as relay:
        assert relay.get("/link/directory?since=0").status_code == 200
        assert relay.get("/link/directory?since=0", headers={"Authorization": f"bearer {token}"}).status_code == 200
        services.revoke_node(WHO, "north", NOW)
        for method, path in paths:
            assert relay.request(method, path).status_code == 401
    node.refresh_from_db()
    assert node.revoked_at == NOW


def test_a_node_ships_only_its_own_spools(link: Served) -> None:
    _, north = services.add_node(WHO, "north", NOW)
    _, south = services.add_node(WHO, "south", NOW)
    spool = Relay(node="says anything")
    with link.remote(north) as relay, link.remote(south) as other:
        assert relay.post("/link/events", content=spool.body(spool.accepted())).status_code == 200
        assert other.post("/link/events", content=spool.body(spool.accepted())).status_code == 403
        assert relay.post("/link/events", content=spool.body(spool.accepted())).status_code == 200
    assert EventRow.objects.count() == 2


def test_a_nodes_state_is_kept_under_its_own_name(link: Served) -> None:
    _, token = services.add_node(WHO, "north", NOW)
    state = msgspec.json.encode(NodeState(node="south", at=NOW, version="0.1", directory_seq=4))
    with link.remote(token) as relay, link.local() as local:
        assert relay.post("/link/state", content=state).status_code == 204
        assert local.post("/link/state", content=state).status_code == 204
        assert local.post("/link/state", content=state).status_code == 204
        assert local.post("/link/state", content=state.replace(b"south", b"north")).status_code == 204
    north, south = Node.objects.get(name="north"), Node.objects.get(name="south")
    assert (north.state["directory_seq"], south.token_hash) == (4, None)
    assert north.last_seen_at is not None
    assert north.state["node"] == "south"


def test_content_is_kept_sealed_and_read_by_its_account_only(link: Served) -> None:
    ann, bob = account("Ann"), account("Bob")
    box = server(ann)
    octets = b"Subject: secret words\r\n\r\nbody\r\n"
    with link.local() as relay:
        path = "/link/content/msg_06h154tm00000000003g000000"
        for wrong in (
            {"account": bob.id, "server": box.id},
            {"account": ann.id, "server": "srv_none"},
            {"account": "", "server": box.id},
            {"account": "../..", "server": box.id},
        ):
            assert relay.put(path, params=wrong, content=octets).status_code == 404
        right = {"account": ann.id, "server": box.id}
        for name in ("..%2f..%2fevil", "msg_..", "MSG_1", "msg_" + "a" * 100):
            assert relay.put(f"/link/content/{name}", params=right, content=octets).status_code in {400, 404}
        assert relay.put(path, params=right, content=octets).status_code == 204
        assert relay.put(path, params=right, content=b"another").status_code == 204
    message = path.rpartition("/")[2]
    assert link.content.read(ann.id, message) == octets
    assert link.content.read(bob.id, message) is None
    assert link.content.read(ann.id, "../../etc/passwd") is None
    files = [one for one in (link.folder / "content").rglob("*") if one.is_file()]
    assert len(files) == 1
    assert b"secret words" not in files[0].read_bytes()
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_content_of_a_message_of_another_server_is_refused(link: Served) -> None:
    ann = account("Ann")
    one, two = server(ann), server(ann, "transactional")
    spool = Relay(account=ann.id)
    accepted = spool.accepted(server=one.id)
    with link.local() as relay:
        relay.post("/link/events", content=spool.body(accepted))
        path = f"/link/content/{accepted.message}"
        assert relay.put(path, params={"account": ann.id, "server": two.id}, content=b"x").status_code == 404
        assert relay.put(path, params={"account": ann.id, "server": one.id}, content=b"x").status_code == 204


def test_content_goes_with_its_row_and_leftovers_go_by_age(link: Served) -> None:
    ann = account("Ann")
    box = server(ann)
    message = "msg_06h154tm00000000003g000000"
    link.content.put(ann.id, box.id, message, b"x", NOW)
    leftover = link.folder / "content" / ann.id / "zz" / "msg_06h154tm00000000003g0000zz"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"left")
    soon = datetime.fromtimestamp(time.time(), UTC)
    assert link.content.clear_leftovers(soon, timedelta(hours=1)) == 0
    assert link.content.clear_leftovers(soon + timedelta(hours=2), timedelta(hours=1)) == 1
    assert link.content.read(ann.id, message) == b"x"
    assert link.content.delete(ann.id, [message, "msg_other"]) == 1
    assert not Content.objects.exists()
    assert link.content.read(ann.id, message) is None


def test_what_the_database_cannot_answer_now_is_a_503_and_later_it_goes_on(
    link: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    spool = Relay()
    body = spool.body(spool.accepted())

    def gone(*_: object) -> int:
        raise OperationalError("server closed the connection unexpectedly")

    with link.local() as relay:
        with monkeypatch.context() as patch:
            patch.setattr(endpoints, "ingest", gone)
            answer = relay.post("/link/events", content=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert relay.post("/link/events", content=body).json() == {"seq": 1}
        assert relay.get("/link/health").json()["status"] == "ok"


@pytest.mark.row("48")
@pytest.mark.parametrize("engine", ["postgresql"])  # SQLite has no connection that could die
def test_a_connection_that_dies_at_the_commit_leaves_all_or_nothing(link: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the commit happened is not known to the one who asked; sending again settles it."""
    from django.db import OperationalError
    from django.db.backends.postgresql.base import DatabaseWrapper

    spool = Relay()
    body = spool.body(spool.accepted(), spool.accepted())
    commit = DatabaseWrapper._commit
    for committed in (False, True):
        died = []

        def dying(self: DatabaseWrapper, committed: bool = committed, died: list[bool] = died) -> None:
            if died:
                commit(self)
                return
            died.append(True)
            if committed:
                commit(self)
            self.connection.close()
            raise OperationalError("the connection is gone")

        with link.local() as relay, monkeypatch.context() as patch:
            patch.setattr(DatabaseWrapper, "_commit", dying)
            assert relay.post("/link/events", content=body).status_code == 503
            assert relay.post("/link/events", content=body).status_code == 200
            patch.undo()
            assert relay.get("/link/events", params={"spool": 7}).json()["seq"] == spool.seq
            assert EventRow.objects.count() == spool.seq
        body = spool.body(spool.accepted())


def test_commands_are_told_until_they_expire_and_then_withdrawn() -> None:
    from postbud.model.link import CommandKind, Selector

    command = services.issue_command(CommandKind.RETRY, Selector(account="acct_a"), "acct_a", NOW)
    assert LinkRecord.objects.get(kind="command").gone is False
    assert services.clear(NOW + timedelta(hours=1)) == 0
    assert services.clear(NOW + timedelta(hours=25)) == 1
    assert LinkRecord.objects.get(kind="command", key=command.id).gone is True
    assert services.clear(NOW + timedelta(hours=26)) == 0
    assert services.clear(NOW + timedelta(days=92)) == 1


def test_an_event_kind_that_answers_nothing_known_is_harmless(link: Served) -> None:
    spool = Relay()
    with link.local() as relay:
        assert (
            relay.post("/link/events", content=spool.body(spool.event(EventKind.COMMANDED, command="cmd_x"))).status_code == 200
        )
