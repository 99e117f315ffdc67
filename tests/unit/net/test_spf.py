"""SPF of our own records, as receivers judge it."""

import asyncio

import pytest

from postbud.net.dns import Absence, Found, Lookup, Missing, Mx, Unavailable
from postbud.net.spf import SpfCheck

ZONE: dict[tuple[str, str], Lookup] = {
    ("plain.example", "TXT"): Found(("other", "v=spf1 ip4:203.0.113.0/28 ip6:2001:db8::/32 -all")),
    ("soft.example", "TXT"): Found(("v=spf1 ~all",)),
    ("neutral.example", "TXT"): Found(("V=SPF1",)),
    ("two.example", "TXT"): Found(("v=spf1 +all", "v=spf1 -all")),
    ("a.example", "TXT"): Found(("v=spf1 a mx -all",)),
    ("a.example", "A"): Found(("203.0.113.9",)),
    ("a.example", "MX"): Found((Mx(10, "mx.example"), Mx(20, ""))),
    ("mx.example", "A"): Found(("203.0.113.25",)),
    ("wide.example", "TXT"): Found(("v=spf1 a:a.example/24 -all",)),
    ("own.example", "TXT"): Found(("v=spf1 a/24 ?all",)),
    ("own.example", "A"): Found(("203.0.113.9",)),
    ("include.example", "TXT"): Found(("v=spf1 include:plain.example -all",)),
    ("broken.example", "TXT"): Found(("v=spf1 include:nothing.example -all",)),
    ("redirect.example", "TXT"): Found(("v=spf1 exp=why.example redirect=plain.example",)),
    ("lost.example", "TXT"): Found(("v=spf1 redirect=nothing.example",)),
    ("macro.example", "TXT"): Found(("v=spf1 include:%{d}.example -all",)),
    ("exists.example", "TXT"): Found(("v=spf1 exists:x.example -all",)),
    ("odd.example", "TXT"): Found(("v=spf1 nonsense -all",)),
    ("bad.example", "TXT"): Found(("v=spf1 ip4:nonsense -all",)),
    ("loop.example", "TXT"): Found(("v=spf1 include:loop.example -all",)),
    ("down.example", "TXT"): Unavailable("dead"),
}


def judged(domain: str, address: str) -> str:
    async def ask(name: str, kind: str) -> Lookup:
        return ZONE.get((name, kind), Missing(Absence.NXDOMAIN))

    return asyncio.run(SpfCheck(ask, address).result(domain))


@pytest.mark.parametrize(
    ("domain", "address", "result"),
    [
        ("plain.example", "203.0.113.5", "pass"), ("plain.example", "203.0.113.77", "fail"),
        ("plain.example", "2001:db8::1", "pass"),
        ("soft.example", "203.0.113.5", "softfail"), ("neutral.example", "203.0.113.5", "neutral"),
        ("nothing.example", "203.0.113.5", "none"), ("two.example", "203.0.113.5", "permerror"),
        ("a.example", "203.0.113.9", "pass"), ("a.example", "203.0.113.25", "pass"), ("a.example", "203.0.113.26", "fail"),
        ("a.example", "2001:db8::1", "fail"), ("wide.example", "203.0.113.200", "pass"),
        ("own.example", "203.0.113.200", "pass"),
        ("own.example", "198.51.100.1", "neutral"), ("include.example", "203.0.113.5", "pass"),
        ("include.example", "198.51.100.1", "fail"), ("broken.example", "203.0.113.5", "permerror"),
        ("redirect.example", "203.0.113.5", "pass"), ("redirect.example", "198.51.100.1", "fail"),
        ("lost.example", "203.0.113.5", "permerror"), ("macro.example", "203.0.113.5", "unknown"),
        ("exists.example", "203.0.113.5", "unknown"), ("odd.example", "203.0.113.5", "permerror"),
        ("bad.example", "203.0.113.5", "permerror"), ("loop.example", "203.0.113.5", "permerror"),
        ("down.example", "203.0.113.5", "temperror"),
    ],
)  # fmt: skip
def test_an_address_may_send_or_not(domain: str, address: str, result: str) -> None:
    assert judged(domain, address) == result
