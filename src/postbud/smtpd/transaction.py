"""One mail transaction: from an accepted MAIL to the end of its content. Holds values and the content's writer; does no I/O."""

from postbud.model.envelope import Client, Envelope, MailParameters, Recipient
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal
from postbud.smtpd.gate import ContentWriter


class Transaction:
    """What was said so far. The same recipient said twice is one recipient (row E9)."""

    __slots__ = ("_parameters", "_recipients", "_reverse_path", "client", "failed", "octets", "writer")

    def __init__(self, client: Client, reverse_path: Mailbox | None, parameters: MailParameters) -> None:
        self.client = client
        self._reverse_path = reverse_path
        self._parameters = parameters
        self._recipients: dict[Mailbox, Recipient] = {}
        self.writer: ContentWriter | None = None
        self.failed: Refusal | None = None  # why the content cannot be kept; said at its end
        self.octets = 0

    @property
    def recipients(self) -> int:
        """How many recipients there are."""
        return len(self._recipients)

    def has(self, recipient: Recipient) -> bool:
        """Tell whether the recipient is there already."""
        return recipient.mailbox in self._recipients

    def add(self, recipient: Recipient) -> None:
        """Take one more recipient."""
        self._recipients[recipient.mailbox] = recipient

    def envelope(self) -> Envelope:
        """Give the whole envelope."""
        said = self._parameters
        return Envelope(
            self._reverse_path, tuple(self._recipients.values()), said.body, said.smtputf8, said.require_tls, said.ret_full,
            said.envid, said.size,
        )  # fmt: skip

    def write(self, octets: bytes) -> None:
        """Keep octets of content, unless it failed before."""
        if self.writer is not None:
            self.octets += len(octets)
            self.writer.write(octets)

    def fail(self, refusal: Refusal) -> None:
        """Keep nothing more; the first reason counts."""
        self.failed = self.failed or refusal
        self.discard()

    def discard(self) -> None:
        """Throw the content away. Idempotent."""
        if self.writer is not None:
            self.writer.discard()
            self.writer = None
