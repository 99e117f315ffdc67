"""Which DNS records a domain of an account should have, and how they are written down. Pure; asks nobody.

The proof is a TXT record of the account's own, so several accounts can prove one domain beside each other. The return path is a
name below the domain that leads to our bounce host, so that SPF counts for the customer's domain. RFC 1035 s5.1 (zone files),
6376 s3.6.2.1, 7208, 9989.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

PROOF_LABEL = "_postbud"
PROOF_PREFIX = "postbud-verification="
RETURN_LABEL = "pbr"  # of the return path: `pbr.<domain>` leads to our bounce host
_PROOF_LETTERS = 32
_STRING_OCTETS = 255
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
# what the names of a provider's servers end in, and its name
_PROVIDERS = (
    ("cloudflare.com", "Cloudflare"),
    ("domaincontrol.com", "GoDaddy"),
    ("registrar-servers.com", "Namecheap"),
    ("googledomains.com", "Google"),
    ("azure-dns.com", "Microsoft Azure"),
    ("azure-dns.net", "Microsoft Azure"),
    ("azure-dns.org", "Microsoft Azure"),
    ("azure-dns.info", "Microsoft Azure"),
    ("gandi.net", "Gandi"),
    ("ovh.net", "OVH"),
    ("ui-dns.com", "IONOS"),
    ("ui-dns.de", "IONOS"),
    ("hetzner.com", "Hetzner"),
    ("one.com", "one.com"),
    ("simply.com", "Simply.com"),
    ("gratisdns.dk", "GratisDNS"),
    ("dandomain.dk", "DanDomain"),
    ("digitalocean.com", "DigitalOcean"),
    ("squarespacedns.com", "Squarespace"),
    ("wixdns.net", "Wix"),
    ("name-services.com", "Enom"),
)


class Purpose(Enum):
    """What a record is for."""

    PROOF = "proof"
    DKIM = "dkim"
    RETURN_PATH = "return_path"
    DMARC = "dmarc"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One record. `name`, and a CNAME's `value`, are whole, without the final dot. Mail may come once all `needed` are seen."""

    purpose: Purpose
    name: str
    type: str
    value: str
    needed: bool
    selector: str = ""
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """What of a DKIM key is public."""

    selector: str
    algorithm: str
    public_record: str


def proof_of(secret: bytes, account: str, domain: str) -> str:
    """Give the value of an account's proof for a domain: the same for ever, and nobody else's."""
    digest = hmac.digest(secret, f"proof\0{account}\0{domain}".encode(), "sha256")
    letters = "".join(_LETTERS[octet & 31] for octet in digest)
    return PROOF_PREFIX + letters[:_PROOF_LETTERS]


def wanted_records(domain: str, proof: str, keys: Iterable[Key], bounce_domain: str) -> list[Wanted]:
    """Give the records that a domain should have, most important first."""
    records = [Wanted(Purpose.PROOF, f"{PROOF_LABEL}.{domain}", "TXT", proof, needed=True)]
    for key in keys:
        name = f"{key.selector}._domainkey.{domain}"
        needed = key.algorithm == "rsa-sha256"  # which every receiver knows
        records.append(Wanted(Purpose.DKIM, name, "TXT", key.public_record, needed, key.selector, key.algorithm))
    if bounce_domain:
        records.append(Wanted(Purpose.RETURN_PATH, f"{RETURN_LABEL}.{domain}", "CNAME", bounce_domain, needed=False))
    records.append(Wanted(Purpose.DMARC, f"_dmarc.{domain}", "TXT", "v=DMARC1; p=none", needed=False))
    return records


def zone_file(records: Sequence[Wanted]) -> str:
    """Write records as lines of a zone file; long texts in several strings."""
    lines = []
    for record in records:
        if record.type == "TXT":
            octets = record.value
            parts = [octets[start : start + _STRING_OCTETS] for start in range(0, len(octets), _STRING_OCTETS)]
            quoted = (f'"{part.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"' for part in parts)
            value = " ".join(quoted)
            value = f"( {value} )" if len(parts) > 1 else value
        else:
            value = f"{record.value}."
        lines.append(f"{record.name}. 3600 IN {record.type} {value}")
    return "\n".join(lines) + "\n"


def relative_name(name: str, zone: str) -> str:
    """Give a name as most providers' forms want it: without the zone; "@" for the zone itself."""
    if name == zone:
        return "@"
    return name.removesuffix(f".{zone}") if zone else name


def provider_of(hosts: Iterable[str]) -> str:
    """Guess who runs a zone's name servers; empty when nobody known."""
    for host in hosts:
        for suffix, name in _PROVIDERS:
            if host == suffix or host.endswith(f".{suffix}"):
                return name
        if "awsdns" in host:
            return "Amazon Route 53"
    return ""
