"""A bounce that came back for a message of ours, as read from a DSN whose return path carried a valid token."""

from enum import Enum

import msgspec


class ReturnedRecipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recipient block of the DSN; every text is escaped and bounded."""

    mailbox: str  # the final recipient, else the original one
    action: str
    status: str = ""
    diagnostic: str = ""
    original: str = ""  # as ORCPT named it, where the reporter says so


class Returned(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report. `id` is the message (`msg_…`) or delivery (`dlv_…`) that the token named."""

    id: str
    recipients: tuple[ReturnedRecipient, ...]
    reporting_mta: str = ""


class Heard(Enum):
    """What became of a report at the worker that was asked. It travels between workers by its value."""

    NOTED = "noted"  # an event of each delivery that it names is durable
    REPEATED = "repeated"  # the same was noted before
    NOBODY = "nobody"  # the message is known, but the report names none of its recipients
    UNKNOWN = "unknown"  # the message is not known here (any more)
