"""The desk: hands what came over HTTP to the gate that SMTP hands to, once for each Idempotency-Key.

Owns the order of the gate's questions (status, reverse-path, recipients, content) and who answers a key: each belongs to one
worker by its hash, and other workers hand the parcel over. The first parcel of a key holds it while it is judged; those that
come meanwhile wait for its answer (input I5). An answer is kept for a day in the commit of its message, so that a retry after a
crash hears the first id (fault 10). What was refused is not remembered: it may be mended, or accepted later.
"""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from postbud.httpd.forms import Taken, TakenRecipient
from postbud.httpd.problem import Code, FieldError, Problem, problem, problem_of
from postbud.httpd.settings import ANSWERS_KEPT_SECONDS, ApiCounters
from postbud.model.content import BodyFacts, Content
from postbud.model.envelope import NO_PARAMETERS, Client, Envelope, Recipient
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from postbud.spool.sqlite import Spool
from postbud.spool.values import Answer
from postbud.submission.accept import Accepted, SubmissionGate
from postbud.submission.authenticate import Identity
from postbud.submission.context import SubmissionContext

KEY_OCTETS = 16


class Parcel(msgspec.Struct, frozen=True):
    """A submission that is whole: who, from where, the envelope, the content, and what was said beside it."""

    identity: Identity
    client: Client
    reverse_path: Mailbox
    recipients: tuple[Mailbox, ...]
    places: tuple[str, ...]
    smtputf8: bool
    header: bytes
    body: bytes
    body_file: str  # when the body is in a file
    facts: BodyFacts
    said: SubmissionContext
    key: bytes = b""  # of the Idempotency-Key; empty: none was given
    request: bytes = b""  # hash of the request, which a key belongs to

    @property
    def content(self) -> Content:
        """The content."""
        return Content(self.header, Path(self.body_file) if self.body_file else self.body, self.facts)


class Kept(msgspec.Struct, frozen=True):
    """What the spool keeps of an answer."""

    request: bytes
    taken: Taken


class Handed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The owner's answer to a parcel that another worker handed over: taken, or a no."""

    taken: Taken | None = None
    replayed: bool = False
    status: int = 0
    code: str = ""
    title: str = ""
    detail: str = ""
    errors: list[FieldError] = []
    headers: dict[str, str] = {}


@dataclass(slots=True)
class _UnderWay:
    request: bytes
    answer: "asyncio.Future[Taken]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Peers:
    """The other workers of this node. `ask` asks one; `ask_all` all others, `{"silent": true}` for each without an answer."""

    worker: int
    workers: int
    ask: Callable[[int, dict[str, Any]], Awaitable[dict[str, Any]]]
    ask_all: Callable[[dict[str, Any]], Awaitable[list[dict[str, Any]]]]


