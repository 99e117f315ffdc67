"""Our replies that no command's syntax decides: refusals as SMTP says them, and the last words of a session."""

from postbud.model.refusal import Refusal
from postbud.wire.events import reply_line

TOO_BUSY = b"421 4.3.2 Too many connections, try again later\r\n"
TOO_MANY_FROM_YOU = b"421 4.7.0 Too many connections from your address\r\n"
SHUTTING_DOWN = b"421 4.3.2 Shutting down, try again soon\r\n"
TOO_SLOW = b"421 4.4.2 Too slow, closing\r\n"
IDLE = b"421 4.4.2 Idle for too long, closing\r\n"
NOT_ALLOWED_NOW = b"421 4.7.0 Your access has changed, closing\r\n"
TOO_MANY_FAILURES = b"421 4.7.0 Too many failed sign-ins, try again later\r\n"
TRY_AGAIN = b"451 4.3.0 Trouble on our side, try again later\r\n"
EARLY_TALKER = b"554 5.5.0 Wait for the greeting\r\n"


def reply_of(refusal: Refusal) -> bytes:
    """Give the one reply line of a refusal; its private reason stays here."""
    return reply_line(refusal.why.reply_code, refusal.why.enhanced, refusal.public)


def closes(refusal: Refusal) -> bool:
    """Tell whether the session ends with it; 421 always ends one (RFC 5321 s3.8)."""
    return refusal.close or refusal.why.reply_code == 421
