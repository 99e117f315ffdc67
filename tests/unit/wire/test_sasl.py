"""PLAIN and LOGIN, and what they must not let through."""

from base64 import b64encode

import pytest

from postbud.wire.sasl import MAX_SECRET_OCTETS, Credentials, Exchange, SaslError


def plain(text: bytes) -> Credentials:
    result = Exchange(b"PLAIN").start(b64encode(text))
    assert isinstance(result, Credentials)
    return result


def test_plain_comes_with_or_without_initial_response() -> None:
    assert plain(b"\0u\0s") == Credentials("u", b"s", True)
    exchange = Exchange(b"PLAIN")
    assert exchange.start(None) == b""
    assert exchange.step(b64encode(b"u\0u\0s")) == Credentials("u", b"s", True)


def test_login_comes_with_or_without_initial_response() -> None:
    exchange = Exchange(b"LOGIN")
    assert exchange.start(None) == b64encode(b"Username:")
    assert exchange.step(b64encode(b"u")) == b64encode(b"Password:")
    assert exchange.step(b64encode(b"s")) == Credentials("u", b"s", True)
    assert Exchange(b"LOGIN").start(b64encode(b"u")) == b64encode(b"Password:")


@pytest.mark.row("F1")
def test_star_cancels_and_nonsense_is_no_response() -> None:
    with pytest.raises(SaslError) as cancelled:
        Exchange(b"PLAIN").step(b"*")
    assert cancelled.value.cancelled
    for line in (b"!", b"AAA", b"AA=A", b"AAAA====", b"=", b64encode(b"u\0s\0t\0v"), b64encode(b"u"), b"AAAA AAAA"):
        with pytest.raises(SaslError) as malformed:
            Exchange(b"PLAIN").step(line)
        assert not malformed.value.cancelled


def test_an_equals_sign_is_an_empty_initial_response() -> None:
    with pytest.raises(SaslError):
        Exchange(b"PLAIN").start(b"=")
    assert Exchange(b"LOGIN").start(b"=") == b64encode(b"Password:")


@pytest.mark.row("F2", "F8")
@pytest.mark.parametrize(
    "text",
    [
        b"other\0u\0s",
        b"\0u\r\nx\0s",
        b"\0\x7f\0s",
        b"\0\0s",
        b"\0u\0",
        b"\0" + b"u" * 257 + b"\0s",
        b"\0u\0" + b"s" * (MAX_SECRET_OCTETS + 1),
    ],
)
def test_what_nobody_can_be_called_is_not_plausible_and_its_secret_goes_no_further(text: bytes) -> None:
    result = plain(text)
    assert not result.plausible
    assert result.secret == b""
    assert len(result.username) <= 256


def test_a_name_that_is_not_utf_8_is_shown_escaped() -> None:
    assert plain(b"\0\xff\0s").username == "\\xff"