class Desk:
    """Takes parcels."""

    def __init__(
        self, gate: SubmissionGate, spool: Spool, peers: Peers, counters: ApiCounters, clock: Callable[[], float]
    ) -> None:
        self._gate = gate
        self._spool = spool
        self._peers = peers
        self._counters = counters
        self._clock = clock
        self.moved_at = 0.0  # when the number of workers changed: keys from before may be another worker's
        self._under_way: dict[bytes, _UnderWay] = {}

    async def take(self, parcel: Parcel) -> tuple[Taken, bool]:
        """Give what became of a parcel, and whether that had been answered before.

        Raises:
            Problem: It was refused, or its key belongs to another request.
            Refusal: The same, not yet translated.
        """
        if not parcel.key:
            return await self._submit(parcel), False
        owner = int.from_bytes(parcel.key[:8], "big") % self._peers.workers
        if owner == self._peers.worker:
            return await self._take_once(parcel)
        return await self._hand_over(owner, parcel)

    async def take_from_peer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a parcel that another worker handed over."""
        parcel = msgspec.convert(request["parcel"], Parcel)
        try:
            taken, replayed = await self._take_once(parcel)
        except Refusal as refusal:
            no = problem_of(refusal)
        except Problem as found:
            no = found
        else:
            return {"handed": msgspec.to_builtins(Handed(taken, replayed))}
        handed = Handed(
            status=no.status, code=no.code, title=no.title, detail=no.detail, errors=list(no.errors), headers=no.headers
        )
        return {"handed": msgspec.to_builtins(handed)}

    async def answer_to_peer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tell another worker what a key was answered here."""
        known = await self._spool.answer(base64.b64decode(request["key"]), self._clock() - ANSWERS_KEPT_SECONDS)
        return {"known": base64.b64encode(known).decode() if known is not None else ""}

    async def forget_old(self) -> None:
        """Forget answers that are too old."""
        await self._spool.forget_answers(self._clock() - ANSWERS_KEPT_SECONDS)

    # -- once for each key -------------------------------------------------------------------------------------------------

    async def _take_once(self, parcel: Parcel) -> tuple[Taken, bool]:
        held = self._under_way.get(parcel.key)
        if held is not None:
            _refuse_other(held.request, parcel)
            taken = await asyncio.shield(held.answer)
            self._counters.replayed += 1
            return taken, True
        held = self._under_way[parcel.key] = _UnderWay(parcel.request)
        held.answer.add_done_callback(_heard)
        try:
            known = await self._recall(parcel)
            taken = known or await self._submit(parcel)
        except BaseException as error:
            held.answer.set_exception(error if isinstance(error, Exception) else _interrupted())
            raise
        finally:
            del self._under_way[parcel.key]
        held.answer.set_result(taken)
        self._counters.replayed += known is not None
        return taken, known is not None

    async def _recall(self, parcel: Parcel) -> Taken | None:
        after = self._clock() - ANSWERS_KEPT_SECONDS
        found = await self._spool.answer(parcel.key, after)
        if found is None and self._peers.workers > 1 and self.moved_at > after:
            key = base64.b64encode(parcel.key).decode()
            answers = await self._peers.ask_all({"op": "api_answer", "key": key})
            said = next((answer["known"] for answer in answers if answer.get("known")), "")
            found = base64.b64decode(said) or None
            if found is None and any(answer.get("silent") for answer in answers):
                raise Refusal(Why.TEMPORARY, "Trouble on our side, try again later", "a worker that may know the key is silent")
        if found is None:
            return None
        kept = msgspec.msgpack.decode(found, type=Kept)
        _refuse_other(kept.request, parcel)
        return kept.taken

    async def _hand_over(self, owner: int, parcel: Parcel) -> tuple[Taken, bool]:
        self._counters.forwarded += 1
        try:
            answer = await self._peers.ask(owner, {"op": "api_take", "parcel": msgspec.to_builtins(parcel)})
        except (OSError, TimeoutError) as error:  # it may have been taken there: a retry with the key hears it
            raise Refusal(Why.TEMPORARY, "Trouble on our side, try again later", f"worker {owner}: {error!r}") from error
        if "handed" not in answer:
            raise Refusal(Why.TEMPORARY, "Trouble on our side, try again later", f"worker {owner}: {answer.get('error')}")
        handed = msgspec.convert(answer["handed"], Handed)
        if handed.taken is not None:
            return handed.taken, handed.replayed
        raise Problem(handed.status, handed.code, handed.title, handed.detail, handed.errors, handed.headers)

    # -- the gate's questions, in their order ------------------------------------------------------------------------------

    async def _submit(self, parcel: Parcel) -> Taken:
        gate, identity, client = self._gate, parcel.identity, parcel.client
        gate.check(identity)
        envelope = Envelope(parcel.reverse_path, tuple(map(Recipient, parcel.recipients)), smtputf8=parcel.smtputf8)
        gate.mail(identity, client, parcel.reverse_path, NO_PARAMETERS)
        self._ask_recipients(parcel, envelope)
        content = parcel.content
        if content.octets > gate.size_limit_octets:
            raise Refusal(Why.TOO_BIG, f"the message is larger than {gate.size_limit_octets} octets")
        accepted = await gate.submit(
            identity, client, envelope, content, said=parcel.said, memo=self._memo(parcel) if parcel.key else None
        )
        counters = self._counters
        counters.messages_accepted += 1
        counters.recipients_accepted += len(accepted.deliveries)
        counters.octets_accepted += content.octets
        return taken_as(accepted)

    def _ask_recipients(self, parcel: Parcel, envelope: Envelope) -> None:
        """Ask for each recipient; one that may not be mailed refuses the whole request, which names them all."""
        first: Refusal | None = None
        errors: list[FieldError] = []
        for earlier, recipient in enumerate(envelope.recipients):
            try:
                self._gate.rcpt(parcel.identity, parcel.client, recipient, earlier)
            except Refusal as refusal:
                first = first or refusal
                errors.append(FieldError(parcel.places[earlier], refusal.public))
                if refusal.why is Why.TOO_MANY_RECIPIENTS:
                    break
        if first is not None:
            self._counters.refusals[first.why] += 1
            raise problem_of(first, errors)

    def _memo(self, parcel: Parcel) -> Callable[[Accepted], Answer]:
        def remember(accepted: Accepted) -> Answer:
            kept = Kept(parcel.request, taken_as(accepted))
            return Answer(parcel.key, accepted.at.timestamp(), msgspec.msgpack.encode(kept))

        return remember


def key_of(server: str, text: str) -> bytes:
    """Give the form in which an Idempotency-Key is kept: another server's key is another key."""
    return hashlib.blake2b(f"{server}\0{text}".encode(), digest_size=KEY_OCTETS).digest()


def taken_as(accepted: Accepted) -> Taken:
    """Give the answer to an accepted message."""
    return Taken(accepted.message, accepted.at, [TakenRecipient(*delivery) for delivery in accepted.deliveries])


def _refuse_other(request: bytes, parcel: Parcel) -> None:
    if request != parcel.request:
        raise problem(Code.IDEMPOTENCY_CONFLICT, "this Idempotency-Key was used for a request with another body; use a new one")


def _heard(answer: "asyncio.Future[Taken]") -> None:
    answer.exception()  # who waits hears it; if nobody does, it was told to the first


def _interrupted() -> Refusal:
    return Refusal(Why.TEMPORARY, "Trouble on our side, try again later", "the first request with this key was ended")
