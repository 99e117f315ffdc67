"""SPF: may an address send for a domain? Enough of RFC 7208 to judge records of our own; macros are told as "unknown".

Knows no mail. Invariants: at most ten terms that ask DNS, as every receiver counts; a name server's trouble is `temperror`,
never a no. RFC 7208 s4.6.4 (limits), s5 (mechanisms), s6.1 (redirect).
"""

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from postbud.net.dns import Found, Lookup, Unavailable

Ask = Callable[[str, str], Awaitable[Lookup]]
Address = IPv4Address | IPv6Address

_MOST_ASKED = 10
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


class _EndError(Exception):
    """The evaluation ends with a result: `temperror`, `permerror`, or `unknown` where a macro stands."""


class SpfCheck:
    """One evaluation."""

    def __init__(self, ask: Ask, address: str) -> None:
        """Take a resolver's lookup and the address that sends."""
        self._ask = ask
        self._address: Address = ip_address(address)
        self._asked = 0

    async def result(self, domain: str) -> str:
        """Give pass, fail, softfail, neutral, none, temperror, permerror, or unknown."""
        try:
            return await self._evaluate(domain)
        except _EndError as end:
            return str(end)

    async def _evaluate(self, domain: str) -> str:
        record = await self._record(domain)
        if record is None:
            return "none"
        redirect = ""
        for term in record.split()[1:]:
            name, _, value = term.partition("=")
            if name.lower() == "redirect":
                redirect = value
            elif "=" not in term.partition(":")[0] and await self._matches(term.lstrip("+-~?"), domain):
                return _RESULTS[term[0] if term[0] in _RESULTS else "+"]
        if redirect:
            self._count(redirect)
            found = await self._evaluate(redirect)
            if found == "none":
                raise _EndError("permerror")
            return found
        return "neutral"

    async def _record(self, domain: str) -> str | None:
        answer = await self._lookup(domain, "TXT")
        found = [text for text in (answer.texts if isinstance(answer, Found) else ()) if _is_spf(text)]
        if len(found) > 1:
            raise _EndError("permerror")
        return found[0] if found else None

    async def _matches(self, mechanism: str, domain: str) -> bool:
        name, _, rest = mechanism.partition(":")
        name, _, length = name.partition("/") if not rest else (name, "", "")
        match name.lower():
            case "all":
                return True
            case "ip4" | "ip6":
                return self._within([rest])
            case "include":
                self._count(rest)
                found = await self._evaluate(rest)
                if found == "none":
                    raise _EndError("permerror")
                return found == "pass"
            case "a" | "mx":
                target, _, length = rest.partition("/") if rest else (domain, "", length)
                self._count(target)
                hosts = [target] if name.lower() == "a" else await self._exchangers(target)
                return self._within([f"{one}/{length}" if length else one for one in await self._addresses(hosts)])
            case "exists" | "ptr":
                raise _EndError("unknown")
            case _:
                raise _EndError("permerror")

    async def _exchangers(self, domain: str) -> list[str]:
        answer = await self._lookup(domain, "MX")
        return [one.host for one in answer.exchangers if one.host][:_MOST_ASKED] if isinstance(answer, Found) else []

    async def _addresses(self, hosts: list[str]) -> list[str]:
        kind = "A" if self._address.version == 4 else "AAAA"
        answers = [await self._lookup(host, kind) for host in hosts]
        return [text for answer in answers if isinstance(answer, Found) for text in answer.texts]

    def _within(self, networks: list[str]) -> bool:
        try:
            return any(self._address in ip_network(text, strict=False) for text in networks)
        except ValueError as error:
            raise _EndError("permerror") from error

    def _count(self, target: str) -> None:
        if "%" in target:
            raise _EndError("unknown")
        self._asked += 1
        if self._asked > _MOST_ASKED:
            raise _EndError("permerror")

    async def _lookup(self, name: str, kind: str) -> Lookup:
        answer = await self._ask(name, kind)
        if isinstance(answer, Unavailable):
            raise _EndError("temperror")
        return answer


def _is_spf(text: str) -> bool:
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")
