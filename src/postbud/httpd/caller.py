"""Who is calling: the address, also behind a proxy that is trusted, and the API key, which stands in one header (input I10).

A wrong key counts against the address it came from; a right one always passes, so that nobody is locked out by a neighbour.
Guessing a key of 190 bits is hopeless: the count spares our log and tells a broken program to stop.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from postbud.httpd.problem import Code, problem
from postbud.httpd.settings import ApiCounters, ApiSettings
from postbud.model.refusal import Refusal, Why
from postbud.submission.authenticate import Identity

Headers = Sequence[tuple[bytes, bytes]]
_MAX_REMEMBERED = 20_000
_MAX_KEY_OCTETS = 200
_KEY_NAMES = frozenset({b"key", b"api_key", b"apikey", b"api-key", b"token", b"access_token", b"authorization", b"bearer"})


def header(headers: Headers, name: bytes) -> bytes | None:
    """Give the value of a header that stands once at most.

    Raises:
        Problem: BAD_REQUEST, when it stands twice.
    """
    values = [value for found, value in headers if found == name]
    if len(values) > 1:
        raise problem(Code.BAD_REQUEST, f"the header {name.decode('ascii').title()} stands twice", close=True)
    return values[0] if values else None


def refuse_key_in_address(raw_path: bytes, query: bytes) -> None:
    """Refuse a request that has an API key where logs and histories of browsers and proxies keep it.

    Raises:
        Problem: KEY_IN_QUERY.
    """
    names = {part.partition(b"=")[0].lower() for part in query.split(b"&")} if query else set()
    if names & _KEY_NAMES or b"pbk_" in unquote_to_bytes(query) or b"pbk_" in unquote_to_bytes(raw_path):
        raise problem(
            Code.KEY_IN_QUERY,
            "send the API key in the Authorization header, never in the address; this one is exposed: change it",
        )


def address_of(scope: Any, proxies: Sequence[IPv4Network | IPv6Network]) -> str:
    """Give the client's address; behind trusted proxies the last one in X-Forwarded-For that is none of them."""
    address = str(scope["client"][0]) if scope.get("client") else ""
    if not proxies:
        return address
    said = b",".join([value for name, value in scope["headers"] if name == b"x-forwarded-for"]).decode("latin-1")
    hops = [hop.strip() for hop in said.split(",") if hop.strip()]
    while hops and _within(address, proxies):
        hop = hops.pop()
        try:
            address = str(ip_address(hop))
        except ValueError:
            break
    return address


def address_key(address: str) -> str:
    """Give what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address


class Doorkeeper:
    """Tells whose key a request bears."""

    def __init__(
        self,
        settings: ApiSettings,
        authenticate: Callable[[str], Identity],
        counters: ApiCounters,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._settings = settings
        self._authenticate = authenticate
        self._counters = counters
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # -> count, end of the window

    def identify(self, headers: Headers, address: str) -> Identity:
        """Give the identity of a request.

        Raises:
            Refusal: AUTH_REQUIRED, AUTH_FAILED, REVOKED, BLOCKED.
            Problem: BAD_REQUEST, or TOO_MANY_FAILURES from this address.
        """
        said = header(headers, b"authorization")
        if said is None:
            raise Refusal(Why.AUTH_REQUIRED, "send an API key: Authorization: Bearer pbk_...")
        scheme, _, text = said.partition(b" ")
        try:
            if scheme.lower() != b"bearer" or len(text) > _MAX_KEY_OCTETS:
                raise Refusal(Why.AUTH_FAILED, "send an API key: Authorization: Bearer pbk_...", "another scheme, or too long")
            return self._authenticate(text.strip(b" ").decode("ascii", "replace"))
        except Refusal as refusal:
            if refusal.why is Why.AUTH_FAILED:
                self._count(address_key(address))
            raise

    def _count(self, key: str) -> None:
        self._counters.key_failed += 1
        now, settings = self._clock(), self._settings
        count, ends_at = self._failures.get(key, (0, 0.0))
        if now >= ends_at:
            count, ends_at = 0, now + settings.key_window_seconds
        self._failures[key] = (count + 1, ends_at)
        self._failures.move_to_end(key)
        if len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)
        if count >= settings.key_failures_per_address:
            self._counters.key_throttled += 1
            wait = str(int(ends_at - now) + 1)
            raise problem(
                Code.TOO_MANY_FAILURES,
                "too many wrong API keys came from this address",
                headers={"retry-after": wait},
                close=True,
            )


def _within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in networks)
