"""Rows: what a batch looks like in the tables, with a checksum in every row that holds mail or events.

SQLite has no page checksums, so each row carries a CRC-32 over its key and octets: it finds what disks do (flipped bits,
zeroed or swapped pages), costs 1 microsecond for 4 KiB where BLAKE2b costs 5, and is no defence against a person with
write access, who could recompute any of them. Does not know SQL.

Keys: a row's integer key is the first 8 octets of its id (milliseconds and counter), unique within the spool that made the
id and rising, so that tables grow at their end. Ids that another spool made (adopted mail) get negative keys from table
`alien`.
"""

import zlib
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from postbud.model.content import BodyFacts
from postbud.model.delivery import Delivery, Message, State
from postbud.model.ids import to_octets
from postbud.spool.values import Batch, Damaged, NewMessage

_MASK = 0xFFFFFFFF

Aliens = Mapping[bytes, int]
NO_ALIENS: Aliens = {}


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """A message row's own part: the message, what is known of its body, and the checksum of the body's file."""

    message: Message
    facts: BodyFacts
    file_crc: int = 0


class EventRow(NamedTuple):
    """An event without its number, which the writer gives. `message` is the key of the id of the message it is about."""

    at: float
    data: bytes
    message: int | None


@dataclass(slots=True)
class Entry:
    """A batch as rows, on its way through the writer. `job` runs in the same transaction, after the rows."""

    future: "Future[Any]"
    messages: list[tuple[Any, ...]] = field(default_factory=list)
    deliveries: list[tuple[Any, ...]] = field(default_factory=list)
    updates: dict[tuple[int, int], tuple[Any, ...]] = field(default_factory=dict)
    removals: list[tuple[int, int]] = field(default_factory=list)
    signatures: list[tuple[int, int, bytes]] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    answers: list[tuple[bytes, float, int, bytes]] = field(default_factory=list)
    uses: list[tuple[str, int]] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)  # ids of the deliveries in `updates` and `removals`
    octets: int = 0
    job: Callable[[Any], Any] | None = None

    @property
    def accepts(self) -> bool:
        """Whether it brings mail, and so may be refused for want of space."""
        return bool(self.messages) and not (self.updates or self.removals)


