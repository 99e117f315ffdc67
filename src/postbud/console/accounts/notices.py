"""Mail of our own to people: sign-up, reset, invitation. It waits sealed in a table and goes by our own relay.

Owns when a notice is sent again; `acct_system` is who sends it. Invariants: a page never waits for the relay, nor shows by its
time whether a mail was sent; a notice goes with the transaction that asked for it, or not at all; what it says (links with
tokens) is sealed.
"""

import smtplib
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from postbud.console.accounts.models import Notice
from postbud.console.configuration import current
from postbud.console.ids import new_id
from postbud.console.installation import seal_value, unseal_value
from postbud.console.transaction import write

_TIMEOUT_SECONDS = 10.0
_FIRST_RETRY = timedelta(seconds=10)
_LONGEST_RETRY = timedelta(minutes=15)
_MOST_DOUBLINGS = 16  # a longer pause than the longest by far, and no overflow however often it failed
_GIVE_UP_AFTER = timedelta(days=2)
_AT_ONCE = 20


class SystemLogin(msgspec.Struct, frozen=True):
    """`DATA/keys/system.json`: what `acct_system` signs in with at the relay, and the mailbox that it writes from."""

    username: str
    secret: str
    mailbox: str


class SystemMailBackend(BaseEmailBackend):
    """Django's way to send mail: puts it into the table."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Put messages into the table, in the transaction that is open or in one of their own."""
        now = datetime.fromtimestamp(time.time(), UTC)
        with write():
            for message in email_messages:
                notice_id = new_id("ntc")
                message.from_email = message.from_email or ""
                content = message.message().as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                Notice.objects.create(
                    id=notice_id,
                    recipients=message.recipients(),
                    sealed=seal_value(notice_id, content),
                    created_at=now,
                    next_at=now,
                )
        return len(email_messages)


def send_due(now: datetime) -> int:
    """Send what is due; give how many were sent. What fails waits longer each time, for two days."""
    due = list(Notice.objects.filter(next_at__lte=now).order_by("next_at")[:_AT_ONCE])
    if not due:
        return 0
    sent = 0
    try:
        login = read_login()
        host, _, port = current().system_smtp.rpartition(":")
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=_TIMEOUT_SECONDS) as smtp:
            smtp.ehlo_or_helo_if_needed()
            if smtp.has_extn("starttls"):
                smtp.starttls(context=_own_relay())
            smtp.login(login.username, login.secret)
            for notice in due:
                sent += _send(smtp, login, notice, now)
    except (OSError, smtplib.SMTPException):
        for notice in due:
            _later(notice, now)
    return sent


def _own_relay() -> ssl.SSLContext:
    """Give the context for our own relay on this machine, whose certificate may be one that it made for itself."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _send(smtp: smtplib.SMTP, login: SystemLogin, notice: Notice, now: datetime) -> int:
    try:
        smtp.sendmail(login.mailbox, notice.recipients, unseal_value(notice.id, bytes(notice.sealed)))
    except smtplib.SMTPResponseException:
        _later(notice, now)
        return 0
    except smtplib.SMTPRecipientsRefused:
        _later(notice, now)
        return 0
    with write():
        Notice.objects.filter(id=notice.id).delete()
    return 1


def _later(notice: Notice, now: datetime) -> None:
    with write():
        if now - notice.created_at > _GIVE_UP_AFTER:
            Notice.objects.filter(id=notice.id).delete()
            return
        pause = min(_FIRST_RETRY * 2 ** min(notice.attempts, _MOST_DOUBLINGS), _LONGEST_RETRY)
        Notice.objects.filter(id=notice.id, next_at=notice.next_at).update(next_at=now + pause, attempts=notice.attempts + 1)


def read_login() -> SystemLogin:
    """Read what `acct_system` signs in with.

    Raises:
        OSError: There is none yet.
    """
    return msgspec.json.decode((current().folder / "keys" / "system.json").read_bytes(), type=SystemLogin)
