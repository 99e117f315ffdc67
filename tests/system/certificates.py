"""Certificates for sinks: an authority of the test's own and one certificate of it."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_certificate(folder: Path, names: tuple[str, ...] = ("mx.dest.example", "127.0.0.1")) -> tuple[Path, Path, Path]:
    """Make an authority and a certificate of it; give the paths of authority, certificate and key."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(2124, 1, 1, tzinfo=datetime.UTC)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def build(subject: str, key: ec.EllipticCurvePublicKey, number: int) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("Test authority")).public_key(key)
        return builder.serial_number(number).not_valid_before(start).not_valid_after(end)

    root = build("Test authority", authority.public_key(), 1).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    alternatives: list[x509.GeneralName] = []
    for one in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(one)))
        except ValueError:
            alternatives.append(x509.DNSName(one))
    leaf = build(names[0], own.public_key(), 2).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    paths = folder / "authority.pem", folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(root.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(leaf.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
