"""From a routing to an open session: addresses in order, TCP, banner, EHLO or HELO, STARTTLS, AUTH.

Tries hop after hop until one is ready for mail; what a peer says before MAIL, also for good, is about the site, so the next
one is tried and at last it is a deferral. RFC 5321 s5.1 (at least two addresses), 3207, 4954; rows 31, 34, 35, 42, K2, K7, K9.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

from postbud.egress.resolve import find_addresses
from postbud.egress.routing import Hop, Routing
from postbud.egress.session import Session, SessionError, TlsError
from postbud.egress.settings import EgressSettings, RouteSettings, TlsMode
from postbud.egress.tls import Contexts
from postbud.model.outcome import Bounced, Deferred, Peer, Reply, Scope
from postbud.net.dns import Resolver
from postbud.net.guard import Guard, Verdict
from postbud.wire.client import Stage, auth_steps
from postbud.wire.extensions import Extensions
from postbud.wire.mailing import failure

MAX_TRIES = 6
_V6_PAUSE_SECONDS = 600.0
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_NO_MAIL_HERE = 521  # RFC 7504


class _FailedError(Exception):
    """This address will not do; `outcome` says why."""

    def __init__(self, outcome: Deferred) -> None:
        super().__init__(outcome.why)
        self.outcome = outcome


@dataclass(slots=True)
class _Search:
    """What was met on the way through the hops."""

    refused: list[Verdict]
    failures: list[Deferred]
    unresolved: bool = False  # some name has no address of use
    dns_failed: bool = False

    def outcome(self, routing: Routing) -> Deferred | Bounced:
        """Give the outcome when no hop was ready."""
        if self.failures:
            last = self.failures[-1]
            if all(one.reply is not None and one.reply.code == _NO_MAIL_HERE for one in self.failures) and not self.dns_failed:
                return Bounced(
                    f"{routing.site} takes no mail: {last.why}", "5.3.2", Scope.SITE, last.reply, last.peer, last.transcript
                )
            return last
        peer = Peer(site=routing.site, source=routing.source.id)
        if self.dns_failed:
            return Deferred(f"addresses of {routing.site}: name servers fail", "4.4.3", Scope.SITE, peer=peer)
        if self.refused and not self.unresolved:
            if Verdict.OWN in self.refused:
                return Bounced(f"mail for {routing.site} loops back to us", "5.4.6", Scope.SITE, peer=peer)
            return Bounced(f"every address of {routing.site} is private", "5.4.4", Scope.SITE, peer=peer)
        return Deferred(f"no host of {routing.site} has an address", "4.4.4", Scope.SITE, peer=peer)


class Dialer:
    """Opens sessions."""

    def __init__(
        self, settings: EgressSettings, resolver: Resolver, guard: Guard, contexts: Contexts, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._timers = settings.timers
        self._resolver = resolver
        self._guard = guard
        self._contexts = contexts
        self._clock = clock
        self._v6_paused_until = 0.0

    async def open(self, routing: Routing, *, verified: bool = False) -> Session | Deferred | Bounced:
        """Give a session ready for MAIL. With `verified`, only one inside TLS with a valid certificate."""
        search = _Search([], [])
        until = self._clock() + self._timers.attempt
        tries = 0
        for hop in routing.hops:
            addresses = await self._addresses(routing, hop, search)
            while addresses:
                address = addresses.pop(0)
                if tries >= MAX_TRIES or (tries >= 2 and self._clock() > until):
                    return search.outcome(routing)
                tries += 1
                try:
                    return await self._try(
                        routing, hop, address, verified=verified, fallback=any(":" not in a for a in addresses)
                    )
                except _FailedError as error:
                    search.failures.append(error.outcome)
        return search.outcome(routing)

    # -- addresses -----------------------------------------------------------------------------------------------------------

    async def _addresses(self, routing: Routing, hop: Hop, search: _Search) -> list[str]:
        family = routing.source.family
        if routing.route is not None:
            found = await self._system_addresses(hop.host, search)
            found = [one for one in found if family in (None, 6 if ":" in one else 4)]
        else:
            found, refused, failed = await find_addresses(self._resolver, self._guard, hop.host, family)
            search.refused += refused
            search.dns_failed |= failed
            search.unresolved |= not found and not refused
        return self._ordered(found)

    async def _system_addresses(self, host: str, search: _Search) -> list[str]:
        """Resolve a route's host as this machine does: hosts file, container names."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            search.dns_failed |= getattr(error, "errno", None) == socket.EAI_AGAIN
            search.unresolved = True
            return []
        return list(dict.fromkeys(str(one[4][0]) for one in found))

    def _ordered(self, addresses: list[str]) -> list[str]:
        """IPv6 and IPv4 in turn, so that the second try is of the other family; IPv4 first while IPv6 does not work here."""
        six = [one for one in addresses if ":" in one]
        four = [one for one in addresses if ":" not in one]
        first, second = (four, six) if self._v6_paused_until > self._clock() else (six, four)
        paired = [one for pair in zip(first, second, strict=False) for one in pair]
        return paired + first[len(second) :] + second[len(first) :]

    # -- one address ---------------------------------------------------------------------------------------------------------

    async def _try(self, routing: Routing, hop: Hop, address: str, *, verified: bool, fallback: bool) -> Session:
        tls = TlsMode.REQUIRED if verified else effective_tls(routing)
        session = await self._connect(routing, hop, address, fallback=fallback)
        try:
            try:
                await self._greet(session, routing, hop, tls, verified=verified)
            except TlsError as error:
                if tls is not TlsMode.OPPORTUNISTIC:
                    raise _FailedError(self._broken(session, error)) from error
                session = await self._connect(routing, hop, address, fallback=fallback)  # once more, in clear (row 42)
                session.client.note(f"{error.why}; trying in clear")
                await self._greet(session, routing, hop, TlsMode.NONE, verified=False)
        except SessionError as error:
            raise _FailedError(self._broken(session, error)) from error
        except BaseException:
            session.abort()
            raise
        return session

    def _broken(self, session: Session, error: SessionError) -> Deferred:
        session.abort()
        return Deferred(
            f"{session.peer.host or session.peer.address}: {error.why}",
            error.enhanced, Scope.SITE, error.reply, session.peer, session.client.transcript(),
        )  # fmt: skip

    async def _connect(self, routing: Routing, hop: Hop, address: str, *, fallback: bool) -> Session:
        six = ":" in address
        peer = Peer(hop.host, address, routing.site, routing.source.id)
        source = routing.source.address
        seconds = self._timers.connect_v6 if six and fallback else self._timers.connect
        try:
            async with asyncio.timeout(seconds):
                _, session = await asyncio.get_running_loop().create_connection(
                    lambda: Session(peer), address, hop.port, local_addr=(source, 0) if source else None
                )
        except TimeoutError as error:
            self._pause_v6(six=six and fallback)
            raise _FailedError(
                Deferred(
                    f"{hop.host}[{address}]:{hop.port}: no connection within {seconds:g} s", "4.4.1", Scope.SITE, peer=peer
                )
            ) from error
        except OSError as error:
            self._pause_v6(six=six and fallback and error.errno in _UNREACHABLE)
            why = f"{hop.host}[{address}]:{hop.port}: {error.strerror or error}"
            if error.errno in _SHORT:  # of ours: says nothing of the site (row 20)
                raise _FailedError(Deferred(why, "4.3.1", Scope.MESSAGE, peer=peer)) from error
            raise _FailedError(Deferred(why, "4.4.1", Scope.SITE, peer=peer)) from error
        return session

    def _pause_v6(self, *, six: bool) -> None:
        if six:
            self._v6_paused_until = self._clock() + _V6_PAUSE_SECONDS

    async def _greet(self, session: Session, routing: Routing, hop: Hop, tls: TlsMode, *, verified: bool) -> None:
        banner = await session.answer(self._timers.banner)
        if banner.code != 220:
            raise _FailedError(_refused(session, Stage.BANNER, banner))
        await self._hello(session, routing.source.helo)
        if tls is not TlsMode.NONE:
            await self._start_tls(session, routing, hop, tls, verified=verified)
        if routing.route is not None and routing.route.username is not None:
            await self._authenticate(session, routing.route)

    async def _hello(self, session: Session, name: str) -> None:
        reply = await session.ask(f"EHLO {name}\r\n".encode(), Stage.EHLO, self._timers.command)
        session.extensions = Extensions()
        if reply.code < 300:
            session.extensions = Extensions.parse(reply)
            return
        if reply.code < 500:
            raise _FailedError(_refused(session, Stage.EHLO, reply))
        reply = await session.ask(f"HELO {name}\r\n".encode(), Stage.HELO, self._timers.command)
        if reply.code >= 300:
            raise _FailedError(_refused(session, Stage.HELO, reply))

    async def _start_tls(self, session: Session, routing: Routing, hop: Hop, tls: TlsMode, *, verified: bool) -> None:
        required = tls is TlsMode.REQUIRED
        if "STARTTLS" not in session.extensions.words:
            if required:
                raise _FailedError(self._broken(session, TlsError("TLS is required, and STARTTLS is not offered", "4.7.5")))
            return
        reply = await session.ask(b"STARTTLS\r\n", Stage.STARTTLS, self._timers.command)
        if reply.code != 220:
            if required:
                raise _FailedError(self._broken(session, TlsError(f"TLS is required: {reply.text}", "4.7.5", reply)))
            return  # opportunistic: on in clear
        route = routing.route
        check = verified or (required and (route is None or route.verify))
        if check:
            try:
                context = self._contexts.checked(route.ca_file if route else None)
            except OSError as error:
                raise _FailedError(self._broken(session, TlsError(f"authority file: {error.strerror}", "4.7.5"))) from error
        else:
            context = self._contexts.unchecked_strict() if required else self._contexts.unchecked()
        await session.start_tls(context, hop.host, self._timers.handshake, verified=check)
        await self._hello(session, routing.source.helo)

    async def _authenticate(self, session: Session, route: RouteSettings) -> None:
        """Sign in to a smarthost: only over validated TLS, or to this very machine with `tls = "none"` (K9)."""
        local = route.tls is TlsMode.NONE and ipaddress.ip_address(session.peer.address).is_loopback
        if not session.verified and not local:
            raise _FailedError(self._broken(session, TlsError("AUTH needs a validated TLS session; none is made", "4.7.0")))
        assert route.username is not None
        try:
            password = (await asyncio.to_thread(route.password_file.read_text)).rstrip("\r\n") if route.password_file else ""
        except (OSError, ValueError) as error:
            raise _FailedError(
                self._broken(session, SessionError(f"password file of route {route.match}: {error}", "4.3.5"))
            ) from error
        steps = auth_steps(session.extensions.auth, route.username, password)
        if steps is None:
            raise _FailedError(self._broken(session, SessionError("the smarthost offers no AUTH mechanism of ours", "4.7.0")))
        for step in steps:
            reply = await session.ask(step, Stage.AUTH, self._timers.command, shown="AUTH ***")
            if reply.code != 334:
                break
        else:
            reply = await session.ask(b"*\r\n", Stage.AUTH, self._timers.command)
        if reply.code != 235:
            raise _FailedError(_refused(session, Stage.AUTH, reply))


def effective_tls(routing: Routing) -> TlsMode:
    """Give the mode that holds: a route with AUTH does not send its password over TLS that is only an offer."""
    if routing.route is not None and routing.route.username is not None and routing.tls is TlsMode.OPPORTUNISTIC:
        return TlsMode.REQUIRED
    return routing.tls


def _refused(session: Session, stage: Stage, reply: Reply) -> Deferred:
    outcome = failure(stage, reply, session.peer, session.client.transcript())
    session.abort()
    assert isinstance(outcome, Deferred)  # before MAIL everything is about the site
    return outcome
