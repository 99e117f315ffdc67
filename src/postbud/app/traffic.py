"""Plays believable traffic into the demo: Acme's devices, its newsletter and its tests, submitted by real SMTP.

Knows the demo only by `demo.json`, as any program would. The rate follows the hour of the day: quiet at night, busy in the
morning, a dip at noon. Recipients live at domains behind the catcher, some of which defer, bounce or dawdle.
"""

import math
import random
import signal
import smtplib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from postbud.app.demo import DemoServer, Noted

_BUSY_PER_MINUTE = 60.0
_QUIET_PER_MINUTE = 12.0
_FIRST_BURST = 60  # so that the first look at the console finds something
_NEWSLETTER_EVERY_SECONDS = 240.0
_NEWSLETTER_RECIPIENTS = (20, 60)
_TIMEOUT_SECONDS = 30.0

_PEOPLE = (
    "anna.holm", "bjarke.lund", "camilla.friis", "david.okafor", "emma.ravn", "farid.haddad", "grete.dahl", "henrik.bang",
    "ida.winther", "jonas.krogh", "karen.toft", "lars.moeller", "maria.costa", "nikolaj.juhl", "olivia.berg", "peter.skov",
    "rikke.bruun", "sofie.lind", "thomas.norup", "ulla.vestergaard", "victor.nygaard", "yasmin.karim",
)  # fmt: skip
# domain, how often, in parts of all
_DOMAINS = (
    ("example.net", 30), ("nordwind.example", 16), ("kommune.example", 12), ("harbour.example", 10), ("skole.example", 8),
    ("slow.example", 6), ("grey.example", 6), ("flaky.example", 4), ("gone.example", 3), ("full.example", 2),
    ("busy.example", 2), ("late.example", 1), ("picky.example", 1),
)  # fmt: skip


@dataclass(frozen=True)
class Device:
    """Somebody who sends: local part of From, name, and what its subjects look like."""

    mailbox: str
    name: str
    subjects: tuple[str, ...]
    body: str


_DEVICES = (
    Device("scanner-2f", "Scanner, 2nd floor", ("Scan from MFP-{n:02d}", "Scanned document {n}"), "Your scan is ready."),
    Device("invoices", "Acme Invoices", ("Invoice {n}", "Faktura {n}", "Reminder: invoice {n}"), "Please find your invoice."),
    Device("booking", "Meeting rooms", ("Room {n} is booked", "Your booking was moved"), "See you there."),
    Device("alarm", "Cold store", ("Temperature back to normal", "Door 3 open for {n} s"), "Sensor 7 reports."),
    Device("shop", "Acme Shop", ("Order {n} is on its way", "Din ordre {n} er afsendt", "Receipt {n}"), "Thank you."),
    Device("backup", "Backup", ("Backup finished: {n} files", "Backup of file server: ok"), "All volumes were copied."),
)
_NEWSLETTERS = ("Five things for a calmer inbox", "Nyt fra værkstedet", "New this week at Acme", "What we learned this autumn")


def rate_per_minute(hour: float) -> float:
    """Give how many messages a minute are usual at an hour of the day, 0 to 24."""
    morning = math.exp(-((hour - 9.5) ** 2) / 6)
    afternoon = math.exp(-((hour - 14.5) ** 2) / 10)
    evening = 0.3 * math.exp(-((hour - 20) ** 2) / 5)
    return _QUIET_PER_MINUTE + (_BUSY_PER_MINUTE - _QUIET_PER_MINUTE) * min(1.0, morning + afternoon + evening)


def device_message(server: DemoServer, dice: random.Random, at: datetime) -> tuple[str, str, str]:
    """Give one message of a device: reverse-path, recipient, content."""
    device = dice.choice(_DEVICES)
    sender = f"{device.mailbox}@{server.domain}"
    recipient = _recipient(dice)
    subject = dice.choice(device.subjects).format(n=dice.randint(2, 19_999))
    fields = {"X-Postbud-Tag": device.mailbox}
    return sender, recipient, _content(device.name, sender, recipient, subject, device.body, at, fields)


