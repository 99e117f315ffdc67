"""Which addresses may be dialled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.net.guard import Guard, Verdict

PRIVATE = (
    "127.0.0.1 0.0.0.0 10.1.2.3 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 192.0.2.1 198.18.0.1 "
    "224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 ::8.8.8.8 64:ff9b::7f00:1 "
    "64:ff9b:1::1 2002:7f00:1::1 2002:a00:1::1 2001::1 2001:db8::1 3fff::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 2a00::1%eth0 "
    "fec0::1 ff02::1 100::1 localhost 127.1 2130706433"
)


@pytest.mark.row("K7")
@pytest.mark.parametrize("address", [*PRIVATE.split(), ""])
def test_addresses_that_are_not_public_are_never_dialled(address: str) -> None:
    assert Guard().judge(address) is Verdict.PRIVATE


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2a00:1450::1", "64:ff9b::808:808", "2002:808:808::1"])
def test_public_addresses_are_dialled(address: str) -> None:
    assert Guard().judge(address) is Verdict.ALLOWED


@pytest.mark.row("K7")
def test_own_addresses_are_never_dialled_however_written() -> None:
    guard = Guard(own=["8.8.8.8", "2a00::1"])
    for address in ("8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2a00::1", "2a00:0::1"):
        assert guard.judge(address) is Verdict.OWN


def test_allowed_networks_come_before_all_else() -> None:
    guard = Guard(own=["127.0.0.1"], allowed=["127.0.0.0/8", "::1/128"])
    assert guard.judge("127.0.0.1") is Verdict.ALLOWED
    assert guard.judge("::1") is Verdict.ALLOWED
    assert guard.judge("10.0.0.1") is Verdict.PRIVATE


@pytest.mark.row("K7")
@given(st.ip_addresses(v=4))
def test_wrapping_an_address_never_makes_it_public(address: object) -> None:
    guard = Guard()
    if guard.judge(str(address)) is Verdict.PRIVATE:
        number = int(address)  # type: ignore[call-overload]  # an IPv4Address
        for wrapped in (
            f"::ffff:{address}",
            f"64:ff9b::{number >> 16:x}:{number & 65535:x}",
            f"2002:{number >> 16:x}:{number & 65535:x}::1",
        ):
            assert guard.judge(wrapped) is Verdict.PRIVATE
