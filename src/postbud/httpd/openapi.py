"""The API's description for programs (OpenAPI 3.1), made from the very shapes that read the requests."""

from typing import Any

import msgspec

from postbud.httpd.forms import Cancelled, MessageState, NewMessage, Taken
from postbud.httpd.problem import CONTENT_TYPE, Code, ProblemBody
from postbud.httpd.settings import ApiSettings
from postbud.model.refusal import Why

_PLACE = "#/components/schemas/{name}"
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes a retry safe: the same key with the same body is one message, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_MESSAGE = {"name": "message", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^msg_[0-9a-v]{26}$"}}
_CREATE_STATUSES = (400, 401, 403, 408, 409, 413, 415, 422, 429, 503, 507)


def describe(settings: ApiSettings) -> dict[str, Any]:
    """Give the document."""
    _, schemas = msgspec.json.schema_components([NewMessage, Taken, MessageState, Cancelled, ProblemBody], ref_template=_PLACE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Postbud sending API",
            "version": "1",
            "description": f"Messages of up to {settings.size_limit_octets} octets. A 202 means that the message is on disk.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": {
            "/v1": {"get": {"summary": "What there is", "security": [], "responses": {"200": _answer(None, "Links")}}},
            "/v1/openapi.json": {
                "get": {"summary": "This document", "security": [], "responses": {"200": _answer(None, "OpenAPI 3.1")}}
            },
            "/v1/problems/{code}": {
                "get": {
                    "summary": "What an error code means",
                    "security": [],
                    "parameters": [{"name": "code", "in": "path", "required": True, "schema": {"type": "string"}}],
                    "responses": {"200": _answer(None, "The code"), **_problems(404)},
                }
            },
            "/v1/messages": {"post": _create()},
            "/v1/messages/{message}": {
                "parameters": [_MESSAGE],
                "get": {
                    "summary": "A message with its deliveries and events",
                    "responses": {"200": _answer(MessageState, "The message"), **_problems(401, 403, 404, 429, 503)},
                },
                "delete": {
                    "summary": "Cancel what of a message is still queued",
                    "responses": {"200": _answer(Cancelled, "What was cancelled"), **_problems(401, 403, 404, 409, 429, 503)},
                },
            },
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "pbk_…"}},
            "schemas": schemas,
        },
    }


def _create() -> dict[str, Any]:
    envelope = [
        {"name": "from", "in": "query", "schema": {"type": "string"}, "description": "Reverse-path; message/rfc822 only."},
        {
            "name": "to",
            "in": "query",
            "schema": {"type": "array", "items": {"type": "string"}},
            "description": "Recipients, one parameter each; message/rfc822 only.",
        },
    ]
    return {
        "summary": "Send a message",
        "parameters": [_KEY, *envelope],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _PLACE.format(name="NewMessage")}},
                "message/rfc822": {"schema": {"type": "string", "contentMediaType": "message/rfc822"}},
            },
        },
        "responses": {"202": _answer(Taken, "Accepted, and on disk"), **_problems(*_CREATE_STATUSES)},
    }


def _answer(kind: type[msgspec.Struct] | None, text: str) -> dict[str, Any]:
    schema = {"type": "object"} if kind is None else {"$ref": _PLACE.format(name=kind.__name__)}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: int) -> dict[str, Any]:
    content = {CONTENT_TYPE: {"schema": {"$ref": _PLACE.format(name="ProblemBody")}}}
    return {str(status): {"description": ", ".join(_codes(status)), "content": content} for status in statuses}


def _codes(status: int) -> list[str]:
    own = [code.value[0] for code in Code if code.status == status]
    return sorted([*own, *(why.value[0] for why in Why if why.http_status == status)]) or ["never"]
