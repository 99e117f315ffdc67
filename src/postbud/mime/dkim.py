"""DKIM signing: keys, what is signed, and the DKIM-Signature fields themselves (RFC 6376, 8301, 8463).

Signatures are relaxed/relaxed, cover the whole body (no `l=`), end (`x=`), and oversign the fields that readers and
replayers care for, so that a second one or a changed one breaks them (input G11). The body comes as its hash, made when
the content was accepted. Does not know where keys are kept, nor DNS. Verifying is in `verify`.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from postbud.mime.canonical import relaxed_field
from postbud.mime.header import split_fields

MIN_RSA_BITS = 1024  # RFC 8301 s3.2
GOOD_RSA_BITS = 2048

# signed as often as they are there, and once more, so that none can be added
OVERSIGNED = (
    b"from", b"to", b"cc", b"subject", b"date", b"reply-to", b"message-id", b"content-type", b"content-transfer-encoding",
    b"mime-version", b"list-id", b"list-unsubscribe", b"list-unsubscribe-post", b"list-help", b"list-post", b"list-owner",
    b"list-subscribe", b"list-archive",
)  # fmt: skip
# signed when they are there
SIGNED = (b"sender", b"in-reply-to", b"references", b"feedback-id", b"auto-submitted", b"tls-required")
_ALL = (*OVERSIGNED, *SIGNED)
_WANTED = frozenset(_ALL)
_FIELD = b"DKIM-Signature: v=1; a=%s; c=relaxed/relaxed;\r\n\td=%s; s=%s;\r\n\tt=%d; x=%d;\r\n\th=%s;\r\n\tbh=%s;\r\n\tb="
_PKCS1 = padding.PKCS1v15()
_SHA256 = hashes.SHA256()


class KeyProblem(ValueError):  # noqa: N818 (named for what it tells)
    """The key cannot sign; `why` says it without showing the key."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs. Make it with `load_key`."""

    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @property
    def algorithm(self) -> str:
        """The `a=` tag: rsa-sha256 or ed25519-sha256."""
        return "rsa-sha256" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519-sha256"

    @property
    def weak(self) -> bool:
        """Whether it is an RSA key below 2048 bits: it signs, and a person should hear of it."""
        return isinstance(self.private, rsa.RSAPrivateKey) and self.private.key_size < GOOD_RSA_BITS

    def sign(self, octets: bytes) -> bytes:
        """Sign octets as the algorithm asks (RFC 8463 s3: Ed25519 signs the SHA-256)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(octets, _PKCS1, _SHA256)
        return self.private.sign(hashlib.sha256(octets).digest())


@dataclass(frozen=True, slots=True)
class CanonicalHeader:
    """What a message's signatures share: the signed fields in relaxed form, and the folded `h=` list of their names."""

    octets: bytes
    names: bytes


def load_key(pem: bytes, *, checked: bool = False) -> SigningKey:
    """Read an unencrypted PEM private key: RSA of 1024 bits or more, or Ed25519.

    `checked`: somebody made sure of its numbers before (primes and all, 50 ms for an RSA key); they are taken as they are.

    Raises:
        KeyProblem: It is no such key.
    """
    try:
        private = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=checked)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyProblem("not an unencrypted PEM private key") from error
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < MIN_RSA_BITS:
            raise KeyProblem(f"RSA key of {private.key_size} bits, {MIN_RSA_BITS} are the least, {GOOD_RSA_BITS} are good")
        return SigningKey(private)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return SigningKey(private)
    raise KeyProblem("neither an RSA nor an Ed25519 key")


def public_record(key: SigningKey) -> str:
    """Give the TXT record that publishes the key (RFC 6376 s3.6.1, RFC 8463 s4)."""
    public = key.private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        kind, octets = "rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        kind, octets = "ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode('ascii')}"


def canonical_header(header: bytes) -> CanonicalHeader:
    """Choose the fields to sign and give them in relaxed form, in the order of their names in `h=`.

    Several fields of a name go from the last to the first (RFC 6376 s5.4.2).
    """
    found: dict[bytes, list[bytes]] = {}
    for raw in split_fields(header):
        name, _, body = raw.partition(b":")
        name = name.lower()
        if name in _WANTED:
            found.setdefault(name, []).append(relaxed_field(name, body))
    counts = tuple([len(found.get(name, ())) for name in _ALL])
    octets = b"".join([field for name in _ALL if name in found for field in reversed(found[name])])
    return CanonicalHeader(octets, _name_list(counts))


@lru_cache(maxsize=512)
def _name_list(counts: tuple[int, ...]) -> bytes:
    names: list[bytes] = []
    for index, (name, count) in enumerate(zip(_ALL, counts, strict=True)):
        names += [name] * (count + (index < len(OVERSIGNED)))
    lines = [b""]
    for name in names:
        if len(lines[-1]) + len(name) > 70:
            lines.append(b"")
        lines[-1] += name + b":"
    return b"\r\n\t".join(lines)[:-1]


def signature(
    canonical: CanonicalHeader, body_sha256: bytes, *, domain: str, selector: str, key: SigningKey, at: int, expires: int
) -> bytes:
    """Give one complete, folded DKIM-Signature field for a header whose canonical form is at hand."""
    field = (
        b"DKIM-Signature: v=1; a=%s; c=relaxed/relaxed;\r\n\td=%s; s=%s;\r\n\tt=%d; x=%d;\r\n\th=%s;\r\n\tbh=%s;\r\n\tb="
        % (
            key.algorithm.encode("ascii"),
            domain.encode("ascii"),
            selector.encode("ascii"),
            at,
            expires,
            canonical.names,
            binascii.b2a_base64(body_sha256, newline=False),
        )
    )
    signed = canonical.octets + relaxed_field(b"dkim-signature", field[15:])[:-2]
    value = binascii.b2a_base64(key.sign(signed), newline=False)
    first, rest = value[:70], [value[start : start + 72] for start in range(70, len(value), 72)]
    return field + b"\r\n\t".join([first, *rest]) + b"\r\n"


def sign(header: bytes, body_sha256: bytes, *, domain: str, selector: str, key: SigningKey, at: int, expires: int) -> bytes:
    """Sign a header section and the relaxed SHA-256 of its body: give a complete, folded DKIM-Signature field.

    `at` and `expires` are seconds since 1970 (`t=`, `x=`); `domain` is in A-labels.
    """
    canonical = canonical_header(header)
    return signature(canonical, body_sha256, domain=domain, selector=selector, key=key, at=at, expires=expires)


def sign_all(
    header: bytes, body_sha256: bytes, *, domain: str, keys: Sequence[tuple[str, SigningKey]], at: int, expires: int
) -> bytes:
    """Sign with several keys, given as (selector, key): give their DKIM-Signature fields, in that order, as one piece."""
    canonical = canonical_header(header)
    return b"".join(
        [
            signature(canonical, body_sha256, domain=domain, selector=selector, key=key, at=at, expires=expires)
            for selector, key in keys
        ]
    )
