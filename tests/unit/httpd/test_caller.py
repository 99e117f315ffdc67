"""Who calls: addresses behind proxies, keys in one header, and counting of wrong ones."""

from ipaddress import ip_network
from typing import Any

import pytest

from postbud.httpd.caller import Doorkeeper, address_key, address_of, header, refuse_key_in_address
from postbud.httpd.problem import Problem
from postbud.httpd.settings import ApiCounters, ApiSettings
from postbud.model.refusal import Refusal, Why
from postbud.submission.authenticate import Identity

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def scope(address: str, *forwarded: bytes) -> dict[str, Any]:
    return {"client": (address, 1), "headers": [(b"x-forwarded-for", value) for value in forwarded]}


@pytest.mark.parametrize(
    ("address", "forwarded", "found"),
    [
        ("192.0.2.1", (b"198.51.100.1",), "192.0.2.1"),
        ("10.0.0.1", (b"198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", (b"1.2.3.4, 198.51.100.1, 10.0.0.9",), "198.51.100.1"),
        ("10.0.0.1", (b"1.2.3.4", b"10.0.0.9"), "1.2.3.4"),
        ("::1", (b"2001:db8::5",), "2001:db8::5"),
        ("10.0.0.1", (b"1.2.3.4, nonsense",), "10.0.0.1"),
        ("10.0.0.1", (b"",), "10.0.0.1"),
    ],
)
def test_a_forwarded_address_counts_as_far_as_proxies_are_trusted(
    address: str, forwarded: tuple[bytes, ...], found: str
) -> None:
    assert address_of(scope(address, *forwarded), PROXIES) == found
    assert address_of(scope(address, *forwarded), ()) == address
    assert address_of({"client": None, "headers": []}, PROXIES) == ""


def test_an_ipv6_network_is_one_client() -> None:
    assert address_key("2001:db8::1:2:3:4") == address_key("2001:db8::5")
    assert address_key("2001:db8:0:1::5") != address_key("2001:db8::5")
    assert address_key("192.0.2.1") == "192.0.2.1"


def test_a_header_that_stands_twice_is_refused() -> None:
    assert header([(b"a", b"1")], b"a") == b"1"
    assert header([], b"a") is None
    with pytest.raises(Problem, match="stands twice"):
        header([(b"a", b"1"), (b"a", b"1")], b"a")


@pytest.mark.row("I10")
@pytest.mark.parametrize("query", [b"key=x", b"a=1&Token=x", b"q=pbk_abc", b"q=%70bk%5Fabc", b"api-key"])
def test_a_key_in_the_address_is_seen(query: bytes) -> None:
    with pytest.raises(Problem, match="API key"):
        refuse_key_in_address(b"/v1", query)
    with pytest.raises(Problem, match="API key"):
        refuse_key_in_address(b"/v1/messages/pbk%5fx", b"")
    refuse_key_in_address(b"/v1/messages/msg_1", b"from=a%40b&to=monkey@b.example")


def test_wrong_keys_are_counted_for_their_address_and_their_time() -> None:
    now = [0.0]
    counters = ApiCounters()

    def authenticate(text: str) -> Identity:
        if text == "right":
            return Identity("a", "s", "c", normalise_line_ends=False)
        raise Refusal(Why.REVOKED if text == "revoked" else Why.AUTH_FAILED, "no")

    keeper = Doorkeeper(ApiSettings("x:1", "h", key_failures_per_address=2), authenticate, counters, lambda: now[0])

    def ask(text: bytes, address: str = "192.0.2.1") -> object:
        try:
            return keeper.identify([(b"authorization", text)], address)
        except Refusal as refusal:
            return refusal.why
        except Problem as problem:
            return problem.status

    assert [ask(b"Bearer wrong") for _ in range(4)] == [Why.AUTH_FAILED, Why.AUTH_FAILED, 429, 429]
    assert ask(b"Bearer wrong", "192.0.2.2") is Why.AUTH_FAILED
    assert isinstance(ask(b"bearer  right"), Identity)
    assert ask(b"Bearer revoked") is Why.REVOKED
    assert ask(b"Basic right") == 429
    assert ask(b"Bearer " + b"x" * 300) == 429
    now[0] = 601.0
    assert ask(b"Bearer wrong") is Why.AUTH_FAILED
    assert (counters.key_failed, counters.key_throttled) == (8, 4)
