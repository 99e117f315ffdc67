"""TLS contexts of the client side, made once, and what a finished handshake is called in logs.

RFC 3207, 7435 (opportunistic: any TLS beats none), 8689, 8997 (TLS 1.2 or later where TLS is a promise).
"""

import ssl
from pathlib import Path

HANDSHAKE_ERRORS = (ssl.SSLError, ConnectionError, TimeoutError, OSError)


class Contexts:
    """Owns the contexts: one that takes any certificate, one checked by authority file."""

    def __init__(self, ca_file: Path | None = None) -> None:
        """Take the authorities for peers without a route of their own; None: the system's."""
        self._ca_file = ca_file
        self._checked: dict[Path | None, ssl.SSLContext] = {}
        self._any: ssl.SSLContext | None = None

    def unchecked(self) -> ssl.SSLContext:
        """Give the context that tolerates every certificate, and old servers."""
        if self._any is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            self._any = context
        return self._any

    def unchecked_strict(self) -> ssl.SSLContext:
        """Give a context for a route that must have TLS, but said `verify = false`: TLS 1.2 or later, any certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def checked(self, ca_file: Path | None = None) -> ssl.SSLContext:
        """Give the context that demands a valid certificate for the host.

        Raises:
            OSError: The authority file cannot be read.
        """
        chosen = ca_file or self._ca_file
        context = self._checked.get(chosen)
        if context is None:
            context = ssl.create_default_context(cafile=str(chosen) if chosen else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._checked[chosen] = context
        return context


def describe(connection: ssl.SSLObject, *, verified: bool) -> str:
    """Name what was negotiated: `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`."""
    cipher = connection.cipher()
    return f"{connection.version()} {cipher[0] if cipher else '?'} {'verified' if verified else 'unverified'}"
