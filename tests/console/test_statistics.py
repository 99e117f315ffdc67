"""Statistics: sums and courses are a recount of the events, in every time zone and however often batches come."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postbud.console.accounts.models import Account
from postbud.console.mail import statistics
from postbud.console.mail.figures_views import AskedForm
from postbud.console.mail.ingest import ingest
from postbud.console.mail.statistics import Counts, Grain
from postbud.console.mail.tally import latency_at_most, latency_bin
from postbud.model.event import EventKind
from postbud.model.ids import to_text
from postbud.model.link import EventBatch, NumberedEvent
from tests.console.making import browser_of, make_account, make_member, make_person, make_server

ZONES = [
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Europe/Copenhagen",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
]
# days on which a clock of theirs changes, and ones on which none does
DAYS = ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2026-04-24", "2026-06-15"]
_ENDS = (EventKind.DELIVERED, EventKind.BOUNCED, EventKind.EXPIRED, EventKind.CANCELLED, EventKind.SUPPRESSED)
_accounts = iter(range(10**9))

pytestmark = pytest.mark.usefixtures("database")


class Life:
    """Random events of one account, told by a relay as they happened."""

    def __init__(self, seed: int, day: str) -> None:
        self.dice = random.Random(seed)
        self.account = f"acct_{next(_accounts)}"
        self.spool = next(_accounts)
        self.events: list[NumberedEvent] = []
        self.start = datetime.fromisoformat(f"{day}T00:00:00+00:00") - timedelta(hours=30)
        for number in range(self.dice.randint(1, 25)):
            self._message(number)
        self.events.sort(key=lambda event: event.at)
        self.events = [self._numbered(event, seq) for seq, event in enumerate(self.events, 1)]

    @staticmethod
    def _numbered(event: NumberedEvent, seq: int) -> NumberedEvent:
        return type(event)(**{name: getattr(event, name) for name in event.__struct_fields__} | {"seq": seq})

    def _message(self, number: int) -> None:
        dice = self.dice
        at = self.start + timedelta(seconds=dice.randrange(60 * 3600))
        recipients = tuple(f"r{n}@dest{dice.randrange(3)}.example" for n in range(dice.randint(1, 3)))
        ids = tuple(f"dlv_{self.spool}_{number}_{n}" for n in range(len(recipients)))
        common = {
            "account": self.account, "server": f"srv_{dice.randrange(2)}", "credential": "crd_1",
            "message": f"msg_{self.spool}_{number}", "message_at": at, "from_domain": "acme.example",
        }  # fmt: skip
        self._add(EventKind.ACCEPTED, at, common, recipients=recipients, deliveries=ids, size_octets=1000 + number)
        for recipient, delivery in zip(recipients, ids, strict=True):
            later = at
            for _ in range(dice.randint(0, 2)):
                later += timedelta(seconds=dice.randrange(20_000))
                said = {"delivery": delivery, "recipient": recipient, "site": "dest.example", "classified": "temporary"}
                self._add(EventKind.DEFERRED, later, common, **said)
            if dice.random() < 0.85:
                later += timedelta(milliseconds=dice.randrange(90_000_000))
                kind = dice.choice(_ENDS)
                failed = {"classified": "recipient"} if kind is EventKind.BOUNCED else {}
                seconds = (later - at).total_seconds()
                self._add(
                    kind,
                    later,
                    common,
                    delivery=delivery,
                    recipient=recipient,
                    site="dest.example",
                    latency_seconds=seconds,
                    **failed,
                )

    def _add(self, kind: EventKind, at: datetime, common: dict[str, object], **values: object) -> None:
        self.events.append(NumberedEvent(id=f"evt_{next(_accounts)}", kind=kind, at=at, seq=0, **(common | values)))  # type: ignore[arg-type]

    def ship(self) -> None:
        """Ship in batches of any size, some of them again, some under another spool's number."""
        place = 0
        while place < len(self.events):
            size = self.dice.randint(1, 12)
            batch = EventBatch(
                spool=self.spool, node="n", events=self.events[max(0, place - self.dice.randint(0, 6)) : place + size]
            )
            for _ in range(self.dice.randint(1, 2)):
                ingest(batch)
            place += size
        if self.dice.random() < 0.3:
            ingest(EventBatch(spool=self.spool + 10**6, node="m", events=self.events))

    def recount(self, key: str = "", dimension: str = "") -> Iterator[tuple[datetime, Counts]]:
        """Give what each event adds to which instant, told from the raw events alone."""
        for event in self.events:
            if dimension and {"server": event.server, "site": event.site, "class": event.classified}[dimension] != key:
                continue
            if event.kind is EventKind.ACCEPTED:
                yield event.at, Counts(accepted=len(event.recipients), messages=1, octets=event.size_octets)
            elif event.kind is EventKind.DEFERRED:
                yield event.at, Counts(deferrals=1)
            else:
                assert event.message_at is not None
                yield event.message_at, Counts(**{event.kind.value: 1})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**9), day=st.sampled_from(DAYS), zone=st.sampled_from(ZONES), grain=st.sampled_from(list(Grain)),
    shift=st.integers(-2000, 2000),
)  # fmt: skip
def test_a_course_is_a_recount_of_the_events(seed: int, day: str, zone: str, grain: Grain, shift: int) -> None:
    life = Life(seed, day)
    life.ship()
    local = ZoneInfo(zone)
    start = life.start + timedelta(minutes=shift)
    over = statistics.span(start, start + timedelta(hours=100), grain, local)
    for dimension, key in (("", ""), ("server", "srv_1"), ("site", "dest.example"), ("class", "temporary")):
        slots = statistics.course(life.account, over, dimension, key)
        wanted: dict[datetime, Counts] = defaultdict(Counts)
        for at, counts in life.recount(key, dimension):
            if over.start <= at < over.end:
                wanted[_slot_of(at, over, local)] += counts
        assert dict(zip(over.edges, slots, strict=True)) == {edge: wanted.pop(edge, Counts()) for edge in over.edges}
        assert wanted == {}
        assert statistics.add(slots) == statistics.total(life.account, over.start, over.end, dimension, key)
    values = dict(statistics.by_value(life.account, over.start, over.end, "server"))
    assert statistics.add(values.values()) == statistics.total(life.account, over.start, over.end)


