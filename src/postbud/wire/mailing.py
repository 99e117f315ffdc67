"""One mail transaction of the client, sans-IO: which commands, what after which reply, what became of each recipient.

Knows no sockets and no TLS. Failure has the scope of its stage: MAIL, DATA and the final dot are about the message, RCPT is
about the recipient, 421 is about the site. 4yz and 5yz are told by the first digit. RFC 5321, 1870, 2920, 3461, 6152, 6531,
8689, 9422.
"""

from enum import Enum

from postbud.model.outcome import Bounced, Deferred, Delivered, Outcome, Peer, Reply, Scope
from postbud.wire.client import Stage
from postbud.wire.extensions import Extensions
from postbud.wire.transaction import RecipientLine, Transaction

_SYNTAX_CODES = frozenset({500, 501, 502, 503, 504, 555})


class Step(Enum):
    """What is to be done next."""

    WAIT = "wait"  # for further replies
    SEND = "send"  # the octets of `take`
    CONTENT = "content"  # send the content and its final dot
    EMPTY = "empty"  # nobody was accepted, yet the peer waits for content: send the final dot alone (RFC 2920 s3.1)
    DONE = "done"


class Mailing:
    """One MAIL with its RCPTs, of recipients that are part of a transaction."""

    def __init__(self, transaction: Transaction, recipients: tuple[RecipientLine, ...], offered: Extensions) -> None:
        self._transaction = transaction
        self._recipients = recipients
        self._offered = offered
        self._pipelined = offered.pipelining
        self._mail: Reply | None = None
        self._rcpts: list[Reply] = []
        self._data: Reply | None = None
        self._end: Reply | None = None
        self._next: tuple[bytes, tuple[Stage, ...]] = (b"", ())

    # -- talking ---------------------------------------------------------------------------------------------------------

    def begin(self) -> tuple[bytes, tuple[Stage, ...]]:
        """Give the first octets and the stages that they ask for: everything up to DATA when the peer offers PIPELINING."""
        mail = mail_line(self._transaction, self._offered)
        if not self._pipelined:
            return mail, (Stage.MAIL,)
        lines = [mail, *(rcpt_line(one, self._offered) for one in self._recipients), b"DATA\r\n"]
        return b"".join(lines), (Stage.MAIL, *(Stage.RCPT,) * len(self._recipients), Stage.DATA)

    def take(self) -> tuple[bytes, tuple[Stage, ...]]:
        """Give what `Step.SEND` announced."""
        return self._next

    def answered(self, stage: Stage, reply: Reply) -> Step:
        """Take a reply; say what is next."""
        if stage is Stage.MAIL:
            self._mail = reply
            return Step.WAIT if self._pipelined else self._after_mail(reply)
        if stage is Stage.RCPT:
            self._rcpts.append(reply)
            return Step.WAIT if self._pipelined else self._after_rcpt()
        if stage is Stage.DATA:
            self._data = reply
            if reply.code >= 400:
                return Step.DONE
            return Step.CONTENT if self.accepted else Step.EMPTY
        self._end = reply
        return Step.DONE

    def _after_mail(self, reply: Reply) -> Step:
        if reply.code >= 400:
            return Step.DONE
        self._next = rcpt_line(self._recipients[0], self._offered), (Stage.RCPT,)
        return Step.SEND

    def _after_rcpt(self) -> Step:
        said = len(self._rcpts)
        if said < len(self._recipients) and self._rcpts[-1].code != 421:
            self._next = rcpt_line(self._recipients[said], self._offered), (Stage.RCPT,)
            return Step.SEND
        if not self.accepted:
            return Step.DONE
        self._next = b"DATA\r\n", (Stage.DATA,)
        return Step.SEND

    # -- results -----------------------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        """How many recipients the peer took."""
        if self._mail is None or self._mail.code >= 400:
            return 0
        return sum(reply.code < 300 for reply in self._rcpts)

    @property
    def complete(self) -> bool:
        """Whether the final dot was answered; otherwise the peer may hold a begun transaction, which RSET ends."""
        return self._end is not None

    @property
    def delivered(self) -> bool:
        """Whether the peer took the content."""
        return self._end is not None and self._end.code < 300 and bool(self.accepted)

    @property
    def all_delivered(self) -> bool:
        """Whether the peer took it for everybody."""
        return self.delivered and self.accepted == len(self._recipients)

    @property
    def unheard(self) -> bool:
        """Whether the peer said nothing to it, or only that it closes (421)."""
        return self._mail is None or self._mail.code == 421

    def fallback(self) -> Extensions | None:
        """Give a smaller offer to try once more with, when the peer refused the use of what it offered (row 45).

        Only where nothing was delivered and nothing is lost by it: parameters that the message needs stay.
        """
        if self._mail is None or self.accepted:
            return None
        if self._mail.code >= 400:
            droppable: list[str] = [word for word in ("SIZE", "DSN") if word in self._offered.words]
            if not self._transaction.eight_bit and "8BITMIME" in self._offered.words:
                droppable.append("8BITMIME")
            return self._offered.without(*droppable) if self._mail.code in _SYNTAX_CODES and droppable else None
        replies = [*self._rcpts, *([self._data] if self._data else [])]
        refused = any(reply.code in _SYNTAX_CODES for reply in replies)
        if refused and self._pipelined:
            return self._offered.without("PIPELINING")
        if refused and "DSN" in self._offered.words:
            return self._offered.without("DSN")
        return None

    def too_many(self) -> list[int]:
        """Give the places of recipients that were only too many for one transaction (452, RFC 5321 s4.5.3.1.10), or too fast.

        503 says that a command came out of turn, and nothing of its recipient: some peers offer PIPELINING and cannot (row 45).
        """
        if not self.accepted:
            return []
        return [
            at
            for at, reply in enumerate(self._rcpts)
            if (reply.code == 452 and reply.enhanced in (None, "4.5.3")) or (reply.code == 503 and self._pipelined)
        ]

    def outcomes(self, peer: Peer, transcript: str) -> list[Outcome]:
        """Say what became of each recipient, after `Step.DONE` at the end of a whole transaction."""
        return [self._outcome(at, peer, transcript) for at in range(len(self._recipients))]

    def _outcome(self, at: int, peer: Peer, transcript: str) -> Outcome:
        stage, reply = self._decisive(at)
        if stage is Stage.END and reply.code < 300:
            return Delivered(reply, peer, dsn_relayed="DSN" in self._offered.words)
        return failure(stage, reply, peer, transcript)

    def interrupted(self, cause: Deferred) -> list[Outcome]:
        """Say what became of each recipient when the session broke: what was answered stands, the rest is deferred."""
        outcomes: list[Outcome] = []
        for at in range(len(self._recipients)):
            refusal = self._refusal(at)
            outcomes.append(failure(*refusal, cause.peer, cause.transcript) if refusal else cause)
        return outcomes

    def _refusal(self, at: int) -> tuple[Stage, Reply] | None:
        if self._mail is not None and self._mail.code >= 400:
            return Stage.MAIL, self._mail
        if at < len(self._rcpts) and self._rcpts[at].code >= 400:
            return Stage.RCPT, self._rcpts[at]
        return None

    def _decisive(self, at: int) -> tuple[Stage, Reply]:
        refusal = self._refusal(at)
        if refusal is not None:
            return refusal
        if at >= len(self._rcpts):  # lock-step ended early: a 421 came at an earlier RCPT
            return Stage.RCPT, self._rcpts[-1]
        if self._end is not None:
            return Stage.END, self._end
        assert self._data is not None  # an accepted recipient leads to DATA
        return Stage.DATA, self._data


