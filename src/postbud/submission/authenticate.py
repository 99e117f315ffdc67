"""Who is speaking: credentials, network credentials, and whether they may still send. Microseconds, no I/O.

The replies are the table of the design's policy page, s11.
"""

from collections.abc import Callable
from dataclasses import dataclass

from postbud.link.replica import Grant, Replica
from postbud.link.secret import PepperMissingError
from postbud.model.account import Status
from postbud.model.api_key import read_key
from postbud.model.ids import CredentialId
from postbud.model.refusal import Refusal, Why

MAX_SECRET_OCTETS = 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """A session's or request's authenticated credential. Rights are looked up anew each time; this only says who."""

    account: str
    server: str
    credential: str
    normalise_line_ends: bool
    by_network: bool = False


class Authenticator:
    """Answers by the replica as it is now."""

    def __init__(self, replica: Replica, clock: Callable[[], float]) -> None:
        """The clock tells whether a secret from before a rotation is still good."""
        self._replica = replica
        self._clock = clock

    def authenticate(self, username: str, secret: bytes) -> Identity:
        """Check a username and secret.

        Raises:
            Refusal: AUTH_FAILED (535 5.7.8) for an unknown name, a wrong secret or a revoked credential alike;
                BLOCKED_AUTH (525 5.7.13) for a blocked account or server whose secret was right; AUTH_BUSY (454 4.7.0) when
                nobody can tell, for the key that secrets are hashed with is missing here.
        """
        try:
            grant = self._replica.directory.authenticate(username, secret[:MAX_SECRET_OCTETS], self._clock())
        except PepperMissingError as error:
            raise cannot_tell(error) from error
        if grant is None or len(secret) > MAX_SECRET_OCTETS or grant.credential.status is Status.REVOKED:
            raise Refusal(Why.AUTH_FAILED, "Authentication credentials invalid", f"username {username!r}")
        if grant.status is Status.BLOCKED:
            raise Refusal(Why.BLOCKED_AUTH, blocked_text(grant), f"credential {grant.credential.id}", close=True)
        return identity_of(grant)

    def authenticate_key(self, text: str) -> Identity:
        """Check a key of the sending API.

        Raises:
            Refusal: AUTH_FAILED for what is no key, an unknown one and a wrong one alike; REVOKED; BLOCKED; AUTH_BUSY.
        """
        read = read_key(text)
        if read is None:
            raise Refusal(Why.AUTH_FAILED, "This is no valid API key", "malformed key")
        try:
            grant = self._replica.directory.authenticate_key(CredentialId(read[0]), read[1].encode("ascii"), self._clock())
        except PepperMissingError as error:
            raise cannot_tell(error) from error
        if grant is None:
            raise Refusal(Why.AUTH_FAILED, "This is no valid API key", f"key of {read[0]!r}")
        if grant.credential.status is Status.REVOKED:
            raise Refusal(Why.REVOKED, "This API key was revoked", f"credential {grant.credential.id}")
        if grant.status is Status.BLOCKED:
            raise Refusal(Why.BLOCKED, blocked_text(grant), f"credential {grant.credential.id}")
        return identity_of(grant)

    def identify(self, address: str) -> Identity | None:
        """Give the network credential of an address; None when there is none or it is revoked."""
        grant = self._replica.directory.identify(address)
        if grant is None or grant.credential.status is Status.REVOKED:
            return None
        return identity_of(grant, by_network=True)

    def grant(self, identity: Identity) -> Grant:
        """Give the grant as it is now.

        Raises:
            Refusal: REVOKED when the credential is gone or revoked, BLOCKED, PAUSED.
        """
        grant = self._replica.directory.grant(CredentialId(identity.credential))
        if grant is None or grant.credential.status is Status.REVOKED:
            raise Refusal(Why.REVOKED, "This credential was revoked", f"credential {identity.credential}", close=True)
        status = grant.status
        if status is Status.BLOCKED:
            raise Refusal(Why.BLOCKED, blocked_text(grant), f"credential {identity.credential}", close=True)
        if status is Status.PAUSED:
            raise Refusal(Why.PAUSED, "[PAUSED] sending is paused by its owner; try again later", identity.credential)
        return grant


def cannot_tell(error: PepperMissingError) -> Refusal:
    """Give the refusal of a secret that cannot be compared: in doubt, later."""
    return Refusal(Why.AUTH_BUSY, "Temporary authentication failure; try again later", str(error))


def identity_of(grant: Grant, *, by_network: bool = False) -> Identity:
    """Give the identity of a grant."""
    return Identity(grant.account.id, grant.server.id, grant.credential.id, grant.credential.normalise_line_ends, by_network)


def blocked_text(grant: Grant) -> str:
    """Give the public text of a block, with its case reference where there is one."""
    reference = f" ref={grant.account.block_reference}" if grant.account.block_reference else ""
    return f"[BLOCKED{reference}] sending from this account is blocked"
