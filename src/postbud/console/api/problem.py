"""Every no of the console's API as a problem (RFC 9457), with the codes and the shape that the sending API has."""

from collections.abc import Sequence

import msgspec
from django.http import HttpResponse


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    field: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "type"}):
    """The body of an error. `type` is a path that names the code; `code` is for programs."""

    kind: str
    title: str
    status: int
    detail: str
    code: str
    errors: Sequence[FieldError] = ()


class ApiProblem(Exception):  # noqa: N818 (RFC 9457's word)
    """A no, on its way to the answer."""

    def __init__(self, status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)


def problem(status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()) -> HttpResponse:
    """Give an answer that says no."""
    body = ProblemBody(f"/problems/{code}", title, status, detail, code, tuple(errors))
    response = HttpResponse(msgspec.json.encode(body), status=status, content_type="application/problem+json")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def nothing(what: str) -> ApiProblem:
    """Say that there is no such thing; another account's or server's is no such thing either (input I6)."""
    return ApiProblem(404, "not_found", "There is no such thing", what)


def invalid(field: str, detail: str) -> ApiProblem:
    """Say that a field's value cannot be."""
    return ApiProblem(422, "invalid", "The request is not valid", f"{field}: {detail}", [FieldError(field, detail)])
