"""What a worker answers on its control socket: look into the queue, steer it, and tell its numbers."""

from typing import Any

import msgspec

from postbud.app.control import Handler
from postbud.app.explain import explain
from postbud.app.parts import Parts
from postbud.httpd.settings import ApiCounters
from postbud.model.delivery import Delivery, Message
from postbud.model.ids import DeliveryId, MessageId
from postbud.model.returned import Returned
from postbud.spool.values import Filter

_MAX_ROWS = 100_000


def read_filter(request: dict[str, Any]) -> Filter:
    """Read which deliveries a request means."""
    return Filter(
        account=request.get("account"),
        server=request.get("server"),
        credential=request.get("credential"),
        domain=request.get("domain"),
        held=request.get("held"),
        message=MessageId(request["message"]) if request.get("message") else None,
        delivery=DeliveryId(request["delivery"]) if request.get("delivery") else None,
    )


def row(message: Message, delivery: Delivery) -> dict[str, Any]:
    """Give one delivery as `postbud queue` shows it."""
    return {
        "delivery": delivery.id,
        "message": message.id,
        "account": message.account,
        "server": message.server,
        "credential": message.credential,
        "recipient": delivery.mailbox,
        "reverse_path": message.reverse_path,
        "received_at": message.received_at.isoformat(),
        "size_octets": message.size_octets,
        "subject": message.subject,
        "attempts": delivery.attempts,
        "due_at": delivery.due_at,
        "expires_at": delivery.expires_at,
        "held_by": sorted(holder.value for holder in delivery.held_by),
        "last_reply": delivery.last_reply,
    }


def handlers(parts: Parts) -> dict[str, Handler]:
    """Give the handlers by op."""

    async def list_(request: dict[str, Any]) -> dict[str, Any]:
        limit = min(int(request.get("limit", 1000)), _MAX_ROWS)
        after = DeliveryId(request["after"]) if request.get("after") else None
        found = await parts.spool.find(read_filter(request), limit, after)
        return {"rows": [row(message, delivery) for message, delivery in found]}

    async def steer(request: dict[str, Any]) -> dict[str, Any]:
        wanted = read_filter(request)
        if wanted == Filter():
            return {"error": "name what to act on: a message, a delivery, or a filter"}
        actions = {
            "retry": parts.holds.retry,
            "hold": parts.holds.hold,
            "release": parts.holds.release,
            "cancel": parts.holds.cancel,
        }
        changed = await actions[request["op"]](wanted)
        parts.review_wanted = True  # what an account has on hold is counted anew
        return {"changed": changed}

    async def numbers(_: dict[str, Any]) -> dict[str, Any]:
        return {"numbers": await gather_numbers(parts), "lanes": parts.scheduler.lanes()}

    async def ping(_: dict[str, Any]) -> dict[str, Any]:
        return {
            "ok": not parts.spool.broken,
            "accepting": parts.spool.has_space,
            "directory_problem": parts.follower.problem,
            "lag_seconds": parts.lag_seconds,
        }

    async def returned(request: dict[str, Any]) -> dict[str, Any]:
        return {"heard": (await parts.returns.record(msgspec.convert(request["report"], Returned))).value}

    return {
        "list": list_,
        "retry": steer,
        "hold": steer,
        "release": steer,
        "cancel": steer,
        "explain": lambda request: explain(parts, str(request["domain"])),
        "numbers": numbers,
        "ping": ping,
        "returned": returned,
        **(parts.api.handlers() if parts.api is not None else {}),
    }


async def gather_numbers(parts: Parts) -> dict[str, float]:
    """Give a worker's metrics, by their names in the catalogue."""
    smtp, delivery, spool = parts.smtp_counters, parts.delivery_counters, parts.spool.counters
    gauges = await parts.spool.gauges()
    schedule = parts.scheduler.gauges()
    api = parts.api.counters if parts.api is not None else ApiCounters()
    waited = max(0.0, parts.clock() - gauges.oldest_due_at) if gauges.oldest_due_at is not None else 0.0
    return {
        "postbud_smtp_connections": smtp.connections,
        "postbud_smtp_connections_open": smtp.connections_open,
        "postbud_smtp_connections_refused": smtp.connections_refused,
        "postbud_smtp_accept_pauses": smtp.accept_pauses,
        "postbud_smtp_tls_handshakes": smtp.tls_handshakes,
        "postbud_smtp_tls_failures": smtp.tls_failures,
        "postbud_smtp_auth_succeeded": smtp.auth_succeeded,
        "postbud_smtp_auth_failed": smtp.auth_failed,
        "postbud_smtp_auth_throttled": smtp.auth_throttled,
        "postbud_smtp_secrets_exposed": smtp.secrets_exposed,
        "postbud_smtp_timeouts": smtp.timeouts,
        "postbud_smtp_faults": smtp.faults,
        "postbud_messages_accepted": smtp.messages_accepted + api.messages_accepted,
        "postbud_recipients_accepted": smtp.recipients_accepted + api.recipients_accepted,
        "postbud_octets_accepted": smtp.octets_accepted + api.octets_accepted,
        "postbud_refusals": float(smtp.refusals.total() + api.refusals.total()),
        "postbud_attempts": delivery.attempts,
        "postbud_deliveries_delivered": delivery.delivered,
        "postbud_deliveries_deferred": delivery.deferred,
        "postbud_deliveries_bounced": delivery.bounced,
        "postbud_deliveries_expired": delivery.expired,
        "postbud_deliveries_held": delivery.held,
        "postbud_notices_sent": delivery.notices,
        "postbud_inbound_bounces": parts.inbound.bounces,
        "postbud_inbound_dropped": parts.inbound.dropped,
        "postbud_queued_deliveries": gauges.queued,
        "postbud_held_deliveries": gauges.held,
        "postbud_spool_octets": gauges.octets,
        "postbud_spool_quarantined": gauges.quarantined,
        "postbud_spool_has_space": float(parts.spool.has_space),
        "postbud_oldest_due_seconds": waited,
        "postbud_spool_commits": spool.commits,
        "postbud_spool_commit_seconds": spool.commit_seconds,
        "postbud_active_deliveries": schedule["active_deliveries"],
        "postbud_ready_deliveries": schedule["ready_deliveries"],
        "postbud_lanes": schedule["lanes"],
        "postbud_lanes_paused": schedule["lanes_paused"],
        "postbud_egress_connections": schedule["connections"],
        "postbud_events_shipped": parts.shipper.shipped,
        "postbud_events_waiting": max(0, gauges.last_event - parts.shipper.seq),
        "postbud_log_lines_dropped": parts.lines.dropped,
        "postbud_loop_lag_seconds": parts.lag_seconds,
        "postbud_directory_problem": float(parts.follower.problem is not None),
        "postbud_workers": 1.0,
        **(parts.api.numbers() if parts.api is not None else {}),
    }
