"""Inbound: what comes back to our own mailboxes: bounces, reports, requests to stop. Nothing else is taken."""
