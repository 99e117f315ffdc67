"""The examples of `docs/api.md` run as they stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbud.httpd.problem import Code
from tests.system.directory import KEYS
from tests.system.harness import ROOT
from tests.system.http_client import Api, raw_message, serving

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, dict[str, str], Path]]:
    folder = tmp_path_factory.mktemp("api")
    with serving(folder) as (_, _, api):
        (folder / "message.eml").write_bytes(raw_message().replace(b"\r\n", b"\n"))
        environment = os.environ | {"POSTBUD_URL": f"http://127.0.0.1:{api.port}", "POSTBUD_KEY": KEYS["api-1"]}
        yield api, environment, folder


def run(words: list[str], served: tuple[Api, dict[str, str], Path], **more: str) -> str:
    done = subprocess.run(words, env=served[1] | more, cwd=served[2], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_shell_examples_send_look_and_cancel(served: tuple[Api, dict[str, str], Path]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    examples = [text for language, text in BLOCKS if language == "sh" and text.startswith("curl")]
    sent = json.loads(run(["sh", "-c", examples[0]], served))
    assert sent["recipients"][0]["mailbox"] == "bo@dest.example"
    whole = json.loads(run(["sh", "-c", examples[1]], served))
    assert [one["mailbox"] for one in whole["recipients"]] == ["bo@dest.example", "cy@dest.example"]
    state = json.loads(run(["sh", "-c", examples[2]], served, ID=sent["id"]))
    assert (state["id"], state["tag"]) == (sent["id"], "order")
    cancelled = json.loads(run(["sh", "-c", examples[3]], served, ID=sent["id"]))
    assert cancelled.get("code") == "not_cancellable" or cancelled["cancelled"] == 1


def test_the_python_example_sends(served: tuple[Api, dict[str, str], Path]) -> None:
    example = next(text for language, text in BLOCKS if language == "python")
    message = run([sys.executable, "-c", example], served).strip()
    assert served[0].get(f"/v1/messages/{message}").json["subject"] == "Invoice 12"


def test_the_node_example_sends(served: tuple[Api, dict[str, str], Path]) -> None:
    if shutil.which("node") is None:
        pytest.skip("there is no Node")
    example = next(text for language, text in BLOCKS if language == "js")
    message = run(["node", "--input-type=module", "-e", example], served).strip()
    assert served[0].get(f"/v1/messages/{message}").json["subject"] == "Welcome"


def test_every_code_of_our_own_stands_in_the_page() -> None:
    for code in Code:
        assert f"| `{code.value[0]}` | {code.status} |" in PAGE, code


def test_every_field_of_a_request_stands_in_the_page(served: tuple[Api, dict[str, str], Path]) -> None:
    described = served[0].get("/v1/openapi.json", key=None).json
    for field in described["components"]["schemas"]["NewMessage"]["properties"]:
        assert f"`{field}`" in PAGE, field
