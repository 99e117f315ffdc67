"""Plain counters that sessions increment and telemetry reads when asked: no metrics library on the hot path."""

from collections import Counter
from dataclasses import dataclass, field

from postbud.model.refusal import Why


@dataclass(slots=True)
class SmtpCounters:
    """What the SMTP server of one worker did since it started; `*_open` are gauges."""

    connections: int = 0
    connections_open: int = 0
    connections_refused: int = 0  # limits, early talkers, broken PROXY headers
    accept_pauses: int = 0  # out of file descriptors
    tls_handshakes: int = 0
    tls_failures: int = 0
    auth_succeeded: int = 0
    auth_failed: int = 0
    auth_throttled: int = 0
    secrets_exposed: int = 0  # AUTH with a secret on a cleartext session
    timeouts: int = 0
    faults: int = 0  # exceptions that no one expected
    messages_accepted: int = 0
    recipients_accepted: int = 0
    octets_accepted: int = 0
    refusals: Counter[Why] = field(default_factory=Counter)
