"""Quarantine: rows that cannot be trusted, or that crash whoever touches them, put aside with an event (rows 14, 17, 56).

What is left of them stays in table `quarantine` for a person to look at: a delivery's and a message's octets as they were, and
the content as one text. All functions run on the writer's connection, inside its transaction.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import apsw
import msgspec

from postbud.model.delivery import Delivery
from postbud.model.event import Event, EventKind
from postbud.model.ids import IdSource
from postbud.spool.read import Damage
from postbud.spool.rows import Meta
from postbud.spool.statements import Statements

T = TypeVar("T")


class Quarantine:
    """Puts rows aside."""

    def __init__(self, statements: Statements, ids: IdSource, clock: Callable[[], float]) -> None:
        self._statements = statements
        self._ids = ids
        self._clock = clock

    def put(self, connection: apsw.Connection, damage: list[Damage]) -> int:
        """Put rows aside and write their events; give how many events. Rows that are gone already count for nothing."""
        count = 0
        for table, message, delivery, why in damage:
            if table == "event":
                count += self._put_event(connection, message, why)
            elif delivery is not None:
                count += self._put_delivery(connection, message, delivery, why)
            else:
                count += self._put_message(connection, message, why)
        return count

    def tell_lost(self, connection: apsw.Connection, message: int, why: str) -> int:
        """Write the event of a delivery that only an index remembers."""
        return self._tell(why, self._meta(connection, message), None)

    def _put_event(self, connection: apsw.Connection, seq: int, why: str) -> int:
        self._copy(
            connection, "SELECT :at, 'event', seq, :why, NULL, data FROM event WHERE seq = :key", {"key": seq, "why": why}
        )
        connection.execute("DELETE FROM event WHERE seq = ?", (seq,))
        return self._tell(why, None, None) if connection.changes() else 0

    def _put_delivery(self, connection: apsw.Connection, message: int, key: int, why: str) -> int:
        row = connection.execute("SELECT data FROM delivery WHERE message = ? AND key = ?", (message, key)).get
        if row is None:
            return 0
        self._copy(
            connection,
            "SELECT :at, 'delivery', printf('%016x', key), :why, NULL, data FROM delivery"
            " WHERE message = :message AND key = :key",
            {"message": message, "key": key, "why": why},
        )
        connection.execute("DELETE FROM delivery WHERE message = ? AND key = ?", (message, key))
        meta = self._meta(connection, message)
        self._put_finished_message(connection, message, why)
        return self._tell(why, meta, _decode(row, Delivery))

    def _put_message(self, connection: apsw.Connection, message: int, why: str) -> int:
        rows: list[Any] = connection.execute("SELECT key FROM delivery WHERE message = ?", (message,)).fetchall()
        count = sum(self._put_delivery(connection, message, key, why) for (key,) in rows)
        if not rows:
            meta = self._meta(connection, message)
            self._put_finished_message(connection, message, why)
            count += self._tell(why, meta, None)
        return count

    def _put_finished_message(self, connection: apsw.Connection, message: int, why: str) -> None:
        """Put a message aside with its last delivery. One that the disk will not give stays where it is, unnamed."""
        binding = {"key": message, "why": why}
        if connection.execute("SELECT EXISTS (SELECT 1 FROM delivery WHERE message = ?)", (message,)).get:
            return
        identifier = "SELECT :at, 'message', printf('%016x', :key), :why"
        try:
            connection.execute("SELECT meta, header, body FROM message WHERE key = ?", (message,)).fetchall()
        except (apsw.IOError, apsw.CorruptError):
            self._copy(connection, f"{identifier}, NULL, NULL", binding)
            return
        self._copy(connection, f"{identifier}, body_file, meta FROM message WHERE key = :key", binding)
        content = f"{identifier}, body_file, header || x'0d0a' || body FROM message WHERE key = :key"
        self._copy(connection, content, binding)
        self._statements.remove_finished({message})

    def _copy(self, connection: apsw.Connection, select: str, bindings: dict[str, object]) -> None:
        insert = f"INSERT INTO quarantine (at, kind, id, why, body_file, data) {select}"
        connection.execute(insert, bindings | {"at": self._clock()})

    def _meta(self, connection: apsw.Connection, message: int) -> Meta | None:
        try:
            return _decode(connection.execute("SELECT meta FROM message WHERE key = ?", (message,)).get, Meta)
        except (apsw.IOError, apsw.CorruptError):
            return None

    def _tell(self, why: str, meta: Meta | None, delivery: Delivery | None) -> int:
        now = self._clock()
        message = meta.message if meta is not None else None
        event = Event(
            id=self._ids.event(),
            kind=EventKind.QUARANTINED,
            at=datetime.fromtimestamp(now, UTC),
            reason=why,
            account=message.account if message else "",
            server=message.server if message else "",
            credential=message.credential if message else "",
            message=message.id if message else delivery.message_id if delivery else "",
            message_at=message.received_at if message else None,
            delivery=delivery.id if delivery else "",
            recipient=delivery.mailbox if delivery else "",
        )
        self._statements.add_event(now, msgspec.json.encode(event))
        return 1


def _decode(data: bytes | None, kind: type[T]) -> T | None:
    """Read what can be read of octets that nobody vouches for."""
    try:
        return None if data is None else msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError):
        return None
