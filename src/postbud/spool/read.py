"""The thread that reads, with a connection of its own, so that a look through the queue never stalls a commit.

Every statement that reads is here, shown whole. A row that does not match its checksum, or that the disk will not give, is
reported beside what could be read; putting it in quarantine is the writer's.
"""

import json
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message
from postbud.model.ids import DeliveryId, MessageId
from postbud.spool.rows import Codec, answer_sum, checksum, event_key
from postbud.spool.values import Damaged, Filter, Gauges, Unknown

_UNREADABLE = (Damaged, apsw.IOError, apsw.CorruptError, UnicodeDecodeError)
_SCANNED_AT_ONCE = 2_000
_PASSED_AT_ONCE = 20_000  # some milliseconds of an index: what waits for this thread waits no longer, however long the queue is


class Damage(NamedTuple):
    """A row to put in quarantine. `delivery` None: the message with all its deliveries. Table `event`: `message` is the seq."""

    table: str
    message: int
    delivery: int | None
    why: str


@dataclass(slots=True)
class Found:
    """Deliveries with their messages, and what could not be read on the way."""

    deliveries: list[tuple[Message, Delivery]] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    until: float = 0.0


class ContentRow(NamedTuple):
    """A message's content as stored; `file` and `file_crc` when the body is in a file."""

    content: Content
    signatures: bytes | None
    file: str | None
    file_crc: int


_NEAR_SECONDS = 30.0


