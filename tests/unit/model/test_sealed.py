"""Sealed values open under their key and for their record only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.sealed import KEY_OCTETS, NONCE_OCTETS, SealError, seal, unseal

KEY, NONCE = bytes(range(KEY_OCTETS)), bytes(NONCE_OCTETS)
keys = st.binary(min_size=KEY_OCTETS, max_size=KEY_OCTETS)
nonces = st.binary(min_size=NONCE_OCTETS, max_size=NONCE_OCTETS)


@given(keys, st.text(max_size=40), st.binary(max_size=200), nonces)
def test_what_was_sealed_opens_as_it_was(key: bytes, record_id: str, value: bytes, nonce: bytes) -> None:
    assert unseal(key, record_id, seal(key, record_id, value, nonce)) == value


@given(st.binary(max_size=60), st.data())
def test_a_change_of_any_octet_is_found(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, "secret/1", value, NONCE))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError, match="secret/1"):
        unseal(KEY, "secret/1", bytes(sealed))


def test_a_value_does_not_open_in_another_record_or_under_another_key() -> None:
    sealed = seal(KEY, "acct_1/acme.example/s1", b"key", NONCE)
    with pytest.raises(SealError):
        unseal(KEY, "acct_2/acme.example/s1", sealed)
    with pytest.raises(SealError):
        unseal(bytes(KEY_OCTETS), "acct_1/acme.example/s1", sealed)


@given(st.binary(max_size=28))
def test_what_is_too_short_is_no_sealed_value(octets: bytes) -> None:
    with pytest.raises(SealError, match="no sealed value"):
        unseal(KEY, "x", octets)
    with pytest.raises(SealError, match="no sealed value"):
        unseal(KEY, "x", b"\x02" + bytes(40))
