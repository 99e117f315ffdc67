"""The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020): who is really there, told by a load balancer.

Read octet for octet from the plain socket before any transport exists, so that not one octet of what follows (a TLS
ClientHello, perhaps) is taken along. Only peers on a listener's allow-list are asked; from anybody else it is a bad command.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

_V1_MAX = 107
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_MAX = 2_048  # of addresses and TLVs; ours are small
_SHORTEST = 15  # "PROXY UNKNOWN\r\n"; a version 2 header has at least 16

Read = Callable[[int], Awaitable[bytes]]


class ProxyError(Exception):
    """The header is malformed or incomplete: close without a word."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Address and port of the client behind the proxy."""

    address: str
    port: int


async def read_from_socket(peer: socket.socket) -> Origin | None:
    """Read a header from a non-blocking socket. Raises `ProxyError`, `OSError`."""
    loop = asyncio.get_running_loop()

    async def read(count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            piece = await loop.sock_recv(peer, count - len(octets))
            if not piece:
                raise ProxyError("closed within the header")
            octets += piece
        return octets

    return await read_header(read)


async def read_header(read: Read) -> Origin | None:
    """Read exactly one header; None when the proxy speaks for itself (LOCAL, UNKNOWN). Raises `ProxyError`."""
    head = await read(_SHORTEST)
    if head.startswith(_V2_SIGNATURE):
        head += await read(1)
        length = int.from_bytes(head[14:16], "big")
        if length > _V2_MAX:
            raise ProxyError("header is too long")
        return parse_v2(head[12], head[13], await read(length))
    if not head.startswith(b"PROXY "):
        raise ProxyError("no header")
    while not head.endswith(b"\r\n"):
        if len(head) >= _V1_MAX:
            raise ProxyError("header is too long")
        head += await read(1)
    return parse_v1(head[:-2])


def parse_v1(line: bytes) -> Origin | None:
    """Parse a header line without CRLF. Raises `ProxyError`."""
    words = line.split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"}:
        raise ProxyError("malformed")
    try:
        kind = IPv4Address if words[1] == b"TCP4" else IPv6Address
        source, _ = (str(kind(word.decode("ascii"))) for word in words[2:4])
        port, _ = (_port(word) for word in words[4:6])
    except ValueError as error:
        raise ProxyError("malformed") from error
    return Origin(source, port)


def parse_v2(version_and_command: int, family: int, rest: bytes) -> Origin | None:
    """Parse what follows the signature of version 2; `rest` holds addresses and TLVs. Raises `ProxyError`."""
    if version_and_command >> 4 != 2 or version_and_command & 15 > 1:
        raise ProxyError("unknown version or command")
    if version_and_command & 15 == 0:
        return None
    if family == 0x11 and len(rest) >= 12:
        return Origin(str(IPv4Address(rest[:4])), int.from_bytes(rest[8:10], "big"))
    if family == 0x21 and len(rest) >= 36:
        return Origin(str(IPv6Address(rest[:16])), int.from_bytes(rest[32:34], "big"))
    if family == 0:
        return None
    raise ProxyError("not TCP, or too short")


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or int(word) > 65_535:
        raise ValueError("no port")
    return int(word)
