"""Fuzz the client's reader and session: no exception, segments make no difference, texts are safe and bounded."""

import sys

import atheris

with atheris.instrument_imports(include=["postbud.wire"]):
    from postbud.model.outcome import Peer, Reply
    from postbud.wire.client import TRANSCRIPT_OCTETS, Client, Stage
    from postbud.wire.extensions import Extensions
    from postbud.wire.mailing import Mailing, Step
    from postbud.wire.reply import MAX_LINES, ReplyError
    from postbud.wire.transaction import RecipientLine, Transaction

LETTER = Transaction("a@b.example", (RecipientLine("c@d.example"), RecipientLine("e@f.example")), b"", b"", b"", 0)


def converse(octets: bytes, piece: int) -> list[tuple[Stage, Reply]]:
    """Give what was understood: replies with their stages."""
    client, heard = Client(), []
    mailing: Mailing | None = None
    awaited = [(b"EHLO relay.example\r\n", Stage.EHLO)]
    try:
        for start in range(0, len(octets), piece):
            for stage, reply in client.receive(octets[start : start + piece]):
                heard.append((stage, reply))
                if mailing is not None:
                    step = mailing.answered(stage, reply)
                    if step is Step.SEND:
                        line, stages = mailing.take()
                        awaited += [(line, one) for one in stages]
                    elif step in (Step.CONTENT, Step.EMPTY):
                        awaited.append((b".\r\n", Stage.END))
                    elif step is Step.DONE:
                        assert len(mailing.outcomes(Peer(), "")) == 2
                        mailing = None
                elif stage is Stage.EHLO:
                    offered = Extensions.parse(reply)
                    mailing = Mailing(LETTER, LETTER.recipients, offered)
                    line, stages = mailing.begin()
                    awaited += [(line, one) for one in stages]
            # as a slow client: it speaks when the octets of this piece are read
            if client.quiet:
                while awaited:
                    line, stage = awaited.pop(0)
                    client.send(line, stage)
    except ReplyError:
        assert not client.quiet  # it may only be raised when the peer spoke out of turn
    assert len(client.transcript()) <= TRANSCRIPT_OCTETS
    return heard


def test_one_input(octets: bytes) -> None:
    for piece in (1, 7, len(octets) or 1):
        for _, reply in converse(octets, piece):
            assert 200 <= reply.code <= 599
            assert 1 <= len(reply.lines) <= MAX_LINES
            assert all(line.isprintable() for line in reply.lines)
    assert read(octets, 1) == read(octets, 7) == read(octets, len(octets) or 1)


def read(octets: bytes, piece: int) -> tuple[list[Reply], str | None]:
    """Give the replies to a client that asked a thousand things at once."""
    client, replies = Client(), []
    client.send(b"", *[Stage.AUTH] * 1000)  # takes 2yz to 5yz
    for start in range(0, len(octets), piece):
        replies += [reply for _, reply in client.receive(octets[start : start + piece])]
    return replies, client.broken.why if client.broken else None


atheris.Setup(sys.argv, test_one_input)
atheris.Fuzz()
