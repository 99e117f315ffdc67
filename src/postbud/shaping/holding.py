"""Holding: how long each holder may keep a delivery, and what the expiry clock does meanwhile (design, §4)."""

from postbud.model.delivery import Delivery, Hold

DAY_SECONDS = 86400.0
MAX_SECONDS: dict[Hold, float | None] = {
    Hold.POLICY: 14 * DAY_SECONDS,
    Hold.PAUSE: 14 * DAY_SECONDS,
    Hold.OPERATOR: 14 * DAY_SECONDS,
    Hold.KEY: 4 * DAY_SECONDS,
    Hold.QUOTA: 38 * DAY_SECONDS,  # a month's window and 7 days
    Hold.SCHEDULE: None,  # becomes due, never expires by being held
    Hold.BLOCK: None,  # lifted or cancelled by people
}


def hold(delivery: Delivery, holder: Hold, now: float) -> bool:
    """Add a holder; tell whether anything changed."""
    if holder in delivery.held_by:
        return False
    delivery.held_by |= {holder}
    delivery.held_since = {**delivery.held_since, holder: now}
    return True


def release(delivery: Delivery, holder: Hold, now: float) -> bool:
    """Take a holder away; with the last one the delivery goes on, and its expiry has moved by the time it was held.

    What was due meanwhile is due now; what is scheduled for later stays so.
    """
    if holder not in delivery.held_by:
        return False
    began = min(delivery.held_since.values(), default=now)
    delivery.held_by -= {holder}
    delivery.held_since = {other: since for other, since in delivery.held_since.items() if other is not holder}
    still = min(delivery.held_since.values(), default=now)
    delivery.expires_at += max(0.0, still - began)  # the time that only this holder held
    if not delivery.held_by:
        delivery.due_at = max(delivery.due_at, now)
    return True


def held_too_long(delivery: Delivery, now: float) -> bool:
    """Whether a holder has kept a delivery past its maximum; never while one without a maximum holds it, too."""
    if Hold.BLOCK in delivery.held_by or Hold.SCHEDULE in delivery.held_by:
        return False
    return any(
        limit is not None and now - delivery.held_since.get(holder, now) > limit
        for holder, limit in MAX_SECONDS.items()
        if holder in delivery.held_by
    )
