"""Which limits a site has and what its words ask for: the shipped file, an operator's own over it, and bad files."""

from importlib import resources

import pytest

from postbud.model.outcome import Bounced, Deferred, Delivered, Outcome, Peer, Reply, Scope
from postbud.shaping.limits import Action, Shaping, ShapingError, SiteLimits

SHIPPED = resources.files("postbud.shaping").joinpath("shaping.toml").read_text(encoding="utf-8")
DEFAULT = SiteLimits()
GOOGLE = "(alt1|alt2).gmail-smtp-in.l.google.com"


def deferred(text: str, code: int = 451, enhanced: str | None = None) -> Deferred:
    return Deferred(text, enhanced or "4.0.0", Scope.SITE, Reply(code, (text,), enhanced))


@pytest.fixture(scope="module")
def shipped() -> Shaping:
    return Shaping.from_toml(("shipped", SHIPPED))


@pytest.mark.parametrize(
    ("site", "connections"),
    [
        (GOOGLE, 10),
        ("aspmx.l.google.com", 10),
        ("acme.mail.protection.outlook.com", 20),
        ("acme-com.olc.protection.outlook.com", 10),
        ("(mta5|mta6|mta7).am0.yahoodns.net", 5),
        ("(mx01|mx02).mail.icloud.com", 5),
        ("smtp.somewhere.example", 20),
        ("smtp.somewhere.example:2525", 20),
        ("google.com.evil.example", 20),
        ("(a.one.example|b.two.example)", 20),
    ],
)
def test_the_shipped_limits_are_found_by_the_names_of_mx_hosts(shipped: Shaping, site: str, connections: int) -> None:
    assert shipped.limits(site, DEFAULT).connections == connections
    assert shipped.limits(site, DEFAULT) is shipped.limits(site, DEFAULT)


def test_an_operators_file_goes_over_the_shipped_one_and_says_so() -> None:
    own = '[[site]]\nname = "mine"\nmatch = ["*.GOOGLE.com"]\nconnections = 3\nmessages_per_second = 0.5\n'
    shaping = Shaping.from_toml(("shipped", SHIPPED), ("own.toml", own))
    assert shaping.limits(GOOGLE, DEFAULT) == SiteLimits(3, 50, 100, 0.5)
    assert {(origin.key, origin.value, origin.rule) for origin in shaping.explain(GOOGLE, DEFAULT)} == {
        ("connections", 3.0, "own.toml: mine"),
        ("messages_per_connection", 50.0, "shipped: Google"),
        ("recipients_per_transaction", 100.0, "default"),
        ("messages_per_second", 0.5, "own.toml: mine"),
    }


def test_patterns_name_a_host_its_subdomains_a_rolled_up_set_or_everything() -> None:
    text = '[[site]]\nmatch = ["mx.one.example", "*.two.example"]\nconnections = 1\n'
    text += '[[site]]\nmatch = ["*"]\nmessages_per_second = 9\n'
    shaping = Shaping.from_toml(("own", text))
    for site, connections in {
        "mx.one.example": 1,
        "mx.one.example:26": 1,
        "mx2.one.example": 20,
        "a.two.example": 1,
        "(a|b).two.example": 1,
        "two.example": 20,
        "2001:db8::1:25": 20,
    }.items():
        assert shaping.limits(site, DEFAULT) == SiteLimits(connections, 100, 100, 9.0)


def test_what_is_remembered_of_sites_is_bounded(shipped: Shaping) -> None:
    for number in range(10_002):
        shipped.limits(f"mx{number}.example", DEFAULT)
    assert shipped.limits(GOOGLE, DEFAULT).connections == 10


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        (deferred("4.7.0 Try again later", 421, "4.7.0"), Action.SLOW),
        (deferred("Our system has detected an unusual rate of unsolicited mail", 421, "4.7.28"), Action.SLOW),
        (deferred("[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume", 421), Action.SLOW),
        (deferred("too many connections from your IP", 450), Action.SLOW),
        (deferred("system not accepting network messages", 453, "4.3.2"), Action.SLOW),
        (deferred("Greylisted, try again in 300 seconds", 451, "4.7.1"), Action.NONE),
        (deferred("graylist", 421, "4.7.1"), Action.NONE),
        (deferred("mailbox busy", 450, "4.2.1"), Action.NONE),
        (deferred("too many recipients", 452, "4.5.3"), Action.NONE),
        (deferred("Sender address temporarily deferred due to user complaints", 451, "4.7.1"), Action.ACCOUNT),
        (deferred("local problem", 451), Action.NONE),
        (deferred("<throttle@evil.example>: Temporary lookup failure", 451, "4.3.0"), Action.NONE),
        (deferred("reputation@evil.example cannot be checked now", 451, "4.3.0"), Action.NONE),
        (Deferred("timed out", "4.4.2", Scope.SITE), Action.NONE),
        (Bounced("no", "5.7.1", Scope.MESSAGE, Reply(550, ("rate limit",))), Action.NONE),
        (Delivered(Reply(250, ("Ok, rate limit",)), Peer()), Action.NONE),
    ],
)
def test_words_are_read_as_they_are_meant(shipped: Shaping, outcome: Outcome, action: Action) -> None:
    assert shipped.read(GOOGLE, outcome) is action


def test_an_operators_words_come_first_and_only_where_they_belong() -> None:
    own = '[[signal]]\naction = "account"\nmatch = ["*.google.com"]\npatterns = ["try again later"]\n'
    shaping = Shaping.from_toml(("shipped", SHIPPED), ("own", own))
    outcome = deferred("Try again later", 421, "4.7.0")
    assert shaping.read(GOOGLE, outcome) is Action.ACCOUNT
    assert shaping.read("mx.example", outcome) is Action.SLOW


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[site]", "own: "),
        ("[other]", "unknown key other"),
        ("site = 1", r"site is written \[\[site\]\]"),
        ("site = [1]", r"site is written \[\[site\]\]"),
        ("[[site]]\nconnections = 1", "match is missing"),
        ('[[site]]\nmatch = "x"', "match is a list"),
        ("[[site]]\nmatch = [1]", "match is a list"),
        ('[[site]]\nmatch = ["x"]\nconnection = 1', "unknown key connection"),
        ('[[site]]\nmatch = ["x"]\nconnections = 0', "connections is a number above 0"),
        ('[[site]]\nmatch = ["x"]\nconnections = 1.5', "connections is a number above 0"),
        ('[[site]]\nmatch = ["x"]\nconnections = true', "connections is a number above 0"),
        ('[[site]]\nmatch = ["x"]\nmessages_per_second = nan', "messages_per_second is a number above 0"),
        ('[[site]]\nmatch = ["x"]\nconnections = ' + "9" * 400, "connections is a number above 0"),
        ('[[site]]\nmatch = ["x"]\nmessages_per_second = "fast"', "messages_per_second is a number above 0"),
        ('[[signal]]\naction = "stop"', "action is none, slow or account"),
        ('[[signal]]\naction = "slow"\npattern = []', "unknown key pattern"),
        ('[[signal]]\naction = "slow"\npatterns = ["("]', "malformed"),
    ],
)
def test_a_bad_file_is_told_by_name_and_place(text: str, why: str) -> None:
    with pytest.raises(ShapingError, match=why):
        Shaping.from_toml(("own", text))
