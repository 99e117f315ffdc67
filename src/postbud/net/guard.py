"""Which addresses may be dialled when somebody else chose them (K7, SSRF): public unicast ones that are not our own.

Pure decisions on addresses; names are resolved elsewhere, and the very address that was judged is the one to dial.
Source: IANA special-purpose address registries (RFC 6890), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).
"""

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_PRIVATE_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_UNICAST_V6 = IPv6Network("2000::/3")
_PRIVATE_V6 = tuple(
    IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")  # Teredo is in the first
)
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_6TO4 = IPv6Network("2002::/16")


class Verdict(Enum):
    """What the guard says of an address."""

    ALLOWED = "allowed"
    PRIVATE = "private"
    OWN = "own"


class Guard:
    """Judges addresses."""

    def __init__(self, own: Iterable[str] = (), allowed: Iterable[IPv4Network | IPv6Network | str] = ()) -> None:
        """Take our own public addresses and the networks that may be dialled although they are private."""
        self._own = frozenset(ip_address(text) for text in own)
        self._allowed = tuple(ip_network(network) for network in allowed)

    def judge(self, text: str) -> Verdict:
        """Say whether an address may be dialled. Our own are never, except by the allow-list. No address at all is private."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return Verdict.PRIVATE
        inner = _embedded(address)
        if any(one in network for one in (address, inner) for network in self._allowed if one.version == network.version):
            return Verdict.ALLOWED
        if address in self._own or inner in self._own:
            return Verdict.OWN
        return Verdict.PRIVATE if "%" in text or _is_private(address, inner) else Verdict.ALLOWED


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Give the IPv4 address inside a mapped, compatible, NAT64 or 6to4 one; any other address as it is."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


def _is_private(address: IPv4Address | IPv6Address, inner: IPv4Address | IPv6Address) -> bool:
    if isinstance(inner, IPv4Address):
        if any(inner in network for network in _PRIVATE_V4):
            return True
        return isinstance(address, IPv6Address) and address not in _NAT64 and address not in _6TO4
    return inner not in _UNICAST_V6 or any(inner in network for network in _PRIVATE_V6)
