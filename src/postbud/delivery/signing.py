"""Signing at the first attempt: DKIM fields over the stored header section and body hash, in a thread, then cached.

A missing or broken key holds the domain; nothing leaves unsigned, but for our own DSNs in a relay without a system key.
Signatures are remade when the selector is gone or less than a day of `x=` is left (design, §2).
"""

from collections.abc import Callable

import msgspec

from postbud.delivery.offload import Offload
from postbud.link.replica import Replica
from postbud.mime.dkim import KeyProblem, SigningKey, load_key, sign_all
from postbud.model.content import Content
from postbud.model.delivery import Message

EXPIRES_AFTER_SECONDS = 7 * 86400
_LEFT_AT_LEAST_SECONDS = 86400
_MAX_LOADED_KEYS = 4096


class KeyMissingError(Exception):
    """The domain has no usable key; its mail is held. The text says why, for the operator."""


class Signatures(msgspec.Struct, frozen=True):
    """The cache entry kept with the content."""

    fields: bytes
    expires_at: int
    domain: str
    selectors: tuple[str, ...]


def check_key(pem: bytes) -> str | None:
    """Tell what is wrong with a PKCS#8 PEM, None when it can sign."""
    try:
        load_key(pem)
    except KeyProblem as error:
        return str(error)
    return None


class Signer:
    """Gives the DKIM-Signature fields of a message."""

    def __init__(self, replica: Replica, offload: Offload, clock: Callable[[], float]) -> None:
        self._replica = replica
        self._offload = offload
        self._clock = clock
        self._loaded: dict[bytes, SigningKey] = {}

    def has_key(self, message: Message) -> bool:
        """Whether the message could be signed now."""
        try:
            self._keys(message)
        except KeyMissingError:
            return False
        return True

    async def sign(self, message: Message, content: Content, cached: bytes | None) -> tuple[bytes, bytes | None]:
        """Give the signature fields, and the cache entry when it is new.

        Raises:
            KeyMissingError: No key, or one that does not load.
        """
        if message.is_dsn and message.signing_domain is None:
            return b"", None
        domain, keys = self._keys(message)
        selectors = tuple(selector for selector, _ in keys)
        now = int(self._clock())
        if cached is not None:
            known = msgspec.msgpack.decode(cached, type=Signatures)
            if (known.domain, known.selectors) == (domain, selectors) and known.expires_at - now >= _LEFT_AT_LEAST_SECONDS:
                return known.fields, None
        expires_at = now + EXPIRES_AFTER_SECONDS
        fields = await self._offload.run(
            lambda: sign_all(content.header, content.facts.sha256_relaxed, domain=domain, keys=keys, at=now, expires=expires_at)
        )
        return fields, msgspec.msgpack.encode(Signatures(fields, expires_at, domain, selectors))

    def _keys(self, message: Message) -> tuple[str, list[tuple[str, SigningKey]]]:
        """Give d= and the keys, both as the directory is now: a deeper domain may have been verified since."""
        domain = self._replica.directory.covering(message.account, message.from_domain)
        if domain is None or not domain.keys:
            raise KeyMissingError(f"no key for {message.from_domain}")
        keys = []
        for key in domain.keys:
            if key.pem is None:
                raise KeyMissingError(f"key {key.selector} of {domain.name}: {key.problem}")
            keys.append((key.selector, self._load(key.pem, key.selector)))
        return domain.name, keys

    def _load(self, pem: bytes, selector: str) -> SigningKey:
        loaded = self._loaded.get(pem)
        if loaded is None:
            try:
                loaded = load_key(pem, checked=True)  # when the directory was read, or by whoever made and sealed it
            except KeyProblem as error:
                raise KeyMissingError(f"key {selector}: {error}") from error
            if len(self._loaded) >= _MAX_LOADED_KEYS:
                self._loaded.clear()
            self._loaded[pem] = loaded
        return loaded
