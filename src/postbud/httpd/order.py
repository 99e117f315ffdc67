"""An order: what a request asks for, parsed. Every field is checked here, and every fault found is told at once.

Owns the rules on fields (inputs I1, I2, I7): no control character or line separator in anything that becomes a header, no
header that Postbud or the structure of the message sets. Whether the account may send this is the gate's to say.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from postbud.httpd.forms import File, NewMessage, Person
from postbud.httpd.problem import Code, FieldError, problem
from postbud.mime import compose
from postbud.mime.folding import is_plain
from postbud.model.mailbox import Mailbox, MailboxError
from postbud.submission.context import LENGTHS, SubmissionContext, check_send_at

MAX_NAME = 200
MAX_SUBJECT = 998
MAX_HEADER_VALUE = 8000
MAX_HEADERS = 100
MAX_ATTACHMENTS = 100
MAX_FILENAME = 255

_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~\-]{1,76}")
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@\-]{1,200}")
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<mailbox>[^<>]*)>\s*")
_PATH = re.compile(r" - at `(?P<key>key in )?\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
RESERVED = frozenset({
    "from", "to", "cc", "bcc", "reply-to", "subject", "sender", "date", "return-path", "received", "mime-version",
    "dkim-signature", "domainkey-signature", "authentication-results", "received-spf", "x-dkim", "x-received", "delivered-to",
    "errors-to", "feedback-id",
})  # fmt: skip
RESERVED_PREFIXES = ("content-", "resent-", "arc-", "x-postbud-", "x-google-dkim-", "dkim-")
_STRUCTURED = frozenset({
    "message-id", "in-reply-to", "references", "auto-submitted", "precedence", "importance", "priority", "sensitivity",
    "list-unsubscribe", "list-unsubscribe-post", "list-id", "list-post", "list-help", "list-subscribe", "list-owner",
    "list-archive", "x-priority", "disposition-notification-to",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sent. `letter` in parts, or `raw` octets; `places` names the field that each recipient came from."""

    reverse_path: Mailbox
    recipients: tuple[Mailbox, ...]
    places: tuple[str, ...]
    letter: compose.Letter | None
    raw: bytes | None
    said: SubmissionContext
    smtputf8: bool


def read_order(tree: Any, now: datetime) -> Order:
    """Read what a JSON body asks for.

    Raises:
        Problem: UNKNOWN_FIELD or INVALID_FIELD, with every fault that was found.
    """
    try:
        form = msgspec.convert(tree, NewMessage)
    except msgspec.ValidationError as error:
        _refuse_shape(str(error))
    return _Reading(form, now).order()


def read_envelope(sender: str, recipients: Sequence[str], now: datetime) -> Order:
    """Read the envelope of a raw message whose content comes by itself.

    Raises:
        Problem: INVALID_FIELD.
    """
    form = NewMessage(sender=sender, to=list(recipients), raw=b"")
    return _Reading(form, now).order()


def refuse_fields(errors: Sequence[FieldError], code: Code = Code.INVALID_FIELD) -> NoReturn:
    """Say which fields are at fault.

    Raises:
        Problem: Always.
    """
    raise problem(code, f"{errors[0].field}: {errors[0].message}", errors)


def _refuse_shape(text: str) -> NoReturn:
    """Turn msgspec's words into a field and what is wrong with it."""
    found = _PATH.search(text)
    path = found["path"] if found else ""
    words = text[: found.start()] if found else text
    for pattern, code, message in (
        (_UNKNOWN, Code.UNKNOWN_FIELD, "is no field of this request"),
        (_MISSING, Code.INVALID_FIELD, "is missing"),
    ):
        if match := pattern.fullmatch(words):
            refuse_fields([FieldError(f"{path}.{match['name']}" if path else match["name"], message)], code)
    words = words.replace("`object`", "an object").replace("`", "")
    refuse_fields([FieldError(path or "body", words[:1].lower() + words[1:])])


