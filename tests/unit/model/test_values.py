"""Tokens, settings, refusals, content and other values."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.content import BodyFacts, Content
from postbud.model.delivery import FINAL, TRANSITIONS, State
from postbud.model.envelope import DEFAULT_NOTIFY, Notify
from postbud.model.event import Event, EventKind
from postbud.model.outcome import Reply
from postbud.model.refusal import Refusal, Why
from postbud.model.returned import Returned, ReturnedRecipient
from postbud.model.settings import SettingsError, convert
from postbud.model.text import is_deceptive, printable
from postbud.model.token import MAX_AGE_DAYS, TOKEN_LENGTH, Purpose, TokenKeys

KEYS = TokenKeys({0: b"k" * 32, 3: b"j" * 32}, current=3)


@given(st.binary(min_size=16, max_size=16), st.sampled_from(Purpose), st.integers(0, 60000))
def test_a_token_verifies_for_its_purpose_only(octets: bytes, purpose: Purpose, day: int) -> None:
    text = KEYS.make(purpose, octets, day)
    assert len(text) == TOKEN_LENGTH
    assert KEYS.verify(text.upper(), purpose, day) == octets
    for other in set(Purpose) - {purpose}:
        assert KEYS.verify(text, other, day) is None


@pytest.mark.row("H2")
def test_a_token_of_another_key_or_changed_in_any_place_is_refused() -> None:
    text = KEYS.make(Purpose.RETURN_PATH_MESSAGE, b"m" * 16, 100)
    assert TokenKeys({3: b"x" * 32}, 3).verify(text, Purpose.RETURN_PATH_MESSAGE, 100) is None
    assert TokenKeys({0: b"k" * 32}).verify(text, Purpose.RETURN_PATH_MESSAGE, 100) is None
    for place in range(len(text)):
        for letter in "abcdefghijklmnopqrstuvwxyz234567" if place == len(text) - 1 else "abz27":
            changed = text[:place] + letter + text[place + 1 :]
            if changed != text:
                assert KEYS.verify(changed, Purpose.RETURN_PATH_MESSAGE, 100) is None
    for wrong in ("", text[:-1], text + "a", "1" * TOKEN_LENGTH, "é" * TOKEN_LENGTH):
        assert KEYS.verify(wrong, Purpose.RETURN_PATH_MESSAGE, 100) is None


def test_tokens_end_after_400_days_but_unsubscribe_tokens_never() -> None:
    bounce = KEYS.make(Purpose.RETURN_PATH_DELIVERY, b"d" * 16, 1000)
    stop = KEYS.make(Purpose.UNSUBSCRIBE, b"d" * 16, 1000)
    assert KEYS.verify(bounce, Purpose.RETURN_PATH_DELIVERY, 1000 + MAX_AGE_DAYS)
    assert KEYS.verify(bounce, Purpose.RETURN_PATH_DELIVERY, 1001 + MAX_AGE_DAYS) is None
    assert KEYS.verify(bounce, Purpose.RETURN_PATH_DELIVERY, 998) is None
    assert KEYS.verify(stop, Purpose.UNSUBSCRIBE, 50000)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    port: int = 1


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    hostname: str = ""
    inner: Inner | None = None
    many: list[Inner] = []


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"hostnam": "x"}, "did you mean `hostname`"),
        ({"zzz": 1}, "known here: hostname, inner, many"),
        ({"inner": {"prot": 1}}, "inner: unknown key `prot`; did you mean `port`"),
        ({"many": [{"port": 1}, {"q": 1}]}, "many: unknown key `q`"),
        ({"hostname": 5}, "hostname"),
        ({"inner": 5}, "inner"),
    ],
)
def test_a_settings_error_names_the_key_and_its_neighbour(tree: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        convert(tree, Outer, "postbud.toml")


def test_good_settings_become_values() -> None:
    assert convert({"many": [{"port": 2}]}, Outer, "f").many == [Inner(2)]


def test_every_reason_has_both_faces() -> None:
    for why in Why:
        assert 400 <= why.reply_code < 600
        assert why.enhanced[0] == str(why.reply_code)[0]
        assert 400 <= why.http_status < 600
    refusal = Refusal(Why.RATE, "slow down", "cap", close=True)
    assert (refusal.public, refusal.private, refusal.close) == ("slow down", "cap", True)
    assert "cap" in str(refusal)
    assert "slow down" in str(Refusal(Why.RATE, "slow down"))


def test_only_a_queued_delivery_moves() -> None:
    assert TRANSITIONS[State.QUEUED] == frozenset(State)
    assert all(not TRANSITIONS[state] for state in FINAL)


def test_a_content_knows_its_size_and_a_reply_its_line() -> None:
    content = Content(b"From: a\r\n", b"hi\r\n", BodyFacts(4, b""))
    assert content.octets == 9 + 2 + 4
    assert Reply(250, ("Ok", "queued"), "2.0.0").text == "250 2.0.0 Ok queued"
    assert Reply(250, ()).text == "250"


def test_an_event_and_a_returned_report_read_back() -> None:
    event = Event(id="evt", kind=EventKind.DELIVERED, at=datetime(2026, 1, 1, tzinfo=UTC), recipient="a@b.dk")
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
    report = Returned("msg", (ReturnedRecipient("a@b.dk", "failed"),))
    assert msgspec.convert(msgspec.to_builtins(report), Returned) == report


def test_what_was_accepted_keeps_what_the_submitter_asked_and_nothing_when_nothing_was() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    plain = Event(id="evt", kind=EventKind.ACCEPTED, at=at, recipients=("a@b.dk",), deliveries=("dlv_1",))
    assert {"notify", "orcpt", "envid"} & msgspec.json.decode(msgspec.json.encode(plain)).keys() == set()
    asked = msgspec.structs.replace(plain, notify=("NEVER",), orcpt=("rfc822;c@d.dk",), envid="QQ+17")
    assert msgspec.json.decode(msgspec.json.encode(asked), type=Event) == asked


@pytest.mark.parametrize("words", ["", "NEVER", "SUCCESS", "FAILURE", "DELAY", "SUCCESS,FAILURE", "SUCCESS,FAILURE,DELAY"])
def test_notify_reads_back_from_its_words(words: str) -> None:
    notify = Notify.of(words)
    assert notify.words == words
    assert notify.never is (words == "NEVER")
    assert (notify == DEFAULT_NOTIFY) is (words == "")
    assert Notify(failure=False, delay=False, said=True).words == "NEVER"


def test_hidden_characters_and_mixed_scripts_deceive() -> None:
    assert is_deceptive("a\u200bb")
    assert is_deceptive("p\u0430y")
    assert not is_deceptive("p\u0430y", mixed_scripts=False)
    assert not is_deceptive("почта.example")
    assert not is_deceptive("123-4.example")


def test_a_peers_text_becomes_one_safe_line() -> None:
    assert printable(b"ok") == "ok"
    assert printable(b"a\r\n\x1b[31m\xff") == "a\\r\\n\\x1b[31m\\xff"
    assert printable("blåbær\u202e") == "blåbær\\u202e"
    assert len(printable(b"a" * 5000)) == 500
