"""The server side of SMTP without I/O: octets in, one event at a time out, the application answers, octets to send.

Owns the order of commands (the table `ALLOWED`), the extensions that are announced, and how much nonsense a peer may talk.
Knows no account, no policy and no socket. RFC 5321, 1870, 2034, 2920, 3207, 3461, 4954, 6152, 6531, 8689, 9422; no CHUNKING.

Use: `feed` octets; call `next_event` until it gives None; answer events that wait for it (all but `ContentChunk` and
`SecretExposed`) by `accept` or `refuse` before asking for the next; send what `take` gives; when `closed`, send and hang up.
Invariants: replies come in the order of commands; a line with a bare LF or a control is never run, nor what stands behind it
in the same line; nothing from before STARTTLS is known after it.
"""

from collections.abc import Callable
from enum import Enum

from postbud.model.refusal import Why
from postbud.wire import command as syntax
from postbud.wire.command import CommandError
from postbud.wire.data import DataReader
from postbud.wire.events import (
    Authenticate,
    ContentChunk,
    Data,
    EndOfData,
    Event,
    Mail,
    Rcpt,
    SecretExposed,
    ServerSettings,
    StartTls,
    reply_line,
)
from postbud.wire.lines import LineReader, Trouble
from postbud.wire.sasl import MAX_LINE_OCTETS, MECHANISMS, Credentials, Exchange, SaslError, Step

MAX_UNKNOWN = 20  # unknown commands in one session; Postfix's smtpd_hard_error_limit
MAX_MALFORMED = 3  # lines with bare LF or controls: nobody honest sends a second one
MAX_IDLE = 100  # NOOP, RSET, VRFY, HELP, EHLO since the last message; Postfix's smtpd_junk_command_limit
MAX_REFUSED = 100  # permanent refusals since the last message: somebody is probing (row H8)


class State(Enum):
    """Where a session stands."""

    GREETING = "greeting"  # no EHLO yet
    READY = "ready"
    MAIL = "mail"  # a reverse-path, no recipient yet
    RCPT = "rcpt"  # at least one recipient
    SASL = "sasl"  # inside an AUTH exchange
    CONTENT = "content"
    TLS = "tls"  # the peer was told to begin its handshake
    CLOSED = "closed"


_ANYWHERE = frozenset({b"EHLO", b"HELO", b"RSET", b"NOOP", b"QUIT", b"VRFY", b"HELP"})
ALLOWED: dict[State, frozenset[bytes]] = {
    State.GREETING: _ANYWHERE,
    State.READY: _ANYWHERE | {b"MAIL", b"AUTH", b"STARTTLS"},
    State.MAIL: _ANYWHERE | {b"RCPT"},
    State.RCPT: _ANYWHERE | {b"RCPT", b"DATA"},
}
COMMANDS = frozenset[bytes]().union(*ALLOWED.values())
_CLIENT_HELLO = b"\x16\x03"  # a TLS handshake record
_NAME_TOO_LONG = b"501 5.5.4 Name is too long\r\n"
_END = b"."  # what waits for an answer behind the content
ACCEPTED: dict[bytes, tuple[State, bytes]] = {  # an event that is accepted: state after it, reply
    b"MAIL": (State.MAIL, b"250 2.1.0 Ok\r\n"),
    b"RCPT": (State.RCPT, b"250 2.1.5 Ok\r\n"),
    b"DATA": (State.CONTENT, b"354 End data with <CR><LF>.<CR><LF>\r\n"),
    _END: (State.READY, b"250 2.0.0 Ok\r\n"),
    b"STARTTLS": (State.TLS, b"220 2.0.0 Ready to start TLS\r\n"),
    b"AUTH": (State.READY, b"235 2.7.0 Authentication successful\r\n"),
}


