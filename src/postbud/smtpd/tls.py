"""Server-side TLS: contexts, the certificate that is made at first start, and its reload when the file changes.

TLS 1.2 with AEAD and ECDHE only, or TLS 1.3 (RFC 8997, 9325). Every listener has a context of its own, so that a session
ticket of one is worth nothing at another. Connections that exist keep the certificate they began with.
"""

import datetime
import os
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_SELF_SIGNED_DAYS = 3650


class ServerTls:
    """The certificate of this machine and the contexts made from it."""

    def __init__(self, certificate_file: Path, key_file: Path) -> None:
        """Read certificate and key. Raises `OSError` or `ssl.SSLError` when they cannot be used."""
        self.certificate_file = certificate_file
        self.key_file = key_file
        self._seen = self._stamp()
        self._spare: ssl.SSLContext | None = self._make()
        self._contexts: dict[str, ssl.SSLContext] = {}

    def context(self, listener: str) -> ssl.SSLContext:
        """Give the current context of one listener."""
        found = self._contexts.get(listener)
        if found is None:
            found, self._spare = self._spare or self._make(), None
            self._contexts[listener] = found
        return found

    def reload_if_changed(self) -> bool:
        """Use the files anew when they changed; tell whether they did.

        New connections get the new certificate, old ones live on.

        Raises:
            OSError, ssl.SSLError: The new files cannot be used (perhaps half written); the old certificate stays, and the
                next call tries again.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._spare = self._make()
        self._contexts = {}
        self._seen = stamp
        return True

    def expires_at(self) -> datetime.datetime:
        """Tell when the certificate ends, so that whoever starts us can warn; an expired one is served all the same."""
        return x509.load_pem_x509_certificate(self.certificate_file.read_bytes()).not_valid_after_utc

    def _stamp(self) -> tuple[int, ...]:
        stats = [path.stat() for path in (self.certificate_file, self.key_file)]
        return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_size, stat.st_ino))

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def make_self_signed(certificate_file: Path, key_file: Path, hostname: str, clock: Callable[[], datetime.datetime]) -> None:
    """Write a new RSA-2048 key (mode 0600) and a certificate for a host name, unless both files exist.

    RSA, because old printers know nothing else. Safe when several workers do it at once: whoever comes last finds the files.
    """
    if certificate_file.exists() and key_file.exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = clock()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(hostname)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(key_file, pem, 0o600)
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _names(hostname: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(hostname), x509.DNSName("localhost")]
    return [*names, x509.IPAddress(ip_address("127.0.0.1"))]


def _write(path: Path, octets: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