class Codec:
    """Turns values into rows and back, for one spool."""

    def __init__(self, spool_id: int) -> None:
        self._own = spool_id.to_bytes(4, "big")
        self._pack = msgspec.msgpack.Encoder()
        self._json = msgspec.json.Encoder()
        self._meta = msgspec.msgpack.Decoder(Meta)
        self._delivery = msgspec.msgpack.Decoder(Delivery)

    def is_own(self, octets: bytes) -> bool:
        """Tell whether this spool made an id."""
        return octets[8:12] == self._own

    def octets(self, identifier: str) -> bytes:
        """Give the octets of an id."""
        return to_octets(identifier)

    def key(self, identifier: str, aliens: Aliens = NO_ALIENS) -> int:
        """Give the key of an id; KeyError for an alien that is not known."""
        octets = to_octets(identifier)
        if octets[8:12] == self._own:
            return int.from_bytes(octets[:8], "big")
        return aliens[octets]

    def alien_ids(self, batch: Batch) -> set[bytes]:
        """Give the ids in a batch that another spool made. Nearly always none."""
        ids: list[str] = [new.message.id for new in batch.messages]
        ids += [delivery.id for new in batch.messages for delivery in new.deliveries]
        ids += [delivery.message_id for delivery in batch.updates]
        ids += [delivery.id for delivery in batch.updates]
        ids += [message_id for message_id, _ in batch.signatures]
        return {octets for octets in map(to_octets, ids) if octets[8:12] != self._own}

    def entry(self, batch: Batch, files: Mapping[int, tuple[str, int]], aliens: Aliens, future: "Future[Any]") -> Entry:
        """Turn a batch into rows. `files` gives name and checksum of the body files, by the message's place in the batch."""
        entry = Entry(future, uses=batch.uses)
        for place, new in enumerate(batch.messages):
            self._add_message(entry, new, files.get(place), aliens)
        for delivery in batch.updates:
            place_in_table = (self.key(delivery.message_id, aliens), self.key(delivery.id, aliens))
            entry.settled.append(delivery.id)
            if delivery.state is State.QUEUED:
                entry.updates[place_in_table] = self.delivery_row(delivery, *place_in_table)
            else:
                entry.removals.append(place_in_table)
        for message_id, data in batch.signatures:
            key = self.key(message_id, aliens)
            entry.signatures.append((key, zlib.crc32(data, key & _MASK), data))
        for event in batch.events:
            entry.events.append(EventRow(event.at.timestamp(), self._json.encode(event), event_key(event.message)))
        for answer in batch.answers:
            entry.answers.append((answer.key, answer.at, answer_sum(answer.key, answer.data), answer.data))
        return entry

    def _add_message(self, entry: Entry, new: NewMessage, file: tuple[str, int] | None, aliens: Aliens) -> None:
        key = self.key(new.message.id, aliens)
        name, crc = file or (None, 0)
        meta = self._pack.encode(Meta(new.message, new.content.facts, crc))
        header = new.content.header
        body = new.content.body if isinstance(new.content.body, bytes) else b""
        entry.messages.append((key, name, checksum(key, (meta,)), checksum(key, (header, body)), meta, header, body))
        if name is not None:
            entry.files.append(name)
        account = new.message.account
        for delivery in new.deliveries:
            row = self.delivery_row(delivery, key, self.key(delivery.id, aliens))
            entry.deliveries.append((*row, account, delivery.domain))
        entry.octets += len(meta) + len(header) + len(body)

    def delivery_row(self, delivery: Delivery, message_key: int, key: int) -> tuple[int, int, int, float, int, bytes]:
        """Give (message, key, held, due_at, sum, data)."""
        data = self._pack.encode(delivery)
        return message_key, key, 1 if delivery.held_by else 0, delivery.due_at, checksum(key, (data,)), data

    def meta(self, key: int, total: int, data: bytes) -> Meta:
        """Decode a message's own part.

        Raises:
            Damaged: It does not match its checksum.
        """
        if checksum(key, (data,)) != total:
            raise Damaged("message row does not match its checksum")
        try:
            return self._meta.decode(data)
        except (msgspec.DecodeError, ValueError) as error:
            raise Damaged(f"message row: {error}") from error

    def delivery(self, key: int, total: int, data: bytes) -> Delivery:
        """Decode a delivery row.

        Raises:
            Damaged: The row does not match its checksum.
        """
        if checksum(key, (data,)) != total:
            raise Damaged("delivery row does not match its checksum")
        try:
            return self._delivery.decode(data)
        except (msgspec.DecodeError, ValueError) as error:
            raise Damaged(f"delivery row: {error}") from error


class _About(msgspec.Struct):
    message: str = ""


def event_key(message_id: str) -> int | None:
    """Give the number by which events of a message are found; another spool's message may have the same one."""
    try:
        return int.from_bytes(to_octets(message_id)[:8], "big") if message_id else None
    except ValueError:
        return None


def key_of_event(data: bytes) -> int | None:
    """Give the same of an event's octets."""
    try:
        return event_key(msgspec.json.decode(data, type=_About).message)
    except (msgspec.DecodeError, ValueError):
        return None


def answer_sum(key: bytes, data: bytes) -> int:
    """Give the checksum of a remembered answer."""
    return checksum(zlib.crc32(key), (data,))


def checksum(key: int, parts: Iterable[bytes]) -> int:
    """Give the CRC-32 over a row's key and octets."""
    total = key & _MASK
    for part in parts:
        if not isinstance(part, bytes):
            return -1  # a damaged record header changed the value's kind
        total = zlib.crc32(part, total)
    return total
