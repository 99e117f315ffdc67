"""The header field `TLS-Required: No` (RFC 8689 s5): passed on, and no way around a route that requires TLS."""

import base64
from collections.abc import Callable

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit

WAIVER = b"TLS-Required: No\r\n"


def test_a_message_that_waives_tls_is_passed_on_so_and_does_not_waive_the_operators_route(pair: Callable[..., Pair]) -> None:
    relay, sink = pair(start=False)
    relay.settings = Settings(next_hop=sink.next_hop, route_tls="required", routes={})
    relay.write_settings()
    relay.start()
    test_id = new_test_id()
    message = queued_id(submit(relay.ports["cleartext"], WAIVER + make_content(test_id), ["a@dest.example"]))
    wait_until(lambda: [event for event in relay.events_of(message) if event["kind"] == "deferred"], "it waits for TLS", 15)
    assert not sink.received()
    assert relay.stop() == 0
    relay.settings.route_tls = "none"
    relay.write_settings()
    relay.start()
    relay.wait_final({message})
    (record,) = sink.received()
    content = base64.b64decode(record["content"])
    assert WAIVER in content
    assert b"tls-required" in content.lower().partition(b"dkim-signature")[2].partition(b"b=")[0]