class Reader:
    """Answers questions from the tables. Used by one thread at a time."""

    def __init__(self, connection: apsw.Connection, codec: Codec) -> None:
        self._connection = connection
        self._codec = codec

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def aliens(self, ids: set[bytes]) -> dict[bytes, int]:
        """Give the keys of those ids that are in the spool but not of its making."""
        query = "SELECT key FROM alien WHERE id = ?"
        found = {octets: self._connection.execute(query, (octets,)).get for octets in ids}
        return {octets: int(key) for octets, key in found.items() if key is not None}

    def load_due(
        self,
        since: float,
        now: float,
        limit: int,
        loaded: Container[DeliveryId],
        skipped: Iterable[tuple[str, str]] = (),
        skipped_accounts: Iterable[str] = (),
    ) -> Found:
        """Give due deliveries, oldest first, that are not loaded and of no (account, domain) or account that is skipped.

        What is skipped costs a step in the index, never its row: the row is joined, because SQLite would read it first.
        """
        found = Found(until=self._end_of_look(since, now))
        metas: dict[int, Message | None] = {}
        pairs = json.dumps([f"{account} {domain}" for account, domain in skipped])
        accounts = json.dumps(list(skipped_accounts))
        rows = self._connection.execute(
            "SELECT whole.message, whole.key, whole.sum, whole.data FROM delivery AS due INDEXED BY delivery_due"
            " CROSS JOIN delivery AS whole ON whole.message = due.message AND whole.key = due.key"
            " WHERE due.held = 0 AND due.due_at BETWEEN ? AND ?"
            " AND due.account NOT IN (SELECT value FROM json_each(?))"
            " AND due.account || ' ' || due.domain NOT IN (SELECT value FROM json_each(?)) ORDER BY due.due_at",
            (since, found.until, accounts, pairs),
        )
        for _ in self._deliveries(rows, found, metas, lambda _, delivery: delivery.id not in loaded):
            if len(found.deliveries) >= limit:
                found.until = found.deliveries[-1][1].due_at
                break
        return found

    def _end_of_look(self, since: float, now: float) -> float:
        """Give the due time up to which one look goes: `now`, or that of some delivery before it, later than `since`."""
        ask = self._connection.execute
        query = "SELECT due_at FROM delivery WHERE held = 0 AND due_at BETWEEN ? AND ? ORDER BY due_at LIMIT 1 OFFSET ?"
        end = ask(query, (since, now, _PASSED_AT_ONCE)).get
        if end == since:  # that many are due at the same instant
            end = ask("SELECT min(due_at) FROM delivery WHERE held = 0 AND due_at > ?", (since,)).get
        return now if end is None else min(float(end), now)

    def next_due_at(self, after: float | None) -> float | None:
        """Give the earliest due time of what is not held, of those later than `after`."""
        query = "SELECT min(due_at) FROM delivery WHERE held = 0 AND due_at > ?"
        due: float | None = self._connection.execute(query, (-1.0 if after is None else after,)).get
        return due

    def content(self, message_id: MessageId) -> ContentRow:
        """Read one content.

        Raises:
            Unknown: There is no such message.
            Damaged, apsw.IOError, apsw.CorruptError: It cannot be had.
        """
        key = self.message_key(message_id)
        row = self._connection.execute(
            "SELECT body_file, meta_sum, sum, meta, header, body FROM message WHERE key = ?", (key,)
        ).get
        if row is None:
            raise Unknown(message_id)
        file, meta_sum, total, meta, header, body = row
        decoded = self._codec.meta(key, meta_sum, meta)
        if checksum(key, (header, body)) != total:
            raise Damaged("content does not match its checksum")
        return ContentRow(Content(header, body, decoded.facts), self.signatures(key), file, decoded.file_crc)

    def message_key(self, message_id: str) -> int:
        """Give the key of a message or delivery id.

        Raises:
            Unknown: No such id is in the spool, or it is no id.
        """
        try:
            return self._codec.key(message_id)
        except KeyError as error:
            aliens = self.aliens({error.args[0]})
            if not aliens:
                raise Unknown(message_id) from None
            return next(iter(aliens.values()))
        except ValueError:
            raise Unknown(message_id) from None

    def find(self, wanted: Filter, limit: int, after: DeliveryId | None) -> Found:
        """Give the deliveries that agree with a filter, in the order of their messages."""
        found = Found()
        metas: dict[int, Message | None] = {}
        position = self._position(after)
        while len(found.deliveries) < limit:
            where, bindings = self._where(wanted, position)
            rows: list[Any] = self._connection.execute(
                f"SELECT message, key, sum, data FROM delivery WHERE {where} ORDER BY message, key LIMIT {_SCANNED_AT_ONCE}",  # noqa: S608 (fixed texts)
                bindings,
            ).fetchall()
            for _ in self._deliveries(rows, found, metas, lambda message, _: _agrees(message, wanted)):
                if len(found.deliveries) >= limit:
                    break
            if len(rows) < _SCANNED_AT_ONCE:
                break
            position = (rows[-1][0], rows[-1][1])
            metas.clear()
        return found

    def events_after(self, seq: int, limit: int) -> tuple[list[tuple[int, bytes]], list[Damage]]:
        """Give events in order, without damaged ones."""
        events: list[tuple[int, bytes]] = []
        damage: list[Damage] = []
        query = "SELECT seq, sum, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
        for number, total, data in self._connection.execute(query, (seq, limit)):
            if checksum(number, (data,)) == total:
                events.append((number, data))
            else:
                damage.append(Damage("event", number, None, "event row does not match its checksum"))
        return events, damage

    def events_of(self, message_id: MessageId, limit: int) -> list[bytes]:
        """Give what happened to one message, in order, as far as it is kept; rows that are damaged are left out."""
        query = "SELECT seq, sum, data FROM event INDEXED BY event_message WHERE message = ? ORDER BY seq LIMIT ?"
        found = self._connection.execute(query, (event_key(message_id), limit))
        return [data for seq, total, data in found if checksum(seq, (data,)) == total]

    def answer(self, key: bytes, after: float) -> bytes | None:
        """Give what was answered to a request with this key, if that was after an instant."""
        query = "SELECT sum, data FROM idempotency WHERE key = ? AND at > ?"
        row = self._connection.execute(query, (key, after)).get
        return bytes(row[1]) if row is not None and answer_sum(key, row[1]) == row[0] else None

    def accepted_event(self, public_id: str, at: float) -> bytes | None:
        """Give the `accepted` event that names a message or delivery made at an instant, while it is kept.

        No index finds it: numbers follow the clock nearly, so the place is searched by halves and its surroundings read.
        """
        ask = self._connection.execute
        first, last = self._seq_at(at - _NEAR_SECONDS), self._seq_at(at + _NEAR_SECONDS)
        query = (
            "SELECT seq, sum, data FROM event WHERE seq BETWEEN ? AND ? AND instr(data, ?) AND instr(data, ?)"
            " ORDER BY seq LIMIT 1"
        )
        for number, total, data in ask(query, (first, last, public_id.encode(), b'"kind":"accepted"')):
            if checksum(number, (data,)) == total:
                return bytes(data)
        return None

    def _seq_at(self, at: float) -> int:
        """Give the number of the first event at or after an instant, the last one's when all are before."""
        ask = self._connection.execute
        low = ask("SELECT coalesce(min(seq), 0) FROM event").get
        high = ask("SELECT coalesce(max(seq), 0) FROM event").get
        while low < high:
            middle = (low + high) // 2
            if ask("SELECT at FROM event WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)).get < at:
                low = middle + 1
            else:
                high = middle
        return int(low)

    def gauges(self, octets: int) -> Gauges:
        """Tell the numbers of one instant, of which none is counted here."""
        query = (
            "SELECT queued, held, quarantined, (SELECT coalesce(max(seq), 0) FROM event),"
            " (SELECT min(due_at) FROM delivery WHERE held = 0 AND due_at > -1.0) FROM tally"
        )
        queued, held, quarantined, last_event, oldest_due_at = next(self._connection.execute(query))
        return Gauges(queued, held, octets, last_event, quarantined, oldest_due_at)

    def is_named(self, file: str) -> bool:
        """Tell whether a row names a body file."""
        by_message = "SELECT EXISTS (SELECT 1 FROM message WHERE body_file = ?)"
        by_quarantine = "SELECT EXISTS (SELECT 1 FROM quarantine WHERE body_file = ?)"
        return any(self._connection.execute(query, (file,)).get for query in (by_message, by_quarantine))

    def signatures(self, key: int) -> bytes | None:
        """Give the cached signatures; damaged ones count as none, for they are remade."""
        row = self._connection.execute("SELECT sum, data FROM signature WHERE message = ?", (key,)).get
        return bytes(row[1]) if row is not None and checksum(key, (row[1],)) == row[0] else None

    def _deliveries(
        self, rows: Any, found: Found, metas: dict[int, Message | None], wanted: Callable[[Message, Delivery], bool]
    ) -> Iterator[None]:
        for message_key, key, total, data in rows:
            try:
                delivery = self._codec.delivery(key, total, data)
            except Damaged as damaged:
                found.damage.append(Damage("delivery", message_key, key, str(damaged)))
                continue
            if message_key not in metas:
                metas[message_key] = self._message(message_key, found)
            message = metas[message_key]
            if message is not None and wanted(message, delivery):
                found.deliveries.append((message, delivery))
                yield

    def _message(self, key: int, found: Found) -> Message | None:
        try:
            row = self._connection.execute("SELECT meta_sum, meta FROM message WHERE key = ?", (key,)).get
            if row is None:
                raise Damaged("a delivery's message is missing")
            return self._codec.meta(key, *row).message
        except _UNREADABLE as error:
            found.damage.append(Damage("message", key, None, str(error)))
            return None

    def _position(self, after: DeliveryId | None) -> tuple[int, int] | None:
        if after is None:
            return None
        key = self.message_key(after)
        message = self._connection.execute("SELECT message FROM delivery WHERE key = ?", (key,)).get
        return (key if message is None else message, key)

    def _where(self, wanted: Filter, position: tuple[int, int] | None) -> tuple[str, dict[str, Any]]:
        terms, bindings = ["1"], dict[str, Any]()
        if position is not None:
            terms.append("(message, key) > (:message_after, :key_after)")
            bindings |= {"message_after": position[0], "key_after": position[1]}
        if wanted.message is not None:
            terms.append("message = :message")
            bindings["message"] = self.message_key(wanted.message)
        if wanted.delivery is not None:
            terms.append("key = :key")
            bindings["key"] = self.message_key(wanted.delivery)
        if wanted.account is not None:
            terms.append("account = :account")
            bindings["account"] = wanted.account
        if wanted.domain is not None:
            terms.append("domain = :domain")
            bindings["domain"] = wanted.domain
        if wanted.held is not None:
            terms.append("held = :held")
            bindings["held"] = int(wanted.held)
        return " AND ".join(terms), bindings


def _agrees(message: Message, wanted: Filter) -> bool:
    return (wanted.server is None or message.server == wanted.server) and (
        wanted.credential is None or message.credential == wanted.credential
    )