def newsletter(server: DemoServer, dice: random.Random, at: datetime) -> list[tuple[str, str, str]]:
    """Give one issue of the newsletter, a message for each of its readers."""
    sender = f"news@{server.domain}"
    subject = dice.choice(_NEWSLETTERS)
    campaign = f"{at:%Y-%m-%d-%H%M}"
    readers = {_recipient(dice) for _ in range(dice.randint(*_NEWSLETTER_RECIPIENTS))}
    fields = {"X-Postbud-Campaign": campaign}
    return [
        (sender, reader, _content("Acme News", sender, reader, subject, "Good morning. Here is the news.", at, fields))
        for reader in sorted(readers)
    ]


def _recipient(dice: random.Random) -> str:
    domains, parts = zip(*_DOMAINS, strict=True)
    return f"{dice.choice(_PEOPLE)}@{dice.choices(domains, parts)[0]}"


def _content(name: str, sender: str, recipient: str, subject: str, body: str, at: datetime, fields: dict[str, str]) -> str:
    header = {"From": f'"{name}" <{sender}>', "To": recipient, "Subject": subject, "Date": format_datetime(at), **fields}
    header |= {"MIME-Version": "1.0", "Content-Type": "text/plain; charset=utf-8", "Content-Transfer-Encoding": "8bit"}
    return "".join(f"{key}: {value}\r\n" for key, value in header.items()) + f"\r\n{body}\r\n"


class Player:
    """Sends until told to stop; what is refused or unreachable is tried no further: traffic goes on."""

    def __init__(self, noted: Noted, dice: random.Random, stop: threading.Event, log: Callable[[str], None]) -> None:
        self._host, self._port = str(noted.smtp["host"]), int(noted.smtp["port"])
        self._servers = {server.kind: server for server in noted.servers}
        self._dice = dice
        self._stop = stop
        self._log = log
        self.sent = 0
        self.refused = 0

    def play(self) -> None:
        """Send a first burst, then as the hour asks for, with an issue of the newsletter now and then."""
        office = self._servers["transactional"]
        while not self._stop.is_set() and not self._is_there():
            self._stop.wait(0.2)
        self._send(office, [device_message(office, self._dice, _now()) for _ in range(_FIRST_BURST)])
        next_issue = time.monotonic() + 20
        while not self._stop.is_set():
            now = _now()
            self._send(office, [device_message(office, self._dice, now)])
            if self._dice.random() < 0.08 and "sandbox" in self._servers:
                self._send(self._servers["sandbox"], [device_message(self._servers["sandbox"], self._dice, now)])
            if time.monotonic() > next_issue and "marketing" in self._servers:
                next_issue = time.monotonic() + _NEWSLETTER_EVERY_SECONDS
                self._send(self._servers["marketing"], newsletter(self._servers["marketing"], self._dice, now))
            self._stop.wait(self._dice.expovariate(rate_per_minute(now.hour + now.minute / 60) / 60))

    def _is_there(self) -> bool:
        try:
            with smtplib.SMTP(self._host, self._port, timeout=_TIMEOUT_SECONDS):
                return True
        except (OSError, smtplib.SMTPException):
            return False

    def _send(self, server: DemoServer, messages: list[tuple[str, str, str]]) -> None:
        try:
            with smtplib.SMTP(self._host, self._port, local_hostname="devices.acme.example", timeout=_TIMEOUT_SECONDS) as smtp:
                smtp.login(server.username, server.secret)
                for sender, recipient, content in messages:
                    if self._stop.is_set():
                        return
                    try:
                        smtp.sendmail(sender, [recipient], content.encode(), mail_options=["BODY=8BITMIME"])
                        self.sent += 1
                    except smtplib.SMTPResponseException as error:
                        self.refused += 1
                        self._log(f"{server.kind}: {error.smtp_code} {error.smtp_error!r}")
                    except smtplib.SMTPRecipientsRefused as error:
                        self.refused += 1
                        self._log(f"{server.kind}: {error.recipients}")
        except (OSError, smtplib.SMTPException) as error:
            self._log(f"{server.kind}: {error}")
            self._stop.wait(2.0)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def run_traffic(noted: Noted, ready: Callable[[], None], log: Callable[[str], None]) -> int:
    """Play until told to stop."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ready()
    Player(noted, random.Random(), stop, log).play()  # noqa: S311 (plays people)
    return 0
