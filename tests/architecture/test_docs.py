"""The docs name everything that an operator or a client can meet, and nothing that is not there."""

import re

from postbud.model.account import Kind, Status
from postbud.model.delivery import TRANSITIONS, Hold, State
from postbud.model.event import Event, EventKind
from postbud.model.refusal import Why
from tests.architecture.source import (
    DOCS,
    PACKAGE,
    ROOT,
    SRC,
    commands,
    exists,
    floor_of,
    metrics,
    named_in,
    page,
    python_files,
    settings_structs,
    strings,
)


def test_every_reason_of_a_refusal_has_a_reply_and_a_problem_and_stands_in_the_docs() -> None:
    text = page("replies.md")
    for why in Why:
        name, code, enhanced, status = why.value
        assert 400 <= code <= 599, why
        assert re.fullmatch(r"[45]\.\d{1,3}\.\d{1,3}", enhanced), why
        assert str(code)[0] == enhanced[0], why
        assert 400 <= status <= 599, why
        assert re.search(rf"^\| `{name}` \| {code} {re.escape(enhanced)} \| {status} \|", text, re.MULTILINE), why


def test_every_reply_that_is_written_out_in_the_server_stands_in_the_docs() -> None:
    said = {
        found.group(0)
        for path in python_files()
        if floor_of(path) in {"smtpd", "wire"}
        for text in strings(path)
        if (found := re.match(r"[245]\d\d [245]\.\d{1,3}\.\d{1,3}", text))
    }
    missing = {reply for reply in said if reply not in page("replies.md")}
    assert missing == set()


def test_every_status_of_our_own_about_a_delivery_stands_in_the_docs() -> None:
    own = {
        text
        for path in python_files()
        if floor_of(path) in {"egress", "delivery"} or path.stem == "mailing"
        for text in strings(path)
        if re.fullmatch(r"[45]\.\d{1,3}\.\d{1,3}", text)
    }
    assert {status for status in own if status not in page("replies.md")} == set()


def test_every_kind_of_event_and_every_field_stands_in_the_docs() -> None:
    named = named_in(page("events.md"))
    assert {kind.value for kind in EventKind} - named == set()
    assert set(Event.__struct_fields__) - named == set()


def test_every_state_and_every_hold_stands_in_the_journey() -> None:
    named = named_in(page("flow.md"))
    assert {state.value for state in State} - named == set()
    assert {hold.value for hold in Hold} - named == set()


def test_the_state_diagram_has_the_transitions_of_the_table() -> None:
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", page("flow.md"), re.MULTILINE))
    table = {(old.value, new.value) for old, news in TRANSITIONS.items() for new in news}
    assert drawn == table


def test_every_setting_stands_in_the_docs() -> None:
    named = named_in(page("settings.md"))
    missing = {f"{struct}: {key}" for struct, keys in settings_structs().items() for key in keys if key not in named}
    assert missing == set()
    assert {kind.value for kind in Kind} - named == set()
    assert {status.value for status in Status} - named == set()


def test_every_command_and_option_stands_in_the_docs() -> None:
    text = page("commands.md")
    for command, options in commands():
        assert re.search(rf"`postbud {command}\b", text), command
        assert {option for option in options if option != "--help" and option not in text} == set(), command


def test_every_metric_stands_in_the_docs() -> None:
    assert metrics() - named_in(page("metrics.md")) == set()


def test_every_policy_rule_stands_in_the_docs() -> None:
    named = named_in(page("policy/rules.md"))
    rules = {
        text
        for path in (PACKAGE / "policy" / "rules").glob("c*.py")
        for text in strings(path)
        if re.fullmatch(r"C\d+-[A-Z-]+", text)
    }
    assert rules - named == set()


def test_every_rfc_cited_in_the_source_is_judged_in_the_docs() -> None:
    judged = set(re.findall(r"^\| (\d{3,4}) \|.*\| (?:followed|deviates|partly|not done)", page("rfc.md"), re.MULTILINE))
    cited = {number for path in python_files() for number in re.findall(r"\bRFCs? ?(\d{3,4})", path.read_text("utf-8"))}
    assert cited - judged == set()


def test_what_the_journey_names_exists() -> None:
    missing = []
    for name in ("flow.md", "architecture.md", "headers.md"):
        for quoted in sorted(named_in(page(name))):
            if re.fullmatch(r"src/[\w/.]+", quoted) and not (ROOT / quoted).exists():
                missing.append(f"{name}: {quoted}")
            if re.fullmatch(r"[a-z_]+(\.\w+)+", quoted) and (PACKAGE / quoted.split(".")[0]).is_dir() and not exists(quoted):
                missing.append(f"{name}: {quoted}")
            if re.fullmatch(r"[a-z_]+/[\w/]+\.(py|toml|tsv)", quoted) and not _is_file(quoted):
                missing.append(f"{name}: {quoted}")
    assert missing == []


def _is_file(name: str) -> bool:
    return any((folder / name).is_file() for folder in (ROOT, SRC, PACKAGE))


def test_every_stage_of_the_journey_is_told() -> None:
    text = page("flow.md")
    floors = {floor_of(path) for path in python_files()} - {"", "model"}
    assert {floor for floor in floors if f"`{floor}" not in text and f"src/postbud/{floor}" not in text} == set()


def test_no_link_between_pages_leads_nowhere() -> None:
    broken = []
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_decision_has_a_context_a_decision_and_consequences() -> None:
    for path in DOCS.joinpath("decisions").glob("*.md"):
        text = path.read_text("utf-8")
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name), path
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, (path, heading)
        assert len(text.splitlines()) <= 60, path
