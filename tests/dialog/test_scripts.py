"""Every dialogue script, spoken to a real relay."""

import base64
from pathlib import Path

import pytest

from tests.dialog.driver import Dialogue, Target
from tests.dialog.script import Script, literal, parse
from tests.system.harness import Recorder, Relay

SCRIPTS = [parse(path) for path in sorted((Path(__file__).parent / "scripts").glob("*.dlg"))]


@pytest.mark.parametrize(
    "script", [pytest.param(script, id=script.path.stem, marks=pytest.mark.row(*script.rows)) for script in SCRIPTS]
)
def test_dialogue(script: Script, request: pytest.FixtureRequest) -> None:
    plain = script.header.get("bounce_domain") == "no"
    pair: tuple[Relay, Recorder] = request.getfixturevalue("relay_without_bounce_domain" if plain else "dialogue_relay")
    relay, sink = pair
    dialogue = Dialogue(script, Target("127.0.0.1", relay.ports))
    dialogue.run()
    names = {f"{name}.{dialogue.id}@dest.example": count for name, count in script.delivers.items()}
    for mailbox, count in names.items():
        if count:
            received = sink.wait_for(lambda record, mailbox=mailbox: mailbox in record["recipients"], count)
            assert len(received) == count
            if "body" in script.header:
                content = base64.b64decode(received[0]["content"])
                assert content.partition(b"\r\n\r\n")[2] == literal(script.header["body"])
        else:
            assert not [record for record in sink.received() if mailbox in record["recipients"]]


def test_every_row_of_the_protocol_groups_has_a_script() -> None:
    rows = {row for script in SCRIPTS for row in script.rows}
    wanted = [f"A{n}" for n in range(1, 11)] + ["B1", "C1", "C2", "C3", "C5", "C7"]
    wanted += [f"D{n}" for n in range(1, 18)] + [f"E{n}" for n in range(1, 14)] + ["F1", "F2", "F3"]
    wanted += [f"G{n}" for n in (1, 2, 3, 4, 5, 8, 9, 14)] + ["H1", "H2"]
    assert not [row for row in wanted if row not in rows]
