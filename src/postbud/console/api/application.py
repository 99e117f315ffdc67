"""The management API as one django-ninja application: how a no looks, what its description says, and who may call what.

Owns the translation of every exception to a problem. Invariant: each operation declares its permission by `Key`, and each
address declares itself to the test that walks them all.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError

from postbud.console.accounts.permissions import Access, Scope
from postbud.console.api import account_routes, domain_routes, figure_routes, hook_routes, message_routes, server_routes
from postbud.console.api.problem import ApiProblem, FieldError, problem
from postbud.console.refused import Refused

_ABOUT = """Everything that the console's pages do, for programs. Keys are made under *API keys*; send one as
`Authorization: Bearer pbm_…`. Lists come in pages: hand `next_cursor` back as `cursor`. What is wrong is said as a problem
(RFC 9457) with a `code` for programs."""
_MOST_ERRORS = 20
_NO_METHOD = 405
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_FOR_ALL = frozenset({"openapi-json", "api-root"})
_STATUSES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_big", 415: "unsupported_media_type"}


class Api(NinjaAPI):
    """Answers its description with problems under their own media type."""

    def get_openapi_schema(self, *args: Any, **options: Any) -> Any:
        """Give the description; whatever is not a success is a problem."""
        schema = super().get_openapi_schema(*args, **options)
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, answer in operation.get("responses", {}).items():
                    if int(status) >= 400 and "application/json" in answer.get("content", {}):
                        answer["content"]["application/problem+json"] = answer["content"].pop("application/json")
        return schema


def make_api() -> Api:
    """Build the application."""
    api = Api(
        title="Postbud management API", version="1", description=_ABOUT, docs_url=None, openapi_url="/openapi.json",
        urls_namespace="api",
    )  # fmt: skip
    for module in (account_routes, server_routes, domain_routes, message_routes, figure_routes, hook_routes):
        api.add_router("", module.router)
    handlers: list[tuple[type[Exception], Any]] = [
        (ApiProblem, _problem), (Refused, _refused), (ValidationError, _invalid), (HttpError, _http), (Http404, _nothing),
    ]  # fmt: skip
    for error, handler in handlers:
        api.add_exception_handler(error, handler)
    return api


def declared(urls: list[URLPattern | URLResolver]) -> list[URLPattern | URLResolver]:
    """Declare the addresses: for programs with a key, the description for everybody; and say every no as a problem."""
    for pattern in urls:
        assert isinstance(pattern, URLPattern)
        scope: Scope = "public" if pattern.name in _FOR_ALL else "key"
        view: Any = _as_problems(pattern.callback)
        view.postbud_access = Access(scope, None, ("GET",))
        pattern.callback = view
    return urls


def _as_problems(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Answer HEAD like GET, and a method that is not there with a problem."""

    @csrf_exempt  # a session's cookie counts for nothing here
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "HEAD":
            request.method = "GET"
        response = view(request, *args, **kwargs)
        if response.status_code != _NO_METHOD:
            return response
        allowed = [method for method in _METHODS if method in response.headers.get("Allow", "").replace(" ", "").split(",")]
        allow = ", ".join(["GET", "HEAD", *allowed[1:]] if "GET" in allowed else allowed)
        told = problem(_NO_METHOD, "method_not_allowed", "The method is not allowed here", f"allowed: {allow}")
        told.headers["Allow"] = allow
        return told

    return answer


def _problem(_request: HttpRequest, error: ApiProblem) -> HttpResponse:
    return problem(error.status, error.code, error.title, error.detail, error.errors)


def _refused(_request: HttpRequest, error: Refused) -> HttpResponse:
    errors = [FieldError(error.field, error.text)] if error.field else []
    return problem(422, "refused", "It cannot be as asked", error.text, errors)


def _invalid(_request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [FieldError(_place(one["loc"]), str(one["msg"])[:300]) for one in error.errors[:_MOST_ERRORS]]
    return problem(
        422, "invalid", "The request is not valid", "; ".join(f"{one.field}: {one.detail}" for one in errors[:3]), errors
    )


def _http(_request: HttpRequest, error: HttpError) -> HttpResponse:
    code = _STATUSES.get(error.status_code, "bad_request")
    return problem(error.status_code, code, "The request is not valid", str(error)[:300])


def _nothing(_request: HttpRequest, _error: Http404) -> HttpResponse:
    return problem(404, "not_found", "There is no such thing", "the address names nothing")


def _place(location: tuple[object, ...]) -> str:
    """Give where it is, without what only this program calls it."""
    parts = [str(part) for part in location if part not in {"body", "query", "path", "payload", "asked"}]
    return ".".join(parts) or "body"


@cache
def api() -> Api:
    """Give the application: there is one in a process."""
    return make_api()
