"""The link's HTTP client: JSON over HTTP/1.1 to the console, by a Unix socket on one machine, TLS and a token between two.

Owns the connection, its deadlines and the bound of an answer; knows no record. No proxy or other setting of the environment is
used, nothing is followed. Invariant: whatever goes wrong is `LinkDown` (nobody there, not in time, their trouble: try again
later) or `LinkRefused` (the console understood and says no).
"""

import ssl
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
MAX_ANSWER_OCTETS = 64 * 1024 * 1024  # what the console keeps of one content at most
_TRANSIENT = frozenset({408, 425, 429})
_SHOWN_OCTETS = 200

T = TypeVar("T")
Query = dict[str, str | int]


class LinkDown(Exception):  # noqa: N818 (names the state)
    """The console does not answer, or not as it should; what was asked may or may not have happened."""


class LinkRefused(Exception):  # noqa: N818 (names the answer)
    """The console says no: the token is not valid, or the request is at fault. Asking again changes nothing."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"the console answered {status}: {why}")
        self.status = status


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """Where the console's link is: `unix:PATH` or `https://HOST:PORT`, with a node's token and authorities to trust."""

    url: str
    token: str = ""
    ca_file: Path | None = None


class LinkClient:
    """One relay's or worker's way to the console. Every method is for one event loop."""

    def __init__(self, address: LinkAddress, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        """Nothing is dialled before the first request.

        Raises:
            ValueError: The address is neither a Unix socket nor https.
            OSError: The file of authorities cannot be read.
        """
        self._answer_seconds = answer_seconds
        transport, base = _transport(address)
        headers = {"Accept": "application/json", "User-Agent": "postbud-relay"}
        if address.token:
            headers["Authorization"] = f"Bearer {address.token}"
        self._http = httpx.AsyncClient(
            transport=transport, base_url=base, headers=headers, follow_redirects=False, trust_env=False,
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS, pool=answer_seconds),
        )  # fmt: skip

    async def get(self, path: str, kind: type[T], query: Query | None = None, *, wait_seconds: float = 0.0) -> T:
        """Ask for a record; `wait_seconds` is how long the console may keep us waiting beside the usual time.

        Raises:
            LinkDown, LinkRefused.
        """
        return _decode(await self._ask("GET", path, query=query, wait_seconds=wait_seconds), kind)

    async def post(self, path: str, body: bytes, kind: type[T]) -> T:
        """Send JSON and give the answer.

        Raises:
            LinkDown, LinkRefused.
        """
        return _decode(await self._ask("POST", path, body, content_type="application/json"), kind)

    async def tell(self, path: str, body: bytes) -> None:
        """Send JSON and want no answer but a yes.

        Raises:
            LinkDown, LinkRefused.
        """
        await self._ask("POST", path, body, content_type="application/json")

    async def put(self, path: str, body: bytes | AsyncIterable[bytes], query: Query | None = None) -> None:
        """Put a content there.

        Raises:
            LinkDown, LinkRefused.
        """
        await self._ask("PUT", path, body, query=query, content_type="message/rfc822")

    async def octets(self, path: str, query: Query | None = None) -> bytes:
        """Ask for a content, whole; at most 64 MiB.

        Raises:
            LinkDown, LinkRefused.
        """
        return await self._ask("GET", path, query=query)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(
        self, method: str, path: str, body: bytes | AsyncIterable[bytes] | None = None, *, query: Query | None = None,
        content_type: str | None = None, wait_seconds: float = 0.0,
    ) -> bytes:  # fmt: skip
        timeout = httpx.Timeout(self._answer_seconds + wait_seconds, connect=CONNECT_SECONDS)
        headers = {"Content-Type": content_type} if content_type else None
        try:
            async with self._http.stream(method, path, params=query, content=body, headers=headers, timeout=timeout) as answer:
                octets = await _read(answer)
                _judge(answer.status_code, octets)
                return octets
        except httpx.HTTPError as error:
            raise LinkDown(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        except (OSError, RuntimeError) as error:  # a closed client; a socket's path that is too long
            raise LinkDown(str(error)) from error


def _transport(address: LinkAddress) -> tuple[httpx.AsyncHTTPTransport, str]:
    limits = httpx.Limits(max_connections=8, max_keepalive_connections=2, keepalive_expiry=60.0)
    if address.url.startswith("unix:"):
        return httpx.AsyncHTTPTransport(uds=address.url.removeprefix("unix:"), limits=limits, trust_env=False), "http://link"
    if not address.url.startswith("https://"):
        raise ValueError(f"the console's address {address.url!r} is neither unix:PATH nor https://HOST:PORT")
    context = ssl.create_default_context(cafile=str(address.ca_file) if address.ca_file is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return httpx.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False), address.url.rstrip("/")


async def _read(answer: httpx.Response) -> bytes:
    parts: list[bytes] = []
    total = 0
    async for part in answer.aiter_bytes():
        total += len(part)
        if total > MAX_ANSWER_OCTETS:
            raise LinkDown(f"the answer is larger than {MAX_ANSWER_OCTETS} octets")
        parts.append(part)
    return b"".join(parts)


def _judge(status: int, body: bytes) -> None:
    if 200 <= status < 300:
        return
    text = body[:_SHOWN_OCTETS].decode("utf-8", "replace")
    why = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    if status >= 500 or status in _TRANSIENT or 300 <= status < 400:
        raise LinkDown(f"the console answered {status}: {why}")
    raise LinkRefused(status, why)


def _decode(octets: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(octets, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LinkDown(f"the answer is no {kind.__name__}: {error}") from error
