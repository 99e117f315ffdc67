"""What `postbud queue explain` prints: each state of a lane in words, and where each limit comes from."""

from typing import Any

from postbud.app.explain import text_of

QUIET: dict[str, Any] = {
    "source": "default", "ready": 0, "connections": 0, "connections_allowed": 5, "messages_per_second": None,
    "paused_until": None, "dead_until": None, "why": "", "stopped_accounts": {},
}  # fmt: skip


def view(worker: int, *lanes: dict[str, Any]) -> dict[str, Any]:
    return {
        "domain": "dest.example", "site": "mx.dest.example", "route": None, "hops": ["mx.dest.example:25"],
        "tls": "opportunistic", "worker": worker, "lanes": [QUIET | lane for lane in lanes],
        "limits": [
            {"name": "connections", "value": 5.0, "rule": "own.toml: dest"},
            {"name": "messages_per_second", "value": 0.0, "rule": "default"},
        ],
    }  # fmt: skip


def test_every_state_is_told_in_words() -> None:
    slow = {"ready": 412, "messages_per_second": 3.5, "paused_until": 117.0, "why": "421 4.7.0 slow down"}
    dead = {"ready": 7, "dead_until": 148.0, "why": "timed out"}
    unwanted = {"stopped_accounts": {"acct_a": {"until": 740.0, "why": "451 complaints"}}}
    text = text_of([view(0, slow), view(1, dead), view(2, unwanted)], 100.0)
    for words in (
        "site      mx.dest.example  (by MX)",
        "connections                 5       own.toml: dest",
        "messages_per_second         none    default",
        "worker 0, source default: 412 ready",
        "at most 3.5 messages a second, growing: the site said '421 4.7.0 slow down'",
        "paused for 17 s more: 421 4.7.0 slow down",
        "left alone, no connection for 48 s more: timed out",
        "acct_a waits 640 s more: 451 complaints",
    ):
        assert words in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_domain_without_mail_and_one_without_a_way() -> None:
    assert "no worker has mail for it in memory" in text_of([view(0)], 100.0)
    nowhere = {"domain": "null.example", "outcome": "bounced", "enhanced": "5.1.10", "why": "it takes no mail"}
    assert text_of([nowhere], 100.0) == "null.example: bounced 5.1.10, it takes no mail\n"
