"""The console's own programs: pages (gunicorn), link (uvicorn), jobs, and the preparation of its database before them.

Owns how they are run, not what they do: that is `console`. Django is imported inside these programs only, never by the
supervisor or a relay worker. Each writes "ready" on standard output, and ends when its supervisor is gone (row 11).
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from postbud.app.config import Settings
from postbud.app.node import link_socket
from postbud.app.parts import server_tls
from postbud.app.programs import end_with_supervisor, say_ready, stop_signals
from postbud.app.translate import nameservers
from postbud.console.configuration import ConsoleSettings
from postbud.telemetry.logs import Log
from postbud.telemetry.logs import configure as configure_logs

_BEAT_SECONDS = 1.0
_GRACE_SECONDS = 10
_NICE = 5  # mail first: where cores are short, events wait in the spool a little


def console_settings(settings: Settings, *, demo: bool = False) -> ConsoleSettings:
    """Say to the console what it needs to know of this machine's settings."""
    table, relay = settings.config.console, settings.config.relay
    ports = {
        tls: next((one.address.rpartition(":")[2] for one in relay.listener if one.role == "submission" and one.tls == tls), "")
        for tls in ("starttls", "implicit", "none")
    }
    plain = ports["starttls"] or ports["none"]
    inside = next((one.address for one in relay.listener if one.role == "submission" and one.tls != "implicit"), "")
    host, _, port = inside.rpartition(":")
    return ConsoleSettings(
        data=str(settings.data),
        database=table.database,
        address=table.address,
        public_url=(table.public_url or f"http://{table.address}").rstrip("/"),
        demo=demo,
        sign_up=table.sign_up,
        hostname=settings.hostname,
        bounce_domain=relay.bounce_domain or "",
        submission_host=table.submission_host or (settings.hostname if not demo else host),
        submission_port=table.submission_port or int(plain or 587),
        submission_tls_port=table.submission_tls_port or int(ports["implicit"] or 465),
        api_url=table.api_url or f"http://{settings.config.api.address}",
        link_address=table.link_address,
        trusted_proxies=list(table.trusted_proxies),
        nameservers=[f"{host}:{port}" for host, port in nameservers(settings)],
        dns_networks=list(settings.config.dns.networks),
        hook_networks=list(table.hook_networks),
        hook_ports=list(table.hook_ports),
        link_socket=str(link_socket(settings)),
        system_smtp=f"{'127.0.0.1' if host in ('0.0.0.0', '[::]', '') else host}:{port or 25}",  # noqa: S104 (compared, not bound)
    )


def start_django(settings: Settings, *, demo: bool = False) -> ConsoleSettings:
    """Hand the settings to Django and load its apps."""
    handed = console_settings(settings, demo=demo)
    os.environ["POSTBUD_CONSOLE"] = msgspec.json.encode(handed).decode()
    os.environ["DJANGO_SETTINGS_MODULE"] = "postbud.console.settings"
    import django  # noqa: PLC0415 (a relay never loads it)

    django.setup()
    return handed


class _LogHandler(logging.Handler):
    """Hands what libraries log to the one structured log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one line on."""
        tell = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        tell("console", logger=record.name, said=record.getMessage(), exc_info=record.exc_info)


def log_to_standard_error(settings: Settings, program: str) -> None:
    """Have Django and libraries log as everything else does."""
    telemetry = settings.config.telemetry
    log, _ = configure_logs(level=telemetry.log_level, as_json=telemetry.log_json, worker=program)
    root = logging.getLogger()
    root.handlers = [_LogHandler(log)]
    root.setLevel(logging.WARNING)


