"""Canonical forms of header fields and bodies, simple and relaxed (RFC 6376 s3.4). Knows octets only, no keys, no tags.

The relaxed hash of a body is made while it is scanned (`body`); the functions here serve verifying, which needs octets.
"""

import re

from postbud.mime.body import line_ends, squeeze

_WSP_RUN = re.compile(rb"[ \t]+")


def relaxed_field(name: bytes, body: bytes) -> bytes:
    """Give one field in relaxed form with its CRLF; `name` in lower case, `body` is what follows the colon."""
    if b"\x0b" in body or b"\x0c" in body:  # bytes.split() would take these for white space; RFC 6376 does not
        value = _WSP_RUN.sub(b" ", body.replace(b"\r\n", b"")).strip(b" ")
    else:
        value = b" ".join(body.replace(b"\r\n", b"").split())
    return name + b":" + value + b"\r\n"


def relaxed_body(body: bytes) -> bytes:
    """Give a body in relaxed form."""
    canonical = squeeze(body)
    if canonical.endswith(b" "):
        canonical = canonical[:-1]
    canonical = _without_empty_lines(canonical)
    return canonical + b"\r\n" if canonical else b""


def simple_body(body: bytes) -> bytes:
    """Give a body in simple form; the empty body is one CRLF."""
    return _without_empty_lines(body) + b"\r\n"


def _without_empty_lines(body: bytes) -> bytes:
    """Drop every CRLF at the end (one is added again by the callers)."""
    tail = body[len(body.rstrip(b"\r\n")) :]
    return body[: len(body) - line_ends(tail)]