def failure(stage: Stage, reply: Reply, peer: Peer, transcript: str) -> Deferred | Bounced:
    """Give the outcome of a 4yz or 5yz reply: by its first digit, with the scope of its stage.

    What a peer says for good before MAIL is about the site, not about the mail, and is deferred.
    """
    scope = _SCOPES.get(stage, Scope.SITE)
    if reply.code == 421:
        scope = Scope.SITE
    why = f"{peer.host or peer.address} said to {stage.title}: {reply.text}"
    if reply.code >= 500 and scope is not Scope.SITE:
        return Bounced(why, reply.enhanced or _DEFAULT_STATUS[scope].replace("4", "5", 1), scope, reply, peer, transcript)
    enhanced = reply.enhanced or _DEFAULT_STATUS[scope]
    return Deferred(why, "4" + enhanced[1:], scope, reply, peer, transcript)


_SCOPES = {
    Stage.MAIL: Scope.MESSAGE,
    Stage.RCPT: Scope.RECIPIENT,
    Stage.DATA: Scope.MESSAGE,
    Stage.END: Scope.MESSAGE,
}
_DEFAULT_STATUS = {Scope.SITE: "4.3.2", Scope.MESSAGE: "4.0.0", Scope.RECIPIENT: "4.0.0"}


# -- lines -----------------------------------------------------------------------------------------------------------------