def _slot_of(at: datetime, over: statistics.Span, zone: ZoneInfo) -> datetime:
    """Give the slot of an instant by its local date and clock alone."""
    local = at.astimezone(zone)
    match over.grain:
        case Grain.QUARTER:
            parts = ("%Y%m%d%H%z", lambda one: one.minute // 15)
        case Grain.HOUR:
            parts = ("%Y%m%d%H%z", lambda _: 0)
        case Grain.DAY:
            parts = ("%Y%m%d", lambda _: 0)
        case Grain.MONTH:
            parts = ("%Y%m", lambda _: 0)
    form, within = parts
    name = (local.strftime(form), within(local))
    same = [edge for edge in over.edges if (edge.astimezone(zone).strftime(form), within(edge.astimezone(zone))) == name]
    return same[0] if same else over.edges[0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), day=st.sampled_from(DAYS))
def test_latencies_are_those_of_the_events_within_their_bins(seed: int, day: str) -> None:
    life = Life(seed, day)
    life.ship()
    took = sorted(int(event.latency_seconds * 1000) for event in life.events if event.kind is EventKind.DELIVERED)
    found = statistics.latencies(life.account, life.start - timedelta(days=9), life.start + timedelta(days=99))
    if not took:
        assert (found.p50, found.p99) == (None, None)
        return
    for share, said in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        true = took[min(len(took) - 1, max(0, -(-int(share * 100) * len(took) // 100) - 1))]
        assert said == latency_at_most(latency_bin(true))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("grain", list(Grain))
def test_slots_begin_where_the_local_clock_says_so_and_leave_nothing_out(zone: str, grain: Grain) -> None:
    local = ZoneInfo(zone)
    for day in DAYS:
        start = datetime.fromisoformat(f"{day}T00:00:00+00:00") - timedelta(days=2, minutes=7)
        over = statistics.span(start, start + timedelta(days=5), grain, local)
        assert over.start <= start
        assert over.end >= start + timedelta(days=5)
        assert list(over.edges) == sorted(set(over.edges))
        for edge in over.edges[1:]:
            clock = edge.astimezone(local)
            assert grain is Grain.QUARTER or clock.minute in (0, 30)
            if grain in (Grain.DAY, Grain.MONTH):
                former = (edge - timedelta(minutes=15)).astimezone(local)
                place = "%Y%m%d" if grain is Grain.DAY else "%Y%m"
                assert former.strftime(place) != clock.strftime(place)


def _acme() -> tuple[Account, Client]:
    ane = make_person(time_zone="Asia/Kathmandu")
    account = make_account(owner=ane)
    return account, browser_of(ane)


def test_every_number_leads_to_as_many_rows(client: Client) -> None:
    del client
    account, browser = _acme()
    server = make_server(account)
    life = Life(5, "2026-06-15")
    now = datetime.now(UTC)
    for place, event in enumerate(life.events):
        values = {name: getattr(event, name) for name in event.__struct_fields__}
        moved = now - timedelta(hours=60) + (event.at - life.start) / 2
        accepted = now - timedelta(hours=60) + ((event.message_at or event.at) - life.start) / 2
        octets = int(accepted.timestamp() * 1000).to_bytes(6, "big") + int(event.message.rpartition("_")[2]).to_bytes(10, "big")
        values |= {
            "account": account.id,
            "at": moved,
            "message_at": accepted,
            "server": server.id,
            "message": to_text("msg", octets),
        }
        life.events[place] = NumberedEvent(**values)
    ingest(EventBatch(spool=life.spool, node="n", events=life.events))
    page = browser.get(f"/a/{account.id}/statistics/", {"period": "7d"})
    cells = {cell.name: cell for cell in page.context["figures"]}
    counted = Counter(event.kind for event in life.events)
    assert cells["delivered"].count == counted[EventKind.DELIVERED]
    assert cells["bounced"].count == counted[EventKind.BOUNCED]
    rows = [cell for slot in page.context["slots"] for cell in slot["cells"]] + [
        cell for row in page.context["rows"] for cell in row["cells"]
    ]
    led = 0
    for cell in [*cells.values(), *rows]:
        if cell.count and cell.name != "deferrals":  # attempts are no rows
            found = browser.get(cell.address)
            assert len(found.context["rows"]) == min(cell.count, 50), (cell, len(found.context["rows"]))
            led += 1
    assert led > 10
    by_class = browser.get(f"/a/{account.id}/statistics/", {"period": "7d", "by": "class"}).context["rows"]
    (recipient,) = [row for row in by_class if "mailbox" in row["name"]]
    bounced = next(cell for cell in recipient["cells"] if cell.name == "bounced")
    assert len(browser.get(bounced.address).context["rows"]) == bounced.count == counted[EventKind.BOUNCED]
    csv = b"".join(browser.get(page.context["export"]).streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    place = csv[0].split(",").index("accepted")
    assert sum(int(line.split(",")[place]) for line in csv[1:]) == cells["accepted"].count


@pytest.mark.parametrize(
    "query",
    [
        {"period": "nonsense"}, {"start": "2026-13-45"}, {"start": "0001-01-01"}, {"end": "9999-12-31"}, {"by": "drop table"},
        {"dimension": "server"}, {"key": "x"}, {"dimension": "class", "key": "'; --"},
        {"start": "2026-06-01", "end": "2026-01-01"},
        {"period": "12m"}, {"period": "90d"}, {"start": "2026-03-28", "end": "2026-03-30"},
        {"key": "x" * 5000, "dimension": "site"},
    ],
)  # fmt: skip
def test_whatever_the_address_bar_says_there_is_a_page(query: dict[str, str], client: Client) -> None:
    del client
    account, browser = _acme()
    for path in ("", "export/"):
        answer = browser.get(f"/a/{account.id}/statistics/{path}", query)
        assert answer.status_code == 200
        if answer.streaming:
            assert b"".join(answer.streaming_content).startswith(b"start,")  # type: ignore[attr-defined]


def test_a_viewer_sees_figures_and_a_strangers_account_is_not_there(client: Client) -> None:
    del client
    account, _ = _acme()
    viewer = browser_of(make_member(account, "viewer", "view@acme.example"))
    assert viewer.get(f"/a/{account.id}/statistics/").status_code == 200
    assert browser_of(make_person("bo@other.example")).get(f"/a/{account.id}/statistics/").status_code == 404
    assert AskedForm({}).is_valid()
