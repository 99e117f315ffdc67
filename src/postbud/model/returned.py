"""A bounce that came back for a message of ours, as read from a DSN whose return path carried a valid token."""

import msgspec


class ReturnedRecipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recipient block of the DSN; every text is escaped and bounded."""

    mailbox: str
    action: str
    status: str = ""
    diagnostic: str = ""


class Returned(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report. `id` is the message (`msg_…`) or delivery (`dlv_…`) that the token named."""

    id: str
    recipients: tuple[ReturnedRecipient, ...]
    reporting_mta: str = ""