def mail_line(transaction: Transaction, offered: Extensions) -> bytes:
    """Write MAIL with the parameters that the peer knows."""
    words = offered.words
    line = f"MAIL FROM:<{transaction.reverse_path}>"
    if "SIZE" in words:
        line += f" SIZE={transaction.octets}"
    if transaction.eight_bit and "8BITMIME" in words:
        line += " BODY=8BITMIME"
    if transaction.smtputf8:
        line += " SMTPUTF8"
    if transaction.require_tls and "REQUIRETLS" in words:
        line += " REQUIRETLS"
    if "DSN" in words:
        if transaction.ret_full is not None:
            line += " RET=FULL" if transaction.ret_full else " RET=HDRS"
        if transaction.envid is not None:
            line += f" ENVID={xtext(transaction.envid)}"
    return line.encode() + b"\r\n"


def rcpt_line(recipient: RecipientLine, offered: Extensions) -> bytes:
    """Write RCPT with the parameters that the peer knows."""
    line = f"RCPT TO:<{recipient.mailbox}>"
    if "DSN" in offered.words:
        if recipient.notify.said:
            line += f" NOTIFY={recipient.notify.words}"
        if recipient.orcpt is not None:
            kind, _, address = recipient.orcpt.partition(";")
            line += f" ORCPT={kind};{xtext(address)}"
    return line.encode() + b"\r\n"


def xtext(text: str) -> str:
    """Encode as xtext, RFC 3461 s4: printable ASCII but `+` and `=` as it is, all else as +XX."""
    return "".join(chr(octet) if 33 <= octet <= 126 and octet not in (43, 61) else f"+{octet:02X}" for octet in text.encode())


def obstacle(transaction: Transaction, offered: Extensions) -> tuple[str, str] | None:
    """Say why a message cannot go to a peer with this offer, as (why, enhanced status 5.x.x); None: it can.

    RFC 1870 s6.1 (5.3.4), RFC 6152 (5.6.3), RFC 6531 s3.5 (5.6.7), RFC 5321 s4.5.3.1 for LIMITS.
    """
    if offered.size_octets is not None and transaction.octets > offered.size_octets:
        return f"message of {transaction.octets} octets is larger than the next hop takes ({offered.size_octets})", "5.3.4"
    if transaction.smtputf8 and "SMTPUTF8" not in offered.words:
        return "message needs SMTPUTF8, which the next hop does not offer", "5.6.7"
    if transaction.eight_bit and "8BITMIME" not in offered.words:
        return "message has 8-bit content, and the next hop does not offer 8BITMIME", "5.6.3"
    return None


def split(places: list[int], transaction: Transaction, offered: Extensions, limit: int) -> list[int]:
    """Give the places of the recipients that go into the next transaction: RCPTMAX and RCPTDOMAINMAX are kept (RFC 9422)."""
    room = min(offered.limits.get("RCPTMAX", limit), limit)
    domains_room = offered.limits.get("RCPTDOMAINMAX")
    if domains_room is None:
        return places[:room]
    chosen: list[int] = []
    domains: set[str] = set()
    for at in places:
        domain = transaction.recipients[at].mailbox.rpartition("@")[2].lower()
        if len(chosen) < room and (domain in domains or len(domains) < domains_room):
            domains.add(domain)
            chosen.append(at)
    return chosen
