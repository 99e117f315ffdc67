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
    if not delivery.held_by:
        delivery.held_since = now
    delivery.held_by |= {holder}
    return True


def release(delivery: Delivery, holder: Hold, now: float) -> bool:
    """Take a holder away; with the last one the delivery is due and its expiry moves by the time it was held."""
    if holder not in delivery.held_by:
        return False
    delivery.held_by -= {holder}
    if not delivery.held_by:
        held_seconds = max(0.0, now - delivery.held_since) if delivery.held_since is not None else 0.0
        delivery.expires_at += held_seconds
        delivery.held_since = None
        delivery.due_at = now
    return True


def held_too_long(delivery: Delivery, now: float) -> bool:
    """Whether the strictest of its holders has kept a delivery past that holder's maximum."""
    if not delivery.held_by or delivery.held_since is None:
        return False
    limits = [MAX_SECONDS[holder] for holder in delivery.held_by]
    bounded = [limit for limit in limits if limit is not None]
    return len(bounded) == len(limits) and now - delivery.held_since > min(bounded)