class ServerConnection:
    """One session."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.helo = ""
        self.tls = settings.tls
        self.authenticated = False
        self._state = State.GREETING
        self._allowed = ALLOWED[State.GREETING]
        self._extended = False
        self._smtputf8 = False
        self._lines = LineReader()
        self._begun = False  # the first line came
        self._out: list[bytes] = []
        self._waiting = b""  # whose answer is due
        self._reader: DataReader | None = None
        self._end: EndOfData | None = None
        self._exchange: Exchange | None = None
        self._unknown = self._malformed = self._idle = self._refused = 0

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def closed(self) -> bool:
        """Whether nothing more will be read: send what `take` gives and hang up."""
        return self._state is State.CLOSED

    @property
    def in_transaction(self) -> bool:
        """Whether MAIL was accepted and its message is neither accepted nor refused yet."""
        return self._state in {State.MAIL, State.RCPT, State.CONTENT} or self._waiting == _END

    @property
    def awaits_answer(self) -> bool:
        """Whether an event waits for `accept` or `refuse`."""
        return bool(self._waiting)

    @property
    def unread(self) -> int:
        """How many octets wait to be read."""
        return len(self._lines)

    @property
    def content_flaw(self) -> Why | None:
        """What spoils the content that is being read: its octets so far may be thrown away."""
        return self._reader.flaw if self._reader else None

    def greet(self) -> None:
        """Say the banner."""
        self._out.append(f"220 {self.settings.hostname} ESMTP Postbud\r\n".encode("ascii"))

    def feed(self, octets: bytes) -> None:
        """Take octets of the peer."""
        self._lines.feed(octets)

    def take(self) -> bytes:
        """Give the octets to send, once."""
        if not self._out:
            return b""
        octets, self._out = b"".join(self._out), []
        return octets

    def next_event(self) -> Event | None:
        """Give the next event; None when more octets or an answer are needed, or the session is closed."""
        while not self._waiting and self._state is not State.CLOSED:
            if self._state is State.CONTENT:
                return self._next_content()
            line = self._next_line()
            if line is None:
                return None
            event = self._run(line)
            if event is not None:
                return event
        return None

    def accept(self, text: str = "", *, normalise: bool = False) -> None:
        """Answer the waiting event with yes. `text` follows the end of data's Ok; `normalise` is for DATA's content."""
        verb, self._waiting = self._waiting, b""
        state, reply = ACCEPTED[verb]
        if verb == _END:
            self._idle = self._refused = 0
            reply = reply_line(250, "2.0.0", f"Ok: queued as {text}")
        elif verb == b"DATA":
            self._reader = DataReader(self.settings.size_limit_octets, normalise=normalise)
        elif verb == b"AUTH":
            self.authenticated = True
        self._out.append(reply)
        self._enter(state)

    def refuse(self, reply: bytes, *, close: bool = False) -> None:
        """Answer the waiting event with no: one whole reply line."""
        verb, self._waiting = self._waiting, b""
        if verb == _END:
            self._enter(State.READY)
        self._say_no(reply)
        if close:
            self._enter(State.CLOSED)

    def terminate(self, reply: bytes) -> None:
        """Say a last reply (421) and close, whatever state it is."""
        self._waiting = b""
        self._close(reply)

    def tls_started(self) -> None:
        """Begin anew inside TLS: everything said before is forgotten (RFC 3207 s4.2)."""
        self.tls = True
        self.helo = ""
        self.authenticated = False
        self._extended = self._smtputf8 = False
        self._lines.take()
        self._enter(State.GREETING)

    def protocol(self, *, smtputf8: bool) -> str:
        """Give the `with` word of a Received field (RFC 3848, 6531)."""
        if not self._extended:
            return "SMTP"
        word = "UTF8SMTP" if smtputf8 else "ESMTP"
        return f"{word}{'S' if self.tls else ''}{'A' if self.authenticated else ''}"

    # reading

    def _next_line(self) -> bytes | None:
        """Give the next good line without CRLF. Everything else is answered here."""
        lines = self._lines
        while self._state is not State.CLOSED:
            if self._state is State.TLS:
                if lines:  # came in clear, behind STARTTLS (row C1): say nothing that could be read inside TLS
                    self._enter(State.CLOSED)
                return None
            if not self._begun and lines.starts_with(_CLIENT_HELLO):
                self._close(b"500 5.5.2 This is not TLS yet\r\n")
                return None
            line = lines.next()
            if line is None:
                return None
            self._begun = True
            if line is Trouble.BARE_LF:
                self._stumble(b"500 5.5.2 Lines end in CRLF\r\n")
            elif isinstance(line, Trouble):
                hello = lines.starts_with(b"EHLO ") or lines.starts_with(b"HELO ")
                self._close(_NAME_TOO_LONG if hello else b"421 4.7.0 Line is too long\r\n")
            elif self._fits(line):
                return line
        return None

    def _fits(self, line: bytes) -> bool:
        octets = len(line) + 2
        if octets <= syntax.MAX_LINE_OCTETS:
            return True
        verb = line[:5].upper()
        if self._state is State.SASL or verb == b"AUTH ":
            if octets <= MAX_LINE_OCTETS:
                return True
            if self._state is State.SASL:
                self._enter(State.READY)
            self._say_no(b"500 5.5.6 Authentication exchange line is too long\r\n")
        elif verb in {b"EHLO ", b"HELO "}:
            self._say_no(_NAME_TOO_LONG)
        else:
            self._say_no(b"500 5.5.2 Line is too long\r\n")
        return False

    def _next_content(self) -> Event | None:
        if self._end is not None:
            return self._finish_content(self._end)
        octets, reader = self._lines.take(), self._reader
        if not octets or reader is None:
            return None
        content = reader.feed(octets)
        if reader.ended:
            self._lines.feed(reader.rest)
            self._end = EndOfData(reader.flaw)
            if not content:
                return self._finish_content(self._end)
        return ContentChunk(content) if content else None

    def _finish_content(self, end: EndOfData) -> EndOfData:
        self._end = self._reader = None
        self._waiting = _END
        return end

    # running

    def _run(self, line: bytes) -> Event | None:
        if self._state is State.SASL:
            return self._respond(line)
        verb, argument = syntax.split(line)
        if syntax.CONTROL.search(line):
            if verb in {b"MAIL", b"RCPT"} and b'<"' in argument:
                status = b"5.1.7" if verb == b"MAIL" else b"5.1.3"
                self._say_no(b"501 " + status + b" Quoted local part is malformed\r\n")
            else:
                self._stumble(
                    b"501 5.5.4 Name yourself by a host name or address literal\r\n"
                    if verb in {b"EHLO", b"HELO"}
                    else b"500 5.5.2 Controls are not taken in commands\r\n"
                )
            return None
        if verb not in self._allowed:
            self._misplaced(verb)
            return None
        try:
            return _HANDLERS[verb](self, argument)
        except CommandError as error:
            self._say_no(reply_line(error.code, error.enhanced, error.text))
            return None

    def _misplaced(self, verb: bytes) -> None:
        if verb in COMMANDS:
            self._say_no(b"503 5.5.1 Bad sequence of commands\r\n")
        elif verb == b"BDAT":  # its octets would be run as commands (row B1)
            self._close(b"503 5.5.1 CHUNKING is not offered\r\n")
        elif verb in syntax.NEVER_VERBS:
            self._say_no(b"502 5.5.1 Command is not implemented\r\n")
        elif verb in syntax.HTTP_VERBS:
            self._close(b"421 5.7.0 This is SMTP, not HTTP\r\n")
        elif verb in syntax.PROXY_VERBS:
            self._close(b"550 5.7.1 Not from you\r\n")
        else:
            self._unknown += 1
            if self._unknown >= MAX_UNKNOWN:
                self._close(b"421 4.7.0 Too many unknown commands\r\n")
            else:
                self._say_no(b"500 5.5.2 Unknown command\r\n")

    def _ehlo(self, argument: bytes) -> None:
        self._hello(argument, extended=True)

    def _helo(self, argument: bytes) -> None:
        self._hello(argument, extended=False)

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        name = syntax.parse_hello(argument)
        if self.unread and not self.helo and self.settings.strict_greeting:
            self._close(b"554 5.5.0 Wait for the answer\r\n")
            return
        if not self._idles():
            return
        self.helo, self._extended = name, extended
        self._enter(State.READY)
        self._out.append(self._extensions() if extended else f"250 {self.settings.hostname}\r\n".encode("ascii"))

    def _extensions(self) -> bytes:
        settings = self.settings
        words = [settings.hostname, "PIPELINING", f"SIZE {settings.size_limit_octets}", "8BITMIME", "SMTPUTF8"]
        words += ["ENHANCEDSTATUSCODES", "DSN", f"LIMITS RCPTMAX={settings.recipients_limit}"]
        if self.tls:
            words.append("REQUIRETLS")
        elif settings.starttls:
            words.append("STARTTLS")
        if settings.auth and (self.tls or settings.auth_without_tls):
            words.append("AUTH PLAIN LOGIN")
        lines = [f"250-{word}\r\n" for word in words]
        return "".join([*lines, "250 HELP\r\n"]).encode("ascii")

    def _starttls(self, argument: bytes) -> Event | None:
        if argument:
            raise CommandError(501, "5.5.4", "STARTTLS takes no argument")
        if self.tls:
            raise CommandError(503, "5.5.1", "TLS is on already")
        if not self.settings.starttls:
            raise CommandError(502, "5.5.1", "STARTTLS is not offered")
        if self.unread:  # row C1: withhold the 220, so that nothing crosses into TLS
            self._close(b"554 5.5.0 Wait for the answer to STARTTLS\r\n")
            return None
        self._waiting = b"STARTTLS"
        return StartTls()

    def _auth(self, argument: bytes) -> Event | None:
        mechanism, space, initial = argument.partition(b" ")
        mechanism = mechanism.upper()
        if not self.settings.auth:
            raise CommandError(502, "5.5.1", "AUTH is not offered")
        if self.authenticated:
            raise CommandError(503, "5.5.1", "You are signed in already")
        if not mechanism:
            raise CommandError(501, "5.5.4", "Name a mechanism")
        if mechanism not in MECHANISMS:
            raise CommandError(504, "5.5.4", "Mechanism is not offered")
        exchange = Exchange(mechanism)
        if not self.tls and not self.settings.auth_without_tls:
            self._say_no(b"538 5.7.11 Encryption is needed: use STARTTLS first\r\n")
            return _exposed(exchange, initial)
        self._exchange = exchange
        self._enter(State.SASL)
        return self._step(lambda: exchange.start(initial.strip(b" ") if space else None))

    def _respond(self, line: bytes) -> Event | None:
        exchange = self._exchange or Exchange(b"PLAIN")
        return self._step(lambda: exchange.step(line))

    def _step(self, step: Callable[[], Step]) -> Event | None:
        try:
            result = step()
        except SaslError as error:
            self._enter(State.READY)
            cancelled = b"501 5.7.0 Authentication cancelled\r\n"
            self._say_no(cancelled if error.cancelled else b"501 5.5.2 Cannot decode that\r\n")
            return None
        if isinstance(result, Credentials):
            self._enter(State.READY)
            self._waiting = b"AUTH"
            return Authenticate(result)
        self._out.append(b"334 " + result + b"\r\n")
        return None

    def _mail(self, argument: bytes) -> Event:
        reverse_path, parameters = syntax.parse_mail(
            argument, extended=self._extended, tls=self.tls, size_limit_octets=self.settings.size_limit_octets
        )
        self._smtputf8 = parameters.smtputf8
        self._waiting = b"MAIL"
        return Mail(reverse_path, parameters)

    def _rcpt(self, argument: bytes) -> Event:
        recipient = syntax.parse_rcpt(
            argument, extended=self._extended, smtputf8=self._smtputf8, hostname=self.settings.hostname
        )
        self._waiting = b"RCPT"
        return Rcpt(recipient)

    def _data(self, argument: bytes) -> Event:
        _no_argument(argument)
        self._waiting = b"DATA"
        return Data()

    def _rset(self, argument: bytes) -> None:
        _no_argument(argument)
        if self._idles():
            if self._state is not State.GREETING:
                self._enter(State.READY)
            self._out.append(b"250 2.0.0 Ok\r\n")

    def _noop(self, _argument: bytes) -> None:
        if self._idles():
            self._out.append(b"250 2.0.0 Ok\r\n")

    def _help(self, _argument: bytes) -> None:
        if self._idles():
            self._out.append(b"214 2.0.0 This is Postbud; it speaks RFC 5321 and takes mail to be sent\r\n")

    def _vrfy(self, argument: bytes) -> None:
        if not argument:
            raise CommandError(501, "5.5.4", "VRFY takes a name")
        if self._idles():
            self._out.append(b"252 2.1.5 Send some mail, I will try\r\n")

    def _quit(self, argument: bytes) -> None:
        _no_argument(argument)
        self._close(b"221 2.0.0 Bye\r\n")

    # saying

    def _enter(self, state: State) -> None:
        self._state = state
        self._allowed = ALLOWED.get(state, frozenset())

    def _close(self, reply: bytes) -> None:
        self._out.append(reply)
        self._enter(State.CLOSED)

    def _say_no(self, reply: bytes) -> None:
        if reply.startswith(b"5"):
            self._refused += 1
            if self._refused > MAX_REFUSED:
                self._close(b"421 4.7.0 Too many errors\r\n")
                return
        self._out.append(reply)

    def _stumble(self, reply: bytes) -> None:
        self._malformed += 1
        self._out.append(reply)
        if self._malformed >= MAX_MALFORMED:
            self._enter(State.CLOSED)
        elif self._state is State.SASL:
            self._enter(State.READY)

    def _idles(self) -> bool:
        self._idle += 1
        if self._idle > MAX_IDLE:
            self._close(b"421 4.7.0 Too many commands without a message\r\n")
            return False
        return True


def _no_argument(argument: bytes) -> None:
    if argument:
        raise CommandError(501, "5.5.4", "Command takes no argument")


def _exposed(exchange: Exchange, initial: bytes) -> SecretExposed | None:
    """Tell whose secret was in an initial response that came in clear; the secret itself goes no further."""
    try:
        result = exchange.start(initial) if initial else b""
    except SaslError:
        return None
    return SecretExposed(result.username) if isinstance(result, Credentials) else None


_HANDLERS: dict[bytes, Callable[[ServerConnection, bytes], Event | None]] = {
    b"EHLO": ServerConnection._ehlo,  # noqa: SLF001 (the table of this class)
    b"HELO": ServerConnection._helo,  # noqa: SLF001
    b"STARTTLS": ServerConnection._starttls,  # noqa: SLF001
    b"AUTH": ServerConnection._auth,  # noqa: SLF001
    b"MAIL": ServerConnection._mail,  # noqa: SLF001
    b"RCPT": ServerConnection._rcpt,  # noqa: SLF001
    b"DATA": ServerConnection._data,  # noqa: SLF001
    b"RSET": ServerConnection._rset,  # noqa: SLF001
    b"NOOP": ServerConnection._noop,  # noqa: SLF001
    b"HELP": ServerConnection._help,  # noqa: SLF001
    b"VRFY": ServerConnection._vrfy,  # noqa: SLF001
    b"QUIT": ServerConnection._quit,  # noqa: SLF001
}
