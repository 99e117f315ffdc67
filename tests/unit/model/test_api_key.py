"""The written form of API keys."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.api_key import ALPHABET, MANAGEMENT_PREFIX, new_secret, read_key, write_key

SECRET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"


@given(st.from_regex(r"crd_[a-z0-9_]{1,30}", fullmatch=True), st.text(ALPHABET, min_size=32, max_size=32))
def test_a_key_is_read_as_it_was_written(credential: str, secret: str) -> None:
    assert read_key(write_key(credential, secret)) == (credential, secret)


@given(st.integers(4, 46), st.sampled_from(ALPHABET))
def test_a_key_with_one_wrong_character_is_none(place: int, letter: str) -> None:
    key = write_key("crd_a_1", SECRET)
    wrong = key[:place] + letter + key[place + 1 :]
    assert (read_key(wrong) is None) == (wrong != key)


@pytest.mark.parametrize(
    "text", ["", "pbk_", "pbk_a_b", "Bearer x", "pbk_é_" + SECRET + "000000", "pbk_a_" + SECRET + "000000\n"]
)
def test_what_is_no_key_is_none(text: str) -> None:
    assert read_key(text) is None


def test_a_new_secret_has_32_characters_and_needs_enough_octets() -> None:
    secret = new_secret(os.urandom(96))
    assert len(secret) == 32
    assert set(secret) <= set(ALPHABET)
    with pytest.raises(ValueError, match="too few"):
        new_secret(bytes([255]) * 64)


def test_a_key_of_one_kind_is_none_of_another() -> None:
    sending, managing = write_key("crd_a", SECRET), write_key("key_a", SECRET, MANAGEMENT_PREFIX)
    assert managing.startswith("pbm_a_")
    assert read_key(managing, MANAGEMENT_PREFIX) == ("key_a", SECRET)
    assert read_key(managing) is None
    assert read_key(sending, MANAGEMENT_PREFIX) is None
    assert read_key(managing.replace("pbm_", "pbk_")) is None
