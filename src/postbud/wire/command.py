"""Reading one command line: verb and argument, EHLO names, paths, and the parameters of MAIL and RCPT.

Pure syntax (RFC 5321 s4.1, 1870, 3461, 4954, 6152, 6531, 8689). Mailboxes go through the one parser in `model`; its flaws are
turned into reply codes here. Two tolerances, for devices of which thousands are in use: a space behind `FROM:` and `TO:`, and
spaces at the end of a line. Nothing else is guessed.
"""

import re

from postbud.model.envelope import DEFAULT_NOTIFY, NO_PARAMETERS, Body, MailParameters, Notify, Recipient
from postbud.model.mailbox import MAX_DOMAIN_OCTETS, Flaw, Mailbox, MailboxError
from postbud.model.refusal import Why

MAX_LINE_OCTETS = 2_048  # with CRLF; RFC 5321 asks for 512, extensions add up to about 1,500

CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
HTTP_VERBS = frozenset({b"GET", b"POST", b"CONNECT", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE"})
NEVER_VERBS = frozenset({b"EXPN", b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"})
PROXY_VERBS = frozenset({b"XCLIENT", b"XFORWARD", b"PROXY"})

_HELLO = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,254})|\[[A-Za-z0-9.:\-]{1,253}\]")
_PATH = re.compile(r'<((?:[^<>"\\\s]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?')
_XTEXT = re.compile(r"(?:[!-*,\-.-<>-~\u0080-\U0010ffff]|\+[0-7][0-9A-Fa-f])*")
_XTEXT_ESCAPE = re.compile(r"\+([0-9A-Fa-f]{2})")
_PRINTABLE = re.compile(r"[ -~\u00a0-\U0010ffff]*")
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 s6
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]*")
_MAX_ENVID = 100  # RFC 3461 s4.4
_MAX_ORCPT = 500  # RFC 3461 s4.2

_SENDER_FLAWS = {
    Flaw.SYNTAX: Why.SENDER_SYNTAX,
    Flaw.LOCAL_PART: Why.SENDER_SYNTAX,
    Flaw.TOO_LONG: Why.SENDER_SYNTAX,
    Flaw.DOMAIN: Why.DOMAIN_SYNTAX,
    Flaw.LITERAL: Why.ADDRESS_LITERAL,
    Flaw.NEEDS_SMTPUTF8: Why.NEEDS_SMTPUTF8,
}
_RECIPIENT_FLAWS = _SENDER_FLAWS | dict.fromkeys((Flaw.SYNTAX, Flaw.LOCAL_PART, Flaw.TOO_LONG), Why.MAILBOX_SYNTAX)


class CommandError(Exception):
    """The command cannot be; the reply says why."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.text = text

    @classmethod
    def of(cls, why: Why, text: str) -> "CommandError":
        """Make one with the codes of a reason."""
        return cls(why.reply_code, why.enhanced, text)


def split(line: bytes) -> tuple[bytes, bytes]:
    """Give verb (upper case) and argument (without spaces around it)."""
    verb, _, argument = line.partition(b" ")
    return verb.upper(), argument.strip(b" ")


def parse_hello(argument: bytes) -> str:
    """Give the name of EHLO or HELO: anything that looks like a host name, also one with underscores, or a literal."""
    if not _HELLO.fullmatch(argument):
        raise CommandError.of(Why.SYNTAX, "Name yourself by a host name or address literal")
    return argument.decode("ascii")


def parse_mail(argument: bytes, *, extended: bool, tls: bool, size_limit_octets: int) -> tuple[Mailbox | None, MailParameters]:
    """Parse what follows `MAIL `; a reverse-path of None is the null one."""
    path, rest = _split_path(argument, b"FROM:", Why.SENDER_SYNTAX)
    parameters = NO_PARAMETERS
    if rest:
        given = _split_parameters(rest, extended=extended)
        parameters = _mail_parameters(given, tls=tls, size_limit_octets=size_limit_octets)
    if not path:
        return None, parameters
    return _mailbox(path, _SENDER_FLAWS, smtputf8=parameters.smtputf8), parameters


def parse_rcpt(argument: bytes, *, extended: bool, smtputf8: bool, hostname: str) -> Recipient:
    """Parse what follows `RCPT `. `<postmaster>` alone is the one of this host (RFC 5321 s4.5.1)."""
    path, rest = _split_path(argument, b"TO:", Why.MAILBOX_SYNTAX)
    notify, orcpt = DEFAULT_NOTIFY, None
    if rest:
        given = _split_parameters(rest, extended=extended)
        notify, orcpt = _rcpt_parameters(given, smtputf8=smtputf8)
    if not path:
        raise CommandError.of(Why.MAILBOX_SYNTAX, "A forward-path is not empty")
    if path.lower() == "postmaster":
        return Recipient(Mailbox(path, hostname), notify, orcpt)
    return Recipient(_mailbox(path, _RECIPIENT_FLAWS, smtputf8=smtputf8), notify, orcpt)


def _split_path(argument: bytes, word: bytes, why: Why) -> tuple[str, str]:
    if argument[: len(word)].upper() != word:
        raise CommandError.of(Why.SYNTAX, f"Say {word.decode('ascii')}<mailbox>")
    try:
        text = argument[len(word) :].decode("utf-8").lstrip(" ")
    except UnicodeDecodeError as error:
        raise CommandError.of(why, "Not UTF-8") from error
    found = _PATH.fullmatch(text)
    if found is None:
        if text.startswith('<"'):
            raise CommandError.of(why, "Quoted local part is malformed")
        raise CommandError.of(Why.SYNTAX, f"Say {word.decode('ascii')}<mailbox>")
    return found[1], found[2] or ""


def _mailbox(path: str, flaws: dict[Flaw, Why], *, smtputf8: bool) -> Mailbox:
    try:
        mailbox = Mailbox.parse(path, smtputf8=smtputf8)
    except MailboxError as error:
        flaw = error.flaw
        if flaw is Flaw.DOMAIN and _is_long(path):
            flaw = Flaw.TOO_LONG
        raise CommandError.of(flaws[flaw], error.why[:1].upper() + error.why[1:]) from error
    if ">" in path or "<" in path:  # legal when quoted, but simpler parsers further on would cut the path there
        raise CommandError.of(flaws[Flaw.LOCAL_PART], "Angle brackets are not taken in a local part")
    return mailbox


def _is_long(path: str) -> bool:
    domain = path.rpartition("@")[2]
    return len(domain) > MAX_DOMAIN_OCTETS or any(len(label) > 63 for label in domain.split("."))


def _split_parameters(rest: str, *, extended: bool) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for word in rest.split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if not _KEYWORD.fullmatch(keyword) or (equals and not value):
            raise CommandError.of(Why.SYNTAX, "Malformed parameter")
        if not extended:
            raise CommandError(555, "5.5.4", "Parameters need EHLO")
        if keyword in given:
            raise CommandError.of(Why.SYNTAX, f"Parameter {keyword[:20]} given twice")
        given[keyword] = value if equals else None
    return given


def _mail_parameters(given: dict[str, str | None], *, tls: bool, size_limit_octets: int) -> MailParameters:
    size = _size(given, size_limit_octets)
    body = _body(given)
    smtputf8 = _flag(given, "SMTPUTF8")
    require_tls = _flag(given, "REQUIRETLS") if tls else False
    ret = _choice(given, "RET", ("FULL", "HDRS"))
    ret_full = None if ret is None else ret == "FULL"
    envid = _xtext(given, "ENVID", _MAX_ENVID)
    auth = _xtext(given, "AUTH", _MAX_ORCPT)
    _nothing_left(given)
    if auth not in {None, "<>"}:
        try:
            Mailbox.parse(str(auth), smtputf8=smtputf8)
        except MailboxError as error:
            raise CommandError.of(Why.SYNTAX, "AUTH= is not a mailbox") from error
    if not smtputf8 and not f"{envid}{auth}".isascii():
        raise CommandError.of(Why.SYNTAX, "Parameters are ASCII")
    return MailParameters(size, body, smtputf8, require_tls, ret_full, envid, auth)


def _rcpt_parameters(given: dict[str, str | None], *, smtputf8: bool) -> tuple[Notify, str | None]:
    notify = _notify(given.pop("NOTIFY")) if "NOTIFY" in given else DEFAULT_NOTIFY
    orcpt = None
    if "ORCPT" in given:
        kind, semicolon, _ = (given["ORCPT"] or "").partition(";")
        if not semicolon or not _KEYWORD.fullmatch(kind):
            raise CommandError.of(Why.SYNTAX, "ORCPT is addr-type;xtext")
        orcpt = _xtext(given, "ORCPT", _MAX_ORCPT)
        if not smtputf8 and not str(orcpt).isascii():
            raise CommandError.of(Why.SYNTAX, "Parameters are ASCII")
    _nothing_left(given)
    return notify, orcpt


def _nothing_left(given: dict[str, str | None]) -> None:
    for keyword in given:
        raise CommandError(555, "5.5.4", f"Parameter {keyword[:20]} is not known here")


def _size(given: dict[str, str | None], limit: int) -> int | None:
    if "SIZE" not in given:
        return None
    value = given.pop("SIZE") or ""
    if not _SIZE.fullmatch(value):
        raise CommandError.of(Why.SYNTAX, "SIZE is a number")
    if int(value) > limit:
        raise CommandError.of(Why.TOO_BIG, f"Largest message is {limit} octets")
    return int(value)


def _body(given: dict[str, str | None]) -> Body:
    return Body(_choice(given, "BODY", ("7BIT", "8BITMIME")) or "7BIT")


def _choice(given: dict[str, str | None], keyword: str, choices: tuple[str, ...]) -> str | None:
    if keyword not in given:
        return None
    value = (given.pop(keyword) or "").upper()
    if value not in choices:
        raise CommandError.of(Why.SYNTAX, f"{keyword} is one of {', '.join(choices)}")
    return value


def _flag(given: dict[str, str | None], keyword: str) -> bool:
    if keyword not in given:
        return False
    if given.pop(keyword) is not None:
        raise CommandError.of(Why.SYNTAX, f"{keyword} takes no value")
    return True


def _xtext(given: dict[str, str | None], keyword: str, limit: int) -> str | None:
    """Decode xtext (RFC 3461 s4); what it hides must be printable, so that no CR, LF or NUL gets into a report."""
    if keyword not in given:
        return None
    value = given.pop(keyword) or ""
    if not value or len(value) > limit or not _XTEXT.fullmatch(value):
        raise CommandError.of(Why.SYNTAX, f"{keyword} is malformed or too long")
    decoded = _XTEXT_ESCAPE.sub(lambda found: chr(int(found[1], 16)), value)
    if not _PRINTABLE.fullmatch(decoded):
        raise CommandError.of(Why.SYNTAX, f"{keyword} hides controls")
    return decoded


def _notify(value: str | None) -> Notify:
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return Notify(never=True, success=False, failure=False, delay=False, said=True)
    if len(set(words)) != len(words) or not set(words) <= {"SUCCESS", "FAILURE", "DELAY"}:
        raise CommandError.of(Why.SYNTAX, "NOTIFY is NEVER or some of SUCCESS, FAILURE, DELAY")
    return Notify(success="SUCCESS" in words, failure="FAILURE" in words, delay="DELAY" in words, said=True)