def run_pages(settings: Settings, *, demo: bool) -> int:
    """Serve the pages until told to stop."""
    log_to_standard_error(settings, "pages")
    handed = start_django(settings, demo=demo)
    from gunicorn.app.base import BaseApplication  # noqa: PLC0415 (a relay never loads it)

    class Pages(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            for key, value in _gunicorn(settings, handed).items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            from postbud.console.wsgi import application  # noqa: PLC0415 (after Django's setup)

            return application

    end_with_supervisor()
    Pages().run()
    return 0


def _gunicorn(settings: Settings, handed: ConsoleSettings) -> dict[str, Any]:
    return {
        "bind": handed.address,
        "workers": 1,
        "worker_class": "gthread",
        "threads": settings.config.console.threads,
        "timeout": 60,
        "graceful_timeout": _GRACE_SECONDS,
        "keepalive": 15,
        "loglevel": "warning",
        "errorlog": "-",
        "proc_name": "postbud-pages",
        "control_socket_disable": True,
        "forwarded_allow_ips": "",  # the console itself judges what a proxy says
        "when_ready": lambda _: stop_signals(),
        "post_worker_init": _worker_is_ready,
    }


def _worker_is_ready(_: object) -> None:
    stop_signals()
    say_ready()


class _LinkServer(uvicorn.Server):
    """One of the link's two doors; `run_link` listens to signals for both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals alone."""
        yield


def run_link(settings: Settings, *, demo: bool) -> int:
    """Serve the link until told to stop."""
    log_to_standard_error(settings, "link")
    os.nice(_NICE)
    start_django(settings, demo=demo)
    from postbud.console.link.asgi import application  # noqa: PLC0415 (after Django's setup)

    common: dict[str, Any] = {
        "app": application, "log_level": "warning", "access_log": False, "lifespan": "off", "ws": "none",
        "proxy_headers": False, "server_header": False, "timeout_graceful_shutdown": _GRACE_SECONDS,
    }  # fmt: skip
    path = link_socket(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    servers = [_LinkServer(uvicorn.Config(uds=str(path), **common))]
    address = settings.config.console.link_address
    if address:
        host, _, port = address.rpartition(":")
        certificate, key = _link_certificate(settings)
        servers.append(
            _LinkServer(
                uvicorn.Config(
                    host=host.strip("[]"), port=int(port), ssl_certfile=str(certificate), ssl_keyfile=str(key), **common
                )
            )
        )
    beat = settings.data / "run" / "link.beat"
    beat.touch(0o600)
    asyncio.run(_serve_link(servers, path, beat, application.state.end_waiting))
    return 0


def _link_certificate(settings: Settings) -> tuple[Path, Path]:
    table = settings.config.console
    if table.link_certificate_file and table.link_certificate_key_file:
        return settings.path(table.link_certificate_file), settings.path(table.link_certificate_key_file)
    tls = server_tls(settings)
    return tls.certificate_file, tls.key_file


async def _serve_link(servers: list[_LinkServer], path: Path, beat: Path, end_waiting: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        end_waiting()
        for server in servers:
            server.should_exit = True

    for number in stop_signals():
        loop.add_signal_handler(number, stop)
    end_with_supervisor()
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(server.serve()) for server in servers]
        while not all(server.started for server in servers) and not any(task.done() for task in serving):
            await asyncio.sleep(0.02)  # uvicorn tells by an attribute only
            await asyncio.to_thread(_for_owner_only, path)
        say_ready()
        while not any(task.done() for task in serving):
            os.utime(beat)
            await asyncio.sleep(_BEAT_SECONDS)
        stop()


def _for_owner_only(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.chmod(0o600)


def run_jobs(settings: Settings, *, demo: bool) -> int:
    """Run the console's loops until told to stop."""
    log_to_standard_error(settings, "jobs")
    os.nice(_NICE)
    start_django(settings, demo=demo)
    from postbud.console.jobs.runner import run  # noqa: PLC0415 (after Django's setup)

    stop = threading.Event()
    for number in stop_signals():
        signal.signal(number, lambda *_: stop.set())
    end_with_supervisor()
    beat = settings.data / "run" / "jobs.beat"
    beat.touch(0o600)

    def alive() -> None:
        with contextlib.suppress(OSError):
            os.utime(beat)

    say_ready()
    run(stop, alive)
    return 0
