"""Every no of the console's API as a problem (RFC 9457), with the codes and the shape that the sending API has."""

import msgspec
from django.http import HttpResponse


class ProblemBody(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """The body of an error. `type` is a path that names the code; `code` is for programs."""

    kind: str
    title: str
    status: int
    detail: str
    code: str


def problem(status: int, code: str, title: str, detail: str) -> HttpResponse:
    """Give an answer that says no."""
    body = ProblemBody(f"/problems/{code}", title, status, detail, code)
    response = HttpResponse(msgspec.json.encode(body), status=status, content_type="application/problem+json")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def no_key() -> HttpResponse:
    """Say that there is no key, or that it is not valid: which of both, nobody learns."""
    return problem(401, "auth_failed", "The API key is not valid", "send it as `Authorization: Bearer pbk_…`")


def nothing(what: str) -> HttpResponse:
    """Say that there is no such thing; another account's or server's is no such thing either (input I6)."""
    return problem(404, "not_found", "There is no such thing", f"there is no message {what}")