class _Reading:
    """Reads one form; collects what is wrong."""

    def __init__(self, form: NewMessage, now: datetime) -> None:
        self._form = form
        self._now = now
        self._errors: list[FieldError] = []

    def order(self) -> Order:
        form = self._form
        senders = self._people("from", [form.sender])
        groups = {name: self._people(name, _listed(getattr(form, name))) for name in ("to", "cc", "bcc")}
        reply_to = self._people("reply_to", _listed(form.reply_to))
        reverse_path = self._mailbox("reverse_path", form.reverse_path) if form.reverse_path is not None else None
        recipients, places = self._recipients(groups)
        said = self._said()
        letter = None
        if form.raw is not None:
            self._refuse_parts()
        elif senders:
            letter = self._letter(senders[0], groups["to"], groups["cc"], reply_to)
        if self._errors:
            refuse_fields(self._errors)
        sender = senders[0].mailbox
        named = [sender, *recipients, *(one.mailbox for one in reply_to)]
        return Order(
            reverse_path=reverse_path or sender,
            recipients=recipients,
            places=places,
            letter=letter,
            raw=form.raw,
            said=said,
            smtputf8=any(mailbox.needs_smtputf8 for mailbox in named),
        )

    def _wrong(self, field: str, message: str) -> None:
        self._errors.append(FieldError(field, message))

    def _line(self, field: str, text: str, limit: int) -> str:
        """Check text that becomes part of a header."""
        if len(text) > limit:
            self._wrong(field, f"is longer than {limit} characters")
        found = _FORBIDDEN.search(text)
        if found is not None:
            self._wrong(field, f"holds the character U+{ord(found[0]):04X}, which no header can hold")
        return text

    def _body(self, field: str, text: str | None) -> str | None:
        if text is not None and "\0" in text:
            self._wrong(field, "holds the character U+0000, which no message can hold")
        return text

    def _mailbox(self, field: str, text: str) -> Mailbox | None:
        before = len(self._errors)
        self._line(field, text, 400)
        if len(self._errors) == before:
            try:
                return Mailbox.parse(text, smtputf8=True)
            except MailboxError as error:
                self._wrong(field, error.why)
        return None

    def _people(self, field: str, said: Sequence[str | Person]) -> list[compose.Person]:
        people = []
        for place, one in enumerate(said):
            name = field if field == "from" else f"{field}[{place}]"
            person = one if isinstance(one, Person) else _split(one)
            mailbox = self._mailbox(name if isinstance(one, str) else f"{name}.mailbox", person.mailbox)
            self._line(name if isinstance(one, str) else f"{name}.name", person.name, MAX_NAME)
            if mailbox is not None:
                people.append(compose.Person(mailbox, person.name))
        return people

    def _recipients(self, groups: dict[str, list[compose.Person]]) -> tuple[tuple[Mailbox, ...], tuple[str, ...]]:
        found: dict[Mailbox, str] = {}
        for name, people in groups.items():
            for place, person in enumerate(people):
                found.setdefault(person.mailbox, f"{name}[{place}]")
        if not found and not self._errors:
            self._wrong("to", "names no recipient, nor do cc and bcc")
        return tuple(found), tuple(found.values())

    def _said(self) -> SubmissionContext:
        form = self._form
        metadata = form.metadata
        if isinstance(metadata, dict):
            for key, value in metadata.items():
                self._line("metadata", key, LENGTHS["metadata"])
                self._line(f"metadata.{key[:40]}", value, LENGTHS["metadata"])
            metadata = msgspec.json.encode(metadata).decode()
            if len(metadata) > LENGTHS["metadata"]:
                self._wrong("metadata", f"is longer than {LENGTHS['metadata']} characters as JSON")
        elif metadata is not None:
            self._line("metadata", metadata, LENGTHS["metadata"])
        values: dict[str, str | None] = {"list": form.list, "campaign": form.campaign, "tag": form.tag}
        for name, text in values.items():
            if text is not None:
                self._line(name, text, LENGTHS[name])
        send_at = None
        if form.send_at is not None:
            try:
                send_at = check_send_at(form.send_at, self._now)
            except ValueError as error:
                self._wrong("send_at", str(error))
        known = {name: text or None for name, text in values.items()}
        return SubmissionContext(**known, metadata=metadata or None, send_at=send_at)

    def _refuse_parts(self) -> None:
        form = self._form
        for name in ("subject", "text", "html", "headers", "attachments", "reply_to"):
            if getattr(form, name):
                self._wrong(name, "cannot stand beside raw, which is the whole message")

    def _letter(
        self, sender: compose.Person, to: list[compose.Person], cc: list[compose.Person], reply_to: list[compose.Person]
    ) -> compose.Letter:
        form = self._form
        if form.text is None and form.html is None:
            self._wrong("text", "is missing, and so is html")
        return compose.Letter(
            sender=sender,
            to=to,
            cc=cc,
            reply_to=reply_to,
            subject=self._line("subject", form.subject or "", MAX_SUBJECT),
            text=self._body("text", form.text),
            html=self._body("html", form.html),
            headers=self._headers(form.headers),
            attachments=self._attachments(form.attachments),
        )

    def _headers(self, headers: dict[str, str]) -> list[tuple[str, str]]:
        if len(headers) > MAX_HEADERS:
            self._wrong("headers", f"has more than {MAX_HEADERS} fields")
        for name, value in headers.items():
            field = f"headers.{name[:76]}"
            lower = name.lower()
            if _HEADER_NAME.fullmatch(name) is None:
                self._wrong(field, "is no name of a header field")
            elif lower in RESERVED or lower.startswith(RESERVED_PREFIXES):
                self._wrong(field, "is set by Postbud or by another field of the request")
            self._line(field, value, MAX_HEADER_VALUE)
            if lower in _STRUCTURED and not is_plain(value):
                self._wrong(field, "is ASCII, in words of at most 700 characters with one space between them")
        return list(headers.items())

    def _attachments(self, files: list[File]) -> list[compose.Attachment]:
        if len(files) > MAX_ATTACHMENTS:
            self._wrong("attachments", f"are more than {MAX_ATTACHMENTS}")
        attachments = []
        for place, file in enumerate(files):
            field = f"attachments[{place}]"
            self._line(f"{field}.filename", file.filename, MAX_FILENAME)
            if file.content_id and _CONTENT_ID.fullmatch(file.content_id) is None:
                self._wrong(f"{field}.content_id", "is no content id, such as logo@acme.example, without angle brackets")
            try:
                compose.content_type_of(file.content_type)
            except ValueError as error:
                self._wrong(f"{field}.content_type", str(error))
            attachments.append(compose.Attachment(file.content, file.content_type, file.filename, file.content_id))
        return attachments


def compose_content(order: Order, new_token: Callable[[int], str]) -> tuple[bytes, bytes]:
    """Give the header section and body of a letter. `new_token` makes random text; it costs, and most letters need none.

    Raises:
        Problem: INVALID_FIELD, when a part cannot be said in a message.
    """
    letter = order.letter
    assert letter is not None
    several = letter.attachments or (letter.text is not None and letter.html is not None)
    try:
        return compose.compose(letter, new_token(12) if several else "")
    except compose.ComposeError as error:
        refuse_fields([FieldError(error.field, error.why)])


def _listed(said: list[str | Person] | str | Person) -> Sequence[str | Person]:
    return said if isinstance(said, list) else [said]


def _split(text: str) -> Person:
    """Take `Name <mailbox>` apart; the name may stand in quotes."""
    match = _NAMED.fullmatch(text)
    if match is None:
        return Person(text)
    name = match["name"].strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return Person(match["mailbox"], name)
