"""Every no of the API as a problem (RFC 9457): type, title, status, detail, a code for programs, and the fields at fault.

Owns the codes that no `Refusal` has, and the one translation of a `Refusal`. Codes are listed in `docs/api.md`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from postbud.model.refusal import Refusal, Why

CONTENT_TYPE = "application/problem+json"
_RETRY_SECONDS = {Why.PAUSED: 60, Why.AUTH_BUSY: 60, Why.NO_SPACE: 60, Why.SHUTTING_DOWN: 1, Why.TEMPORARY: 5, Why.RATE: 60}
_WAIT = re.compile(r"try again in (\d+) seconds")
_TITLES = {
    Why.AUTH_REQUIRED: "An API key is needed",
    Why.AUTH_FAILED: "The API key is not valid",
    Why.REVOKED: "The API key was revoked",
    Why.BLOCKED: "Sending is blocked",
    Why.PAUSED: "Sending is paused",
    Why.NOT_ALLOWED: "Not allowed to send this",
    Why.TOO_BIG: "The message is too big",
    Why.TOO_MANY_RECIPIENTS: "Too many recipients",
    Why.SUPPRESSED: "A recipient is suppressed",
    Why.RATE: "Too many messages",
    Why.NO_SPACE: "No room on our disk",
    Why.TEMPORARY: "Trouble on our side",
    Why.SHUTTING_DOWN: "The relay is stopping",
    Why.BAD_LINE_ENDS: "Line ends are not CRLF",
    Why.BAD_CONTENT: "The message is malformed",
    Why.LOOP: "The message goes round",
}


class Code(Enum):
    """What is wrong with a request that never became a message: (code, status, title)."""

    BAD_REQUEST = ("bad_request", 400, "The request is malformed")
    KEY_IN_QUERY = ("key_in_query", 400, "An API key stands in the address")
    INVALID_JSON = ("invalid_json", 400, "The body is no acceptable JSON")
    NOT_FOUND = ("not_found", 404, "There is no such thing")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "The method is not allowed here")
    TIMEOUT = ("timeout", 408, "The request came too slowly")
    IDEMPOTENCY_CONFLICT = ("idempotency_conflict", 409, "The Idempotency-Key was used for another request")
    NOT_CANCELLABLE = ("not_cancellable", 409, "Nothing of the message can be cancelled")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, "The body's type is not supported")
    INVALID_FIELD = ("invalid_field", 422, "A field is not valid")
    UNKNOWN_FIELD = ("unknown_field", 422, "A field is unknown")
    TOO_MANY_FAILURES = ("too_many_failures", 429, "Too many wrong API keys")

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.value[1]


class FieldError(msgspec.Struct, frozen=True):
    """A field of the request, by its path such as `attachments[0].filename`, and what is wrong with it."""

    field: str
    message: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "type"}):
    """The body of an error, RFC 9457. `type` is a path of this API that explains the code."""

    kind: str
    title: str
    status: int
    detail: str
    code: str
    errors: Sequence[FieldError] = ()


@dataclass
class Problem(Exception):  # noqa: N818 (an answer, as `Refusal` is)
    """A no that is said over HTTP. `close` ends the connection: what follows on it cannot be trusted, or was not read."""

    status: int
    code: str
    title: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False

    @property
    def body(self) -> bytes:
        """The JSON."""
        return msgspec.json.encode(
            ProblemBody(f"/v1/problems/{self.code}", self.title, self.status, self.detail, self.code, self.errors)
        )


def problem(
    code: Code, detail: str, errors: Sequence[FieldError] = (), *, headers: dict[str, str] | None = None, close: bool = False
) -> Problem:
    """Make a problem of our own."""
    name, status, title = code.value
    return Problem(status, name, title, detail, errors, headers or {}, close)


def problem_of(refusal: Refusal, errors: Sequence[FieldError] = ()) -> Problem:
    """Translate a refusal."""
    why = refusal.why
    headers: dict[str, str] = {}
    if why.http_status == 401:
        headers["www-authenticate"] = 'Bearer realm="postbud"'
    if why in _RETRY_SECONDS:
        said = _WAIT.search(refusal.public)
        headers["retry-after"] = said[1] if said else str(_RETRY_SECONDS[why])
    return Problem(why.http_status, why.value[0], title_of(why), refusal.public, errors, headers)


def title_of(why: Why) -> str:
    """Give the title of a reason."""
    return _TITLES.get(why, "The message was refused")


def catalogue() -> dict[str, tuple[int, str]]:
    """Give every code with its status and title."""
    own = {code.value[0]: (code.value[1], code.value[2]) for code in Code}
    return own | {why.value[0]: (why.http_status, title_of(why)) for why in Why}
