from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.header import HeaderSection
from postbud.mime.received import is_looping, received_field

AT = datetime(2026, 11, 24, 21, 7, 17, tzinfo=UTC)


def field(
    helo: str = "client.example", address: str = "192.0.2.1", recipient: str | None = None, tls: str | None = None
) -> bytes:
    return received_field(
        helo=helo,
        client_address=address,
        hostname="relay.example",
        protocol="ESMTPSA",
        message_id="msg_1",
        at=AT,
        recipient=recipient,
        tls=tls,
    )


def test_the_field_says_from_by_with_id_for_and_when() -> None:
    assert field(recipient="b@b.example", tls="TLSv1.3 TLS_AES_256_GCM_SHA384") == (
        b"Received: from client.example ([192.0.2.1])\r\n (using TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b" by relay.example with ESMTPSA\r\n id msg_1\r\n for <b@b.example>;\r\n Tue, 24 Nov 2026 21:07:17 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("helo", "address", "source"),
    [
        ("client.example", "2001:db8::1", b"client.example ([IPv6:2001:db8::1])"),
        ("[192.0.2.1]", "192.0.2.1", b"[192.0.2.1] ([192.0.2.1])"),
        ("", "192.0.2.1", b"[192.0.2.1]"),
        ("a b)(c", "192.0.2.1", b"[192.0.2.1] (helo a b??c)"),
        ("<script>", "192.0.2.1", b"[192.0.2.1] (helo ?script?)"),
        ("x\r\nBcc: y", "192.0.2.1", b"[192.0.2.1] (helo x??Bcc: y)"),
        ("æ", "192.0.2.1", b"[192.0.2.1] (helo ?)"),
    ],
)
def test_what_a_peer_said_of_itself_cannot_end_a_comment_or_a_line(helo: str, address: str, source: bytes) -> None:
    assert field(helo, address).split(b"\r\n")[0] == b"Received: from " + source


def test_a_recipient_beyond_ascii_is_not_named() -> None:
    assert b"for" not in field(recipient="jü@b.example")
    assert b"for" not in field()


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=50))
def test_the_field_is_one_field_whatever_the_peer_says(helo: str, tls: str, recipient: str) -> None:
    octets = field(helo, tls=tls, recipient=recipient)
    assert len(HeaderSection.parse(octets).fields) == 1


@pytest.mark.row("G5")
@pytest.mark.parametrize(
    ("fields", "looping"),
    [
        ([b"by a.example"] * 2, False),
        ([b"by a.example"] * 99, False),
        ([b"by a.example"] * 100, True),
        ([b"by relay.example", b"from x by Relay.Example with SMTP", b"x\r\n\tby relay.example;x"], True),
        ([b"by relay.example", b"by relay.example", b"by relay.example.evil.example", b"from relay.example by b"], False),
    ],
)
def test_a_hundred_received_fields_or_three_of_our_own_are_a_loop(fields: list[bytes], looping: bool) -> None:
    section = HeaderSection.parse(b"".join(b"Received: " + value + b"\r\n" for value in fields))
    assert is_looping(section, "relay.example") is looping
    own = HeaderSection.parse(field() * 3)
    assert is_looping(own, "RELAY.example")
