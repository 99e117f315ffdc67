"""Listeners over real sockets: who may come in, how TLS begins, who is too slow, how it all ends."""

import base64
import resource
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from postbud.smtpd.settings import Limits, Role, TlsMode
from postbud.smtpd.tls import ServerTls, make_self_signed
from tests.system.recording_gate import NOW, SECRET, Server, serving, sign_in, until
from tests.system.smtp import Wire, client_context, stuff

CONTENT = b"From: a@acme.example\r\nSubject: x\r\n\r\nHello\r\n"
LOOPBACK = (ip_network("127.0.0.0/8"),)


def ended(wire: Wire) -> bool:
    return wire.reply().code == 0


@pytest.mark.row("C1")
@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"EHLO a\r\nMAIL FROM:<a@acme.example>\r\n", b"N"])
def test_octets_behind_starttls_never_get_inside(tmp_path: Path, behind: bytes) -> None:
    with serving(tmp_path) as server:
        wire = server.client()
        wire.hello()
        wire.send(b"STARTTLS\r\n" + behind)
        assert wire.reply().code == 554
        assert ended(wire)
        late = server.client()
        late.hello()
        late.expect("STARTTLS", 220)
        late.send(behind)
        with pytest.raises((ssl.SSLError, OSError)):
            late.socket = client_context().wrap_socket(late.socket)
        until(lambda: len(server.sessions) == 0)
        assert server.counters.tls_handshakes == 0


def test_what_is_pipelined_with_the_end_of_the_handshake_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for _ in range(20):
            wire = server.client()
            wire.hello()
            wire.starttls()
            wire.send(b"EHLO a.example\r\n")
            assert wire.reply().code == 250
            wire.send(b"NOOP\r\nQUIT\r\n")
            assert (wire.reply().code, wire.reply().code) == (250, 221)
            assert wire.ended()
        assert server.counters.tls_handshakes == 20


@pytest.mark.row("C4")
def test_a_handshake_has_an_end_however_slowly_it_comes(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(handshake_seconds=1.0)) as server:
        server.call(lambda: None)
        wire = server.client()
        wire.hello()
        wire.expect("STARTTLS", 220)
        began = time.monotonic()
        hello = b"\x16\x03\x01\x02\x00" + b"\0" * 100
        try:
            for octet in hello[:30]:
                wire.send(bytes([octet]))
                time.sleep(0.1)
        except OSError:
            pass
        assert wire.ended(5.0)
        assert time.monotonic() - began < 10
        until(lambda: len(server.sessions) == 0)
        assert server.counters.tls_failures == 1
        assert not server.faults()


@pytest.mark.row("C5")
def test_clear_text_on_an_implicit_port_and_a_tls_hello_on_a_clear_one(tmp_path: Path) -> None:
    with serving(tmp_path, tls=TlsMode.IMPLICIT) as server:
        for speech in (b"EHLO a.example\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            wire = server.client()
            wire.send(speech)
            assert wire.ended()
        inside = server.client(implicit_tls=True)
        inside.hello()
        sign_in(inside)
        inside.expect("MAIL FROM:<a@acme.example>", 250)
        inside.expect("RCPT TO:<b@dest.example>", 250)
        assert inside.data(CONTENT).code == 250
        assert server.gate.kept[0].client.protocol == "ESMTPSA"
        until(lambda: server.counters.tls_failures == 2)
        assert not server.faults()
    with serving(tmp_path) as server:
        wire = server.client()
        assert wire.reply().code == 220
        with pytest.raises(ssl.SSLError):
            client_context().wrap_socket(wire.socket)


@pytest.mark.row("C6")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("ciphers", "version"), [("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1), ("AES128-SHA:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2)]
)
def test_old_tls_is_not_spoken(tmp_path: Path, ciphers: str, version: ssl.TLSVersion) -> None:
    with serving(tmp_path, tls=TlsMode.IMPLICIT) as server:
        context = client_context()
        context.set_ciphers(ciphers)
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", server.ports[0])) as raw, pytest.raises(OSError):
            context.wrap_socket(raw)


@pytest.mark.row("C7")
def test_auth_in_clear_is_refused_and_the_exposure_logged_without_the_secret(tmp_path: Path) -> None:
    with serving(tmp_path, auth_without_tls=False) as server:
        wire = server.client()
        assert not any("AUTH" in line for line in wire.hello().lines)
        assert wire.say("AUTH PLAIN " + base64.b64encode(b"\0printer\0" + SECRET).decode()).enhanced == "5.7.11"
        until(lambda: server.counters.secrets_exposed == 1)
        (event,) = [event for event in server.events if event["event"] == "secret_exposed"]
        assert event["username"] == "printer"
        assert SECRET.decode() not in str(server.events)
        assert server.gate.asked == 0


