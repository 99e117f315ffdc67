"""The one exception for every no: why (for machines), public (for the peer), private (for our log).

Each face translates it once: `smtpd/replies.py` to an SMTP reply, `httpd` to an RFC 9457 problem. The codes of both live
in the table here, so that no face can forget one. Source of the codes: RFC 3463, RFC 5248 and the design's tables.
"""

from enum import Enum


class Why(Enum):
    """Reasons, each as (SMTP reply code, enhanced status code, HTTP status)."""

    # syntax and protocol
    SYNTAX = ("syntax", 501, "5.5.4", 422)
    MAILBOX_SYNTAX = ("mailbox_syntax", 501, "5.1.3", 422)
    SENDER_SYNTAX = ("sender_syntax", 501, "5.1.7", 422)
    DOMAIN_SYNTAX = ("domain_syntax", 501, "5.1.2", 422)
    ADDRESS_LITERAL = ("address_literal", 550, "5.1.2", 422)
    NEEDS_SMTPUTF8 = ("needs_smtputf8", 553, "5.6.7", 422)
    BAD_LINE_ENDS = ("bad_line_ends", 550, "5.5.2", 422)
    BAD_CONTENT = ("bad_content", 554, "5.6.0", 422)
    TOO_BIG = ("too_big", 552, "5.3.4", 413)
    TOO_MANY_RECIPIENTS = ("too_many_recipients", 452, "4.5.3", 422)
    LOOP = ("loop", 554, "5.4.6", 422)
    # authorization
    AUTH_REQUIRED = ("auth_required", 530, "5.7.0", 401)
    AUTH_FAILED = ("auth_failed", 535, "5.7.8", 401)
    AUTH_BUSY = ("auth_busy", 454, "4.7.0", 503)
    BLOCKED_AUTH = ("blocked_auth", 525, "5.7.13", 403)
    BLOCKED = ("blocked", 550, "5.7.1", 403)
    REVOKED = ("revoked", 550, "5.7.1", 401)
    PAUSED = ("paused", 450, "4.7.1", 503)
    NOT_ALLOWED = ("not_allowed", 550, "5.7.1", 403)
    NO_SUCH_MAILBOX = ("no_such_mailbox", 550, "5.1.1", 404)
    POLICY = ("policy", 550, "5.7.1", 422)
    ALIGNMENT = ("alignment", 550, "5.7.26", 422)
    SENDER_NULL_MX = ("sender_null_mx", 550, "5.7.27", 422)
    SUPPRESSED = ("suppressed", 550, "5.7.1", 422)
    RATE = ("rate", 450, "4.7.28", 429)
    REQUIRETLS = ("requiretls", 550, "5.7.30", 422)
    # our own trouble
    NO_SPACE = ("no_space", 452, "4.3.1", 507)
    TEMPORARY = ("temporary", 451, "4.3.0", 503)
    SHUTTING_DOWN = ("shutting_down", 421, "4.3.2", 503)

    @property
    def reply_code(self) -> int:
        """SMTP reply code, RFC 5321 s4.2."""
        return self.value[1]

    @property
    def enhanced(self) -> str:
        """Enhanced status code, RFC 3463."""
        return self.value[2]

    @property
    def http_status(self) -> int:
        """HTTP status of the same reason."""
        return self.value[3]


class Refusal(Exception):  # noqa: N818 (a refusal is an answer, not an error)
    """A no to a peer: `public` goes on the wire (one ASCII line, no mechanism, no other account), `private` to our log."""

    def __init__(self, why: Why, public: str, private: str = "", *, close: bool = False) -> None:
        super().__init__(f"{why.name}: {private or public}")
        self.why = why
        self.public = public
        self.private = private
        self.close = close
