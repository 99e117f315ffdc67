"""The `X-Postbud-*` submission fields: what a client may say about a message besides the message (table: `docs/headers.md`).

Read at end of data, always removed. A value that cannot be is refused by name, so that no schedule is silently lost.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from postbud.mime.header import HeaderSection
from postbud.model.refusal import Refusal, Why
from postbud.model.text import printable

PREFIX = b"x-postbud-"
_LENGTHS = {b"list": 64, b"campaign": 128, b"tag": 64, b"metadata": 1024}
_SEND_AT_AT_MOST = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SubmissionContext:
    """What the fields said; None where nothing was said."""

    list: str | None = None
    campaign: str | None = None
    tag: str | None = None
    metadata: str | None = None
    send_at: datetime | None = None


NOTHING_SAID = SubmissionContext()


def overlay(above: SubmissionContext, below: SubmissionContext) -> SubmissionContext:
    """Give what two ways of saying it come to; the first wins: the API has fields of its own for them."""
    return SubmissionContext(
        list=above.list or below.list,
        campaign=above.campaign or below.campaign,
        tag=above.tag or below.tag,
        metadata=above.metadata or below.metadata,
        send_at=above.send_at or below.send_at,
    )


def read_context(section: HeaderSection, now: datetime) -> SubmissionContext:
    """Read the submission fields.

    Raises:
        Refusal: BAD_CONTENT names the field that is unknown, doubled, too long or no date.
    """
    said: dict[bytes, str] = {}
    for field in section.fields:
        if not field.name.startswith(PREFIX):
            continue
        name = field.name[len(PREFIX) :]
        shown = f"X-Postbud-{printable(name.title(), 40)}"
        if name != b"send-at" and name not in _LENGTHS:
            raise Refusal(Why.BAD_CONTENT, f"{shown} is no field that Postbud knows")
        if name in said:
            raise Refusal(Why.BAD_CONTENT, f"{shown} stands twice")
        try:
            value = field.value.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise Refusal(Why.BAD_CONTENT, f"{shown} is not UTF-8") from error
        if len(value) > _LENGTHS.get(name, 64) or not value.isprintable():
            raise Refusal(Why.BAD_CONTENT, f"{shown} is too long or holds control characters")
        said[name] = value
    if not said:
        return NOTHING_SAID
    return SubmissionContext(
        list=said.get(b"list"),
        campaign=said.get(b"campaign"),
        tag=said.get(b"tag"),
        metadata=said.get(b"metadata"),
        send_at=_send_at(said[b"send-at"], now) if b"send-at" in said else None,
    )


LENGTHS = {name.decode("ascii"): length for name, length in _LENGTHS.items()}  # of the same fields in the API


def check_send_at(at: datetime, now: datetime) -> datetime:
    """Give an instant to send at in UTC.

    Raises:
        ValueError: It has no time zone, or is too far ahead.
    """
    if at.tzinfo is None:
        raise ValueError("names its time zone, such as 2026-12-24T17:00:00Z")
    if at - now > _SEND_AT_AT_MOST:
        raise ValueError("is more than 30 days ahead")
    return at.astimezone(UTC)


def _send_at(text: str, now: datetime) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refusal(Why.BAD_CONTENT, "X-Postbud-Send-At is an RFC 3339 instant, such as 2026-12-24T17:00:00Z") from error
    try:
        return check_send_at(at, now)
    except ValueError as error:
        raise Refusal(Why.BAD_CONTENT, f"X-Postbud-Send-At {error}") from error