@pytest.mark.row("C8")
def test_a_ticket_of_one_listener_is_worth_nothing_at_another(tmp_path: Path) -> None:
    server = Server(tmp_path).listen(tls=TlsMode.IMPLICIT).listen(tls=TlsMode.IMPLICIT, address="127.0.0.2:0")
    server.start()
    try:
        context = client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        def connect(listener: int, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
            host = "127.0.0.1" if listener == 0 else "127.0.0.2"
            with (
                socket.create_connection((host, server.ports[listener])) as raw,
                context.wrap_socket(raw, server_hostname="relay.example", session=session) as inside,
            ):
                inside.recv(100)
                return bool(inside.session_reused), inside.session

        _, ticket = connect(0, None)
        assert connect(0, ticket)[0]
        assert not connect(1, ticket)[0]
    finally:
        server.stop()


@pytest.mark.row("C9")
def test_a_new_certificate_is_used_for_new_connections_while_old_ones_live_on(tmp_path: Path) -> None:
    with serving(tmp_path, tls=TlsMode.IMPLICIT) as server:
        old = server.client(implicit_tls=True)
        old.hello()
        first = _certificate(old)
        assert not server.call(server.tls.reload_if_changed)
        certificate = tmp_path / "certificate.pem"
        whole = certificate.read_bytes()
        certificate.write_bytes(whole[:100])
        with pytest.raises(ssl.SSLError):
            server.call(server.tls.reload_if_changed)
        same = server.client(implicit_tls=True)
        assert _certificate(same) == first
        certificate.unlink()
        make_self_signed(certificate, tmp_path / "key.pem", "other.example", lambda: datetime(2010, 1, 1, tzinfo=UTC))
        assert server.call(server.tls.reload_if_changed)
        assert server.tls.expires_at() < NOW
        new = server.client(implicit_tls=True)
        new.hello()
        assert _certificate(new) != first
        old.expect("NOOP", 250)
        sign_in(old)


def _certificate(wire: Wire) -> bytes:
    assert isinstance(wire.socket, ssl.SSLSocket)
    return wire.socket.getpeercert(binary_form=True) or b""


def test_the_first_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls" / "c.pem", tmp_path / "tls" / "k.pem"
    make_self_signed(certificate, key, "relay.example", lambda: NOW)
    before = certificate.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    make_self_signed(certificate, key, "relay.example", lambda: NOW)
    assert certificate.read_bytes() == before
    assert ServerTls(certificate, key).expires_at().year == 2036


@pytest.mark.row("D3")
@pytest.mark.parametrize("speech", [b"EHLO a.example\r\n", b"\0", b"GET / HTTP/1.1\r\n\r\n"])
def test_who_talks_before_the_greeting_is_sent_away(tmp_path: Path, speech: bytes) -> None:
    with serving(tmp_path, requires_auth=False, banner_delay_seconds=0.2) as server:
        wire = server.client()
        wire.send(speech)
        assert (wire.reply().code, wire.reply().code) == (554, 0)
        pipelining = server.client()
        assert pipelining.reply().code == 220
        pipelining.send(b"EHLO a.example\r\nMAIL FROM:<>\r\n")
        assert (pipelining.reply().code, pipelining.reply().code) == (554, 0)
        patient = server.client()
        patient.hello()


@pytest.mark.row("D9", "D8")
@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4000 25\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN what ever\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f" + bytes([192, 0, 2, 7, 127, 0, 0, 1, 15, 160, 0, 25]) + b"tlv", "192.0.2.7"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("mode", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
def test_a_proxy_tells_who_is_there_and_nothing_behind_its_header_is_lost(
    tmp_path: Path, header: bytes, address: str, mode: TlsMode
) -> None:
    with serving(tmp_path, proxy_from=LOOPBACK, tls=mode) as server:
        wire = server.client()
        for octet in (header[:9], header[9:]):
            wire.send(octet)
        if mode is TlsMode.IMPLICIT:
            wire.socket = client_context().wrap_socket(wire.socket)
        wire.hello()
        sign_in(wire)
        wire.expect("MAIL FROM:<a@acme.example>", 250)
        wire.expect("RCPT TO:<b@dest.example>", 250)
        assert wire.data(CONTENT).code == 250
        assert server.gate.kept[0].client.address == address


@pytest.mark.row("D9")
@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4000\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 99999 25\r\n",
        b"PROXY TCP4 2001:db8::7 127.0.0.1 4000 25\r\n",
        b"PROXY UDP4 192.0.2.7 127.0.0.1 4000 25\r\n",
        b"EHLO client.example\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\0",
        b"PROXY",
        b"",
    ],
)
def test_a_broken_proxy_header_closes_without_a_word(tmp_path: Path, header: bytes) -> None:
    with serving(tmp_path, Limits(proxy_header_seconds=0.3), proxy_from=LOOPBACK) as server:
        wire = server.client()
        wire.send(header)
        assert ended(wire)
        until(lambda: server.counters.connections_refused == 1)
        assert not server.faults()


