"""Ids sort by time, carry their spool, and read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.ids import IdSource, spool_of, to_octets, to_text


def source(times: list[int]) -> IdSource:
    clock = iter(times)
    return IdSource(0xDEADBEEF, lambda: next(clock), lambda count: b"\xaa" * count)


def test_ids_grow_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    ids = source([1000, 1000, 999, 1001])
    made = [ids.message() for _ in range(4)]
    assert made == sorted(made)
    assert len(set(made)) == 4


def test_a_full_counter_borrows_from_the_next_millisecond() -> None:
    ids = IdSource(1, lambda: 5, bytes)
    last = b""
    for _ in range(0x10000 + 2):
        octets = ids.octets()
        assert octets > last
        last = octets


def test_ids_carry_their_spool_and_kind() -> None:
    ids = source([1, 2, 3])
    assert ids.message().startswith("msg_")
    assert ids.delivery().startswith("dlv_")
    event = ids.event()
    assert event.startswith("evt_")
    assert spool_of(event) == 0xDEADBEEF


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_text_sorts_as_octets_do_and_reads_back(one: bytes, other: bytes) -> None:
    assert to_octets(to_text("msg", one)) == one
    assert (to_text("msg", one) < to_text("msg", other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        *("", "msg_", "msg_abc", "msg-" + "a" * 26, "a" * 26),
        *("msg_" + wrong for wrong in ("z" * 26, "0" * 25 + "1", "A" * 26, "+" + "0" * 25, "é" + "0" * 25)),
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        to_octets(text)
