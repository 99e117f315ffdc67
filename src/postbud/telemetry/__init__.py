"""Telemetry: logs and metrics. Knows shapes, no sender of them."""
