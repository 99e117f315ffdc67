"""Outbound HTTP to addresses that somebody else chose (webhooks, later policy hosts): one way out, guarded (J4-J6, SSRF).

Owns the judgement of such a URL and the dialling: names are resolved by our resolver, the very address that was judged is
dialled, TLS is verified against the name, nothing is followed (redirects), no proxy of the environment is used, time and
answer are bounded. Knows nothing of what is said. OWASP ASVS 5.0 v5.0.0-1.3.6, 15.3.2.
"""

import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

import anyio
import httpcore

from postbud.model.mailbox import MailboxError, parse_domain
from postbud.net.dns import Found, Resolver, Unavailable
from postbud.net.guard import Guard, Verdict

TOTAL_SECONDS = 10.0
MAX_ANSWER_OCTETS = 64 * 1024
MAX_URL_OCTETS = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$")
_UNPRINTABLE = re.compile(r"[^!-~]")


class UrlRefused(ValueError):  # noqa: N818 (names the answer)
    """A URL that is not called; the text may be shown to who typed it."""


class NotReached(Exception):  # noqa: N818 (names the state)
    """Nobody answered, or not as HTTP does, or not in time; the text may be shown to the owner of the URL."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is at most `MAX_ANSWER_OCTETS`; `whole` says whether that was all."""

    status: int
    body: bytes
    whole: bool


def check_url(url: str, guard: Guard, ports: Iterable[int] = ()) -> SplitResult:
    """Judge a URL as far as it can be judged without asking anybody: scheme, port, host, form. Give its parts.

    `ports` are allowed beside 80 and 443. An address in the host must be one that the guard lets be dialled.

    Raises:
        UrlRefused: It is not called.
    """
    if len(url) > MAX_URL_OCTETS or _UNPRINTABLE.search(url):
        raise UrlRefused(f"a URL has at most {MAX_URL_OCTETS} visible ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UrlRefused("this is no URL") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise UrlRefused("a URL begins with https:// or http://")
    if "@" in parts.netloc:
        raise UrlRefused("a URL names no user or password")
    if "\\" in url or parts.fragment:
        raise UrlRefused("a URL holds no backslash and no fragment")
    if port is not None and port not in {*_DEFAULT_PORTS.values(), *ports}:
        raise UrlRefused("only ports 80 and 443 are called")
    _check_host(parts.hostname or "", guard)
    return parts


def _check_host(host: str, guard: Guard) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        pass
    else:
        if guard.judge(str(address)) is not Verdict.ALLOWED:
            raise UrlRefused("this address is not on the public internet")
        return
    if _ENDS_IN_NUMBER.search(host):  # 127.1, 2130706433: some read them as addresses (WHATWG URL, "ends in a number")
        raise UrlRefused("write an IPv4 address as four numbers")
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")) or "." not in name:
        raise UrlRefused("this name is not on the public internet")
    try:
        parse_domain(name)
    except MailboxError as error:
        raise UrlRefused(f"the host is no domain name: {error.why}") from error


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Dials only addresses that the guard allows, each resolved here and now."""

    def __init__(self, resolver: Resolver, guard: Guard) -> None:
        self._resolver = resolver
        self._guard = guard
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's own interface)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, judge, dial: the first of the allowed addresses that answers."""
        error: Exception = httpcore.ConnectError("the name has no address on the public internet")
        for address in await self._addresses(host):
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        raise error

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [address for address in [str(ip_address(host))] if self._guard.judge(address) is Verdict.ALLOWED]
        except ValueError:
            pass
        found: list[str] = []
        for kind in ("A", "AAAA"):
            lookup = await self._resolver.lookup(host.rstrip("."), kind)
            if isinstance(lookup, Unavailable):
                raise httpcore.ConnectError(lookup.why)
            if isinstance(lookup, Found):
                found.extend(lookup.texts)
        return [address for address in found if self._guard.judge(address) is Verdict.ALLOWED]

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await anyio.sleep(seconds)


class GuardedClient:
    """Posts to URLs of others. Connections are kept for some seconds and shared by requests to the same host."""

    def __init__(
        self,
        resolver: Resolver,
        guard: Guard,
        *,
        ports: Iterable[int] = (),
        tls: ssl.SSLContext | None = None,
        connections: int = 50,
    ) -> None:
        """`tls` None: the system's certificate authorities."""
        self._guard = guard
        self._ports = frozenset(ports)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=connections,
            keepalive_expiry=15.0,
            network_backend=_GuardedBackend(resolver, guard),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float = TOTAL_SECONDS) -> Answer:
        """Post once and give the answer; redirects are answers like others.

        Raises:
            UrlRefused: The URL may not be called.
            NotReached: Nobody answered as HTTP does within the time.
        """
        parts = check_url(url, self._guard, self._ports)
        try:
            with anyio.fail_after(seconds):
                async with self._pool.stream(
                    "POST",
                    url,
                    headers=[("Host", parts.netloc), ("User-Agent", "Postbud"), *headers.items()],
                    content=body,
                    extensions={"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}},
                ) as response:
                    kept = bytearray()
                    async for chunk in response.aiter_stream():
                        kept += chunk
                        if len(kept) > MAX_ANSWER_OCTETS:
                            return Answer(response.status, bytes(kept[:MAX_ANSWER_OCTETS]), whole=False)
                    return Answer(response.status, bytes(kept), whole=True)
        except TimeoutError as error:
            raise NotReached(f"no whole answer within {seconds:.0f} seconds") from error
        except (httpcore.ConnectError, httpcore.NetworkError, ssl.SSLError, OSError) as error:
            raise NotReached(_reason(error)) from error
        except (httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise NotReached(f"the answer is no HTTP: {_reason(error)}") from error

    async def __aenter__(self) -> Self:
        """Open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._pool.aclose()


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return re.sub(r"[^ -~]", " ", text)[:300]
