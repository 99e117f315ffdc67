"""The gate: what an SMTP session asks of those who judge and store, and nothing more.

`smtpd` speaks the protocol and knows no account, no policy and no spool; a gate knows no socket. There are two real gates:
`submission.accept.SubmissionGate` and `inbound.receive.InboundGate`. Everything is synchronous and takes microseconds,
except draining and finishing content and `accept`, which wait for the disk.
"""

from typing import Protocol

from postbud.model.content import Content
from postbud.model.envelope import Client, Envelope, MailParameters, Recipient
from postbud.model.mailbox import Mailbox


class Identity(Protocol):
    """Who signed in. Opaque to `smtpd` but for what it logs and how it reads content."""

    @property
    def account(self) -> str:
        """Account id, for logs."""

    @property
    def credential(self) -> str:
        """Credential id, for logs."""

    @property
    def normalise_line_ends(self) -> bool:
        """Whether a bare LF in content becomes CRLF instead of a refusal. It never ends content."""


class ContentWriter(Protocol):
    """Takes content as it arrives. `spool.content.ContentWriter` is the real one."""

    @property
    def needs_drain(self) -> bool:
        """Whether `drain` should be awaited before more is written."""

    def write(self, chunk: bytes) -> None:
        """Take octets; memory only, never waits."""

    async def drain(self) -> None:
        """Wait until what was written is out of memory. Raises `Refusal` (NO_SPACE)."""

    async def finish(self) -> Content:
        """Close and give the content. Raises `Refusal` (BAD_CONTENT, TOO_BIG, NO_SPACE)."""

    def discard(self) -> None:
        """Throw everything away. Idempotent; does nothing once the content was committed."""


class Gate(Protocol):
    """Decides who may send what, and takes it. Every method may raise `Refusal`; anything else it raises is a bug."""

    @property
    def requires_auth(self) -> bool:
        """True for submission: MAIL needs an identity, and AUTH is offered."""

    @property
    def size_limit_octets(self) -> int:
        """Largest content accepted; announced by SIZE."""

    @property
    def recipients_limit(self) -> int:
        """Most recipients of one transaction; announced by LIMITS RCPTMAX."""

    def authenticate(self, username: str, secret: bytes, client: Client) -> Identity:
        """Check a name and secret. Raises `Refusal` AUTH_FAILED, BLOCKED_AUTH or AUTH_BUSY."""

    def identify(self, client_address: str) -> Identity | None:
        """Give the network credential of an IP address, if any. Called only where a listener allows such credentials."""

    def check(self, identity: Identity | None) -> None:
        """Refuse who may not send now. Called at MAIL, RCPT, the end of data, and by the watch over idle sessions."""

    def mail(self, identity: Identity | None, client: Client, reverse_path: Mailbox | None, parameters: MailParameters) -> None:
        """Judge a reverse-path."""

    def rcpt(self, identity: Identity | None, client: Client, recipient: Recipient, earlier: int) -> None:
        """Judge a forward-path; `earlier` recipients of the transaction were accepted before."""

    def open_content(self) -> ContentWriter:
        """Give a writer for one content. Raises `Refusal` NO_SPACE."""

    async def accept(self, identity: Identity | None, client: Client, envelope: Envelope, content: Content) -> str:
        """Judge and store for good; when it returns, the message survives power loss. Give the queue id for the reply."""
