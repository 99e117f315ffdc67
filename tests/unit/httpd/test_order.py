"""An order is valid or refused by the names of its faults; what is composed of it holds no field that nobody asked for."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbud.httpd.order import compose_content, read_envelope, read_order
from postbud.httpd.problem import Problem
from postbud.mime.address import parse_mailbox_list
from postbud.mime.header import HeaderSection

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FINE: dict[str, Any] = {"from": "Ann <ann@acme.example>", "to": ["you@dest.example"], "subject": "Hello", "text": "Hi"}
OURS = {b"from", b"to", b"cc", b"reply-to", b"subject", b"mime-version", b"content-type", b"content-transfer-encoding"}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=30)
    | st.sampled_from(["a@b.example", "A <a@b.example>", "\r\n", "x: y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mailbox", "name", "content", "filename", "content_id", "content_type", "X-A", "Subject", "k"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "from",
        "to",
        "cc",
        "bcc",
        "reply_to",
        "subject",
        "text",
        "html",
        "headers",
        "attachments",
        "raw",
        "reverse_path",
        "list",
        "campaign",
        "tag",
        "metadata",
        "send_at",
        "id",
    ]
)


def token(_: int) -> str:
    return "0123456789abcdef"


def faults(tree: Any) -> list[str]:
    with pytest.raises(Problem) as raised:
        read_order(tree, NOW)
    assert raised.value.status == 422
    return [error.field for error in raised.value.errors]


@given(st.dictionaries(NAMES, ANYTHING, max_size=4))
@settings(max_examples=500)
@pytest.mark.row("I1")
def test_whatever_is_said_is_an_order_without_injected_fields_or_a_problem(change: dict[str, Any]) -> None:
    tree = {name: value for name, value in (FINE | change).items() if value is not None}
    try:
        order = read_order(tree, NOW)
        if order.letter is None:
            return
        header, body = compose_content(order, token)
    except Problem as no:
        assert no.status == 422
        assert no.errors
        assert json.loads(no.body)["code"] in {"invalid_field", "unknown_field"}
        return
    section = HeaderSection.parse(header)
    asked = {name.lower().encode() for name in tree.get("headers") or ()}
    assert {field.name for field in section.fields} <= OURS | asked
    assert len(section.fields) <= len(OURS) + len(tree.get("headers") or ())
    assert str(parse_mailbox_list(section.value(b"from") or b"")[0].mailbox) == str(order.letter.sender.mailbox)
    assert b"bcc" not in header.lower()
    assert body.count(b"\r\n") == body.count(b"\r") == body.count(b"\n")


def test_mailboxes_are_said_in_three_ways_and_once_each() -> None:
    tree = FINE | {
        "from": {"mailbox": "ann@acme.example", "name": "Ann"},
        "to": ["Bo <bo@dest.example>", {"mailbox": "cy@dest.example"}, "bo@DEST.example"],
        "cc": "d@dest.example",
        "bcc": {"mailbox": "e@dest.example"},
        "reply_to": '"Acme, \\"Inc.\\"" <sales@acme.example>',
    }
    order = read_order(tree, NOW)
    assert [str(mailbox) for mailbox in order.recipients] == [
        "bo@dest.example",
        "cy@dest.example",
        "d@dest.example",
        "e@dest.example",
    ]
    assert order.places == ("to[0]", "to[1]", "cc[0]", "bcc[0]")
    assert str(order.reverse_path) == "ann@acme.example"
    assert order.letter is not None
    assert order.letter.reply_to[0].name == 'Acme, "Inc."'
    assert not order.smtputf8
    assert read_order(FINE | {"bcc": "grød@dest.example"}, NOW).smtputf8


def test_every_fault_is_named_at_once() -> None:
    tree = FINE | {
        "to": ["a@b.example", "nobody"],
        "subject": "x" * 999,
        "headers": {"Date": "x", "X Y": "z", "References": "<ø>", "X-OK": "y"},
        "attachments": [{"content": "", "content_type": "x", "content_id": "<a>"}],
        "tag": "t" * 65,
        "send_at": "2027-01-01T00:00:00Z",
    }
    assert sorted(faults(tree)) == [
        "attachments[0].content_id",
        "attachments[0].content_type",
        "headers.Date",
        "headers.References",
        "headers.X Y",
        "send_at",
        "subject",
        "tag",
        "to[1]",
    ]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"from": 7}, "from"),
        ({"from": ["a@b.example"]}, "from"),
        ({"to": [None]}, "to[0]"),
        ({"headers": {"X": 1}}, "headers[...]"),
        ({"attachments": [{}]}, "attachments[0].content"),
        ({"attachments": [{"content": "é"}]}, "attachments[0].content"),
        ({"send_at": "2026-12-01T00:00:00"}, "send_at"),
        ({"metadata": {"k": "x" * 1100}}, "metadata.k"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {str(number): "x" * 100 for number in range(20)}}, "metadata"),
        ({"raw": "*"}, "raw"),
        ({"text": 1}, "text"),
        ({"headers": {f"X-{number}": "" for number in range(101)}}, "headers"),
        ({"attachments": [{"content": ""}] * 101}, "attachments"),
    ],
)
def test_each_fault_names_its_field(change: dict[str, Any], field: str) -> None:
    assert field in faults(FINE | change)


def test_a_body_that_is_no_object_says_so() -> None:
    assert faults([]) == ["body"]
    assert faults({}) == ["from"]


def test_an_instant_is_kept_in_utc_and_may_have_passed() -> None:
    ahead = read_order(FINE | {"send_at": "2026-11-25T14:00:00+01:00"}, NOW)
    assert ahead.said.send_at == NOW + timedelta(hours=1)
    assert read_order(FINE | {"send_at": "2020-01-01T00:00:00Z"}, NOW).said.send_at is not None


def test_an_envelope_of_a_whole_message_is_checked_alike() -> None:
    order = read_envelope("ann@acme.example", ["a@b.example", "a@b.example"], NOW)
    assert [str(mailbox) for mailbox in order.recipients] == ["a@b.example"]
    with pytest.raises(Problem, match="to"):
        read_envelope("ann@acme.example", [], NOW)
