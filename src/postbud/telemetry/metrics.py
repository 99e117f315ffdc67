"""Metrics: the catalogue of what a relay counts, and how the workers' plain numbers become one exposition.

Workers keep plain integers (no metrics library on the hot path) and tell them as a flat mapping of name → value when
asked; the supervisor adds them up and renders them with `prometheus_client`. Names and meanings: `docs/metrics.md`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: its help text, whether it only grows, and how workers combine (sum or maximum)."""

    text: str
    counter: bool = True
    maximum: bool = False


SERIES: dict[str, Series] = {
    "postbud_smtp_connections": Series("SMTP connections accepted"),
    "postbud_smtp_connections_open": Series("SMTP connections open now", counter=False),
    "postbud_smtp_connections_refused": Series("SMTP connections refused by a limit, an early talker or a bad PROXY header"),
    "postbud_smtp_accept_pauses": Series("Times that accepting paused for want of file descriptors"),
    "postbud_smtp_tls_handshakes": Series("TLS handshakes completed on listeners"),
    "postbud_smtp_tls_failures": Series("TLS handshakes failed on listeners"),
    "postbud_smtp_auth_succeeded": Series("AUTH commands that succeeded"),
    "postbud_smtp_auth_failed": Series("AUTH commands that failed"),
    "postbud_smtp_auth_throttled": Series("AUTH commands refused by the throttle"),
    "postbud_smtp_secrets_exposed": Series("Secrets sent over cleartext to a listener that does not allow it"),
    "postbud_smtp_timeouts": Series("SMTP sessions ended by a deadline"),
    "postbud_smtp_faults": Series("Unexpected exceptions in SMTP sessions"),
    "postbud_api_connections_open": Series("Connections to the sending API open now", counter=False),
    "postbud_api_connections_refused": Series("Connections to the sending API refused by a limit"),
    "postbud_api_requests": Series("Requests to the sending API"),
    "postbud_api_key_failed": Series("Requests with a wrong API key"),
    "postbud_api_key_throttled": Series("Requests with a wrong API key from an address that sent too many"),
    "postbud_api_timeouts": Series("Requests to the sending API that came too slowly"),
    "postbud_api_faults": Series("Unexpected exceptions in requests to the sending API"),
    "postbud_api_replayed": Series("Requests answered as before, for their Idempotency-Key was known"),
    "postbud_api_forwarded": Series("Requests handed to the worker that owns their Idempotency-Key"),
    "postbud_messages_accepted": Series("Messages accepted and durable"),
    "postbud_recipients_accepted": Series("Recipients of accepted messages"),
    "postbud_octets_accepted": Series("Octets of accepted content"),
    "postbud_refusals": Series("Commands and messages refused"),
    "postbud_attempts": Series("Delivery transactions attempted"),
    "postbud_deliveries_delivered": Series("Deliveries delivered"),
    "postbud_deliveries_deferred": Series("Attempts that ended deferred"),
    "postbud_deliveries_bounced": Series("Deliveries bounced"),
    "postbud_deliveries_expired": Series("Deliveries expired"),
    "postbud_deliveries_held": Series("Deliveries put on hold"),
    "postbud_notices_sent": Series("DSNs of our own put into the queue"),
    "postbud_inbound_bounces": Series("DSNs received for deliveries of ours"),
    "postbud_inbound_dropped": Series("Inbound mail dropped: loops and reports about our own reports"),
    "postbud_queued_deliveries": Series("Deliveries in the spool", counter=False),
    "postbud_held_deliveries": Series("Deliveries in the spool that are held", counter=False),
    "postbud_spool_octets": Series("Octets that the spools take on disk", counter=False),
    "postbud_spool_quarantined": Series("Damaged rows set aside", counter=False),
    "postbud_spool_has_space": Series("1 while every spool has room above its reserve", counter=False),
    "postbud_oldest_due_seconds": Series("How long the oldest due delivery has waited", counter=False, maximum=True),
    "postbud_spool_commits": Series("Durable commits"),
    "postbud_spool_commit_seconds": Series("Seconds spent in commits"),
    "postbud_active_deliveries": Series("Deliveries in memory", counter=False),
    "postbud_ready_deliveries": Series("Deliveries ready in a lane", counter=False),
    "postbud_lanes": Series("Lanes with work", counter=False),
    "postbud_lanes_paused": Series("Lanes whose site is left alone for now", counter=False),
    "postbud_egress_connections": Series("Outgoing connections open", counter=False),
    "postbud_events_shipped": Series("Events shipped"),
    "postbud_events_waiting": Series("Events committed and not shipped yet", counter=False),
    "postbud_log_lines_dropped": Series("Log lines that could not be written"),
    "postbud_loop_lag_seconds": Series("Longest recent delay of the event loop", counter=False, maximum=True),
    "postbud_directory_problem": Series("1 while the directory file cannot be read", counter=False, maximum=True),
    "postbud_workers": Series("Relay workers that answer", counter=False),
    "postbud_programs": Series("Programs that the supervisor keeps", counter=False),
    "postbud_programs_ready": Series("Programs that are ready", counter=False),
    "postbud_program_restarts": Series("Programs that died and were started again"),
}


class _Total(Collector):
    def __init__(self, totals: Mapping[str, float]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        for name, value in self._totals.items():
            series = SERIES[name]
            family = (CounterMetricFamily if series.counter else GaugeMetricFamily)(name, series.text)
            family.add_metric([], value)
            yield family


def combine(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up what several workers tell."""
    totals: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name in SERIES:
                before = totals.get(name, 0.0)
                totals[name] = max(before, value) if SERIES[name].maximum else before + value
    return totals


def render(totals: Mapping[str, float]) -> bytes:
    """Give the text exposition."""
    registry = CollectorRegistry()
    registry.register(_Total(totals))
    return generate_latest(registry)
