"""The console hashes mailboxes as relays do: both ends meet on the hash alone."""

import hmac

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postbud.console.link.publish import to_signed
from postbud.console.link.secrets import hash_mailbox, set_key
from postbud.link import sets
from postbud.model.mailbox import Mailbox

pytestmark = pytest.mark.usefixtures("database")
LOCAL = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}[A-Za-z0-9]", fullmatch=True).filter(lambda text: ".." not in text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(LOCAL, st.sampled_from(["b.example", "B.Example", "xn--bcher-kva.example"]))
def test_a_mailbox_has_the_hash_that_relays_give_it(local: str, domain: str) -> None:
    mailbox = f"{local}@{domain}"
    key = set_key("acct_a")
    mine = hash_mailbox("acct_a", mailbox)
    assert mine == to_signed(sets.hash_mailbox(key, Mailbox.parse(mailbox).key()))
    assert mine == to_signed(int.from_bytes(hmac.digest(key, mailbox.lower().encode(), "sha256")[:8], "big"))