@pytest.mark.row("58")
def test_connections_are_limited_per_address_and_in_total(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(connections=3, connections_per_address=2)) as server:
        first = server.client()
        first.hello()
        server.client().hello()
        crowded = server.client()
        reply = crowded.reply()
        assert (reply.code, reply.enhanced) == (421, "4.7.0")
        assert ended(crowded)
        server.client(source="127.0.0.9").hello()
        reply = server.client(source="127.0.0.8").reply()
        assert (reply.code, reply.enhanced) == (421, "4.3.2")
        first.expect("QUIT", 221)
        first.socket.close()
        until(lambda: len(server.sessions) == 2)
        server.client().hello()


@pytest.mark.row("58")
def test_who_is_idle_or_slow_is_told_and_closed(tmp_path: Path) -> None:
    limits = Limits(command_seconds=1.0, content_window_seconds=1.0, content_octets_per_second=1_000)
    with serving(tmp_path, limits) as server:
        idle, slow, dribbling = server.ready(), server.ready(), server.ready()
        slow.expect("MAIL FROM:<a@acme.example>", 250)
        slow.expect("RCPT TO:<b@dest.example>", 250)
        slow.expect("DATA", 354)
        for octet in (b"N", b"O", b"O"):
            dribbling.send(octet)
            slow.send(b"x")
            time.sleep(0.3)
        assert idle.reply().enhanced == "4.4.2"
        assert slow.reply().enhanced == "4.4.2"
        assert dribbling.reply().enhanced == "4.4.2"
        assert ended(idle)
        assert ended(slow)
        assert not server.gate.kept
        assert server.gate.store.in_memory_octets == 0
        assert server.counters.timeouts == 3


@pytest.mark.row("58")
def test_one_content_has_an_end_even_if_it_is_not_slow(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(content_seconds=1.0)) as server:
        wire = server.ready()
        wire.expect("MAIL FROM:<a@acme.example>", 250)
        wire.expect("RCPT TO:<b@dest.example>", 250)
        wire.expect("DATA", 354)
        assert wire.reply().enhanced == "4.4.2"


@pytest.mark.row("F4")
def test_wrong_secrets_are_delayed_and_then_refused_but_the_owner_gets_in_from_elsewhere(tmp_path: Path) -> None:
    limits = Limits(auth_delay_seconds=0.01, auth_delay_max_seconds=0.05, auth_failures_per_address=12)
    with serving(tmp_path, limits) as server:
        wrong = "AUTH PLAIN " + base64.b64encode(b"\0printer\0wrong").decode()
        fax = server.ready("fax")
        codes: list[int] = []
        while len(codes) < 50:
            wire = server.client()
            wire.hello()
            while (reply := wire.say(wrong)).code == 535 and len(codes) < 50:
                codes.append(reply.code)
            codes.append(reply.code)
            assert reply.code == 421
            assert reply.enhanced == "4.7.0"
        assert codes.count(535) <= 12
        assert server.gate.asked <= 14
        elsewhere = server.client(source="127.0.0.9")
        elsewhere.hello()
        sign_in(elsewhere)
        again = server.ready("fax")
        again.expect("NOOP", 250)
        fax.expect("NOOP", 250)
        assert server.counters.auth_throttled > 0


