"""A listener: the socket, accepting, and who may come in at all.

Accepts by itself (not by asyncio's server), because limits, the PROXY header and early talkers must be seen before a transport
exists, and because running out of file descriptors must neither spin nor leave peers hanging (row 20).
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address

from postbud.model.text import printable
from postbud.smtpd import replies
from postbud.smtpd.gate import Gate
from postbud.smtpd.limits import address_key
from postbud.smtpd.proxy import ProxyError, read_from_socket
from postbud.smtpd.session import Session
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import ListenerSettings, TlsMode
from postbud.smtpd.tls import ServerTls

_BACKLOG = 1_024
_ACCEPTS_AT_ONCE = 64  # then others get their turn
_PAUSE_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class SmtpListener:
    """Listens on one address and starts a session for each connection."""

    def __init__(
        self, settings: ListenerSettings, gate: Gate, tls: ServerTls | None, sessions: Sessions, clock: Callable[[], datetime]
    ) -> None:
        """Take what it needs; `clock` gives aware UTC time. Limits, counters, log and tasks are those of `sessions`."""
        if tls is None and settings.tls is not TlsMode.NONE:
            raise ValueError(f"listener {settings.name} needs a certificate")
        self.settings = settings
        self.gate = gate
        self.tls = tls
        self.sessions = sessions
        self.clock = clock
        self.port = 0
        self._socket: socket.socket | None = None
        self._spare = -1
        self._pause: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` when the address cannot be had."""
        host, _, port = self.settings.address.rpartition(":")
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, kind, protocol, _, address = infos[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        self._socket = listening
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.port = listening.getsockname()[1]
        loop.add_reader(listening, self._accept)

    def stop(self) -> None:
        """Accept no more. Sessions go on. Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            os.close(self._spare)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            if self._socket is None:
                return
            try:
                peer, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause_accepting(self._socket)
                    return
                continue  # the peer was gone before we came
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._is_proxy(address[0]):
                self.sessions.tasks.create_task(self._serve_proxied(peer, address[0], address[1]))
            else:
                self._admit(peer, address[0], address[1])

    def _pause_accepting(self, listening: socket.socket) -> None:
        """Tell one peer to come again by the descriptor that is kept for it, and rest a second."""
        self.sessions.counters.accept_pauses += 1
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._pause = loop.call_later(_PAUSE_SECONDS, self._resume_accepting)
        os.close(self._spare)
        try:
            peer, _ = listening.accept()
        except OSError:
            pass
        else:
            peer.setblocking(False)
            self._turn_away(peer, replies.TOO_BUSY)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.sessions.log.warning("accept_paused", listener=self.settings.name, reason="out of file descriptors")

    def _resume_accepting(self) -> None:
        self._pause = None
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _is_proxy(self, address: str) -> bool:
        networks = self.settings.proxy_from
        if not networks:
            return False
        parsed = ip_address(address.partition("%")[0])
        return any(parsed in network for network in networks)

    async def _serve_proxied(self, peer: socket.socket, address: str, port: int) -> None:
        try:
            async with asyncio.timeout(self.sessions.limits.proxy_header_seconds):
                origin = await read_from_socket(peer)
        except (ProxyError, OSError) as error:
            self.sessions.counters.connections_refused += 1
            self.sessions.log.info("proxy_header_refused", client=address, reason=printable(str(error)))
            peer.close()
            return
        except asyncio.CancelledError:
            peer.close()
            raise
        if origin is not None:
            address, port = origin.address, origin.port
        self._admit(peer, address, port)

    def _admit(self, peer: socket.socket, address: str, port: int) -> None:
        connections, key = self.sessions.connections, address_key(address)
        if self.sessions.draining:
            self._turn_away(peer, replies.SHUTTING_DOWN)
        elif connections.full:
            self._turn_away(peer, replies.TOO_BUSY)
        elif connections.crowded(key):
            self._turn_away(peer, replies.TOO_MANY_FROM_YOU)
        else:
            connections.enter(key)
            self.sessions.tasks.create_task(self._serve(peer, address, port, key))

    async def _serve(self, peer: socket.socket, address: str, port: int, key: str) -> None:
        settings, sessions = self.settings, self.sessions
        implicit = settings.tls is TlsMode.IMPLICIT
        if settings.greeting_seconds and not implicit:
            await asyncio.sleep(settings.greeting_seconds)
        if not implicit and _talks(peer):
            sessions.connections.leave(key)
            self._turn_away(peer, replies.EARLY_TALKER)
            return
        context = self.tls.context(settings.name) if self.tls is not None else None
        session = Session(settings, self.gate, context, sessions, self.clock, address, port, key)
        loop, limits = asyncio.get_running_loop(), sessions.limits
        try:
            if implicit:
                await loop.connect_accepted_socket(
                    lambda: session, peer, ssl=context, ssl_handshake_timeout=limits.handshake_seconds,
                    ssl_shutdown_timeout=limits.linger_seconds,
                )  # fmt: skip
            else:
                await loop.connect_accepted_socket(lambda: session, peer)
        except (OSError, EOFError) as error:
            sessions.counters.tls_failures += implicit
            sessions.log.info("tls_failed", listener=settings.name, client=address, reason=printable(str(error)))
        except Exception:
            sessions.counters.faults += 1
            sessions.log.exception("accept_fault", listener=settings.name, client=address)
        finally:
            if not session.made:
                sessions.connections.leave(key)

    def _turn_away(self, peer: socket.socket, reply: bytes) -> None:
        self.sessions.counters.connections_refused += 1
        with peer:
            try:
                if self.settings.tls is not TlsMode.IMPLICIT:
                    peer.send(reply)
                peer.shutdown(socket.SHUT_WR)
                peer.recv(65_536)  # unread octets would turn our reply into a reset
            except OSError:
                pass


def _talks(peer: socket.socket) -> bool:
    """Tell whether the peer has said something already."""
    try:
        return bool(peer.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