@pytest.mark.row("F5", "F8")
def test_refusals_tell_nothing_and_blocked_accounts_are_told(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(auth_delay_seconds=0.0)) as server:
        wire = server.client()
        wire.hello()
        texts = set()
        for name, secret in ((b"printer", b"wrong"), (b"nobody", b"wrong"), (b"printer", b"x" * 4_000), (b"a\r\nb", SECRET)):
            reply = wire.say("AUTH PLAIN " + base64.b64encode(b"\0" + name + b"\0" + secret).decode())
            texts.add((reply.code, reply.text))
        assert texts == {(535, "5.7.8 Authentication failed")}
        assert "a\r\nb" not in str([event.get("username", "") for event in server.events])
        reply = wire.say("AUTH PLAIN " + base64.b64encode(b"\0blocked\0" + SECRET).decode())
        assert (reply.code, reply.enhanced) == (525, "5.7.13")
        reply = wire.say("AUTH PLAIN " + base64.b64encode(b"\0bug\0" + SECRET).decode())
        assert reply.code == 451


@pytest.mark.row("F6")
def test_many_failures_at_once_do_not_stop_others(tmp_path: Path) -> None:
    limits = Limits(
        auth_waiting=5, auth_delay_seconds=1.0, auth_failures_per_address=1_000, auth_failures_per_address_and_name=1_000
    )
    with serving(tmp_path, limits) as server:
        wrong = b"AUTH PLAIN " + base64.b64encode(b"\0printer\0wrong") + b"\r\n"
        wires = [server.client() for _ in range(20)]
        for wire in wires:
            wire.hello()
            wire.send(wrong)
        other = server.client()
        assert other.reply().code == 220
        codes = sorted(wire.reply().code for wire in wires)
        assert codes == [454] * 15 + [535] * 5
        wires[0].socket.close()


def test_who_leaves_while_a_refusal_is_held_back_is_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path, Limits(auth_delay_seconds=1.0)) as server:
        wire = server.client()
        wire.hello()
        wire.send(b"AUTH PLAIN " + base64.b64encode(b"\0printer\0wrong") + b"\r\n")
        until(lambda: server.sessions.throttle.waiting == 1)
        wire.socket.close()
        until(lambda: server.sessions.throttle.waiting == 0 and len(server.sessions) == 0)


@pytest.mark.row("12")
def test_drain_lets_transactions_finish_and_sends_the_idle_away(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        idle, busy, stuck = server.ready(), server.ready(), server.ready()
        for wire in (busy, stuck):
            wire.expect("MAIL FROM:<a@acme.example>", 250)
            wire.expect("RCPT TO:<b@dest.example>", 250)
        server.call(server.listeners[0].stop)
        draining = threading.Thread(target=lambda: server.wait(server.sessions.drain(1.5)))
        draining.start()
        assert idle.reply().enhanced == "4.3.2"
        assert ended(idle)
        assert busy.data(CONTENT).code == 250
        assert busy.reply().enhanced == "4.3.2"
        with pytest.raises(ConnectionRefusedError):
            server.client()
        assert stuck.reply().enhanced == "4.3.2"
        draining.join()
        until(lambda: len(server.sessions) == 0)
        assert len(server.gate.kept) == 1


@pytest.mark.row("20")
def test_without_file_descriptors_accepting_rests_and_recovers(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(tmp_path) as server:
        sockets = [socket.socket() for _ in range(4)]
        server.client().hello()
        before = time.process_time()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(s.fileno() for s in sockets) + 1, hard))
            for waiting in sockets[:3]:
                waiting.settimeout(5)
                waiting.connect(("127.0.0.1", server.ports[0]))
            assert sockets[0].recv(100).startswith(b"421 4.3.2")
            until(lambda: server.counters.accept_pauses >= 1)
            time.sleep(0.5)
            spent = time.process_time() - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert spent < 0.4
        assert sockets[2].recv(100).startswith((b"220", b"421"))
        for one in sockets:
            one.close()
        server.client().hello()


def test_two_listeners_may_share_a_port(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        other = Server(tmp_path / "other").listen(address=f"127.0.0.1:{server.ports[0]}", role=Role.INBOUND)
        other.folder.mkdir()
        other.start()
        other.stop()


def test_a_listener_with_tls_needs_a_certificate(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        listener = server.listeners[0]
        with pytest.raises(ValueError, match="certificate"):
            type(listener)(listener.settings, listener.gate, None, listener.sessions, listener.clock)


def test_a_whole_message_over_ipv6(tmp_path: Path) -> None:
    if not _has_ipv6():
        pytest.skip("no IPv6 on loopback")
    with serving(tmp_path, address="[::1]:0") as server:
        with Wire(server.ports[0], "::1") as wire:
            wire.hello()
            sign_in(wire)
            wire.send(b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n")
            assert [wire.reply().code for _ in range(3)] == [250, 250, 354]
            wire.send(stuff(CONTENT))
            assert wire.reply().code == 250
        assert server.gate.kept[0].client.address == "::1"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True
