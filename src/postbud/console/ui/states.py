"""How each state of the product's things looks and reads: a colour that is never alone, and a word.

Owns only words and colours. Invariant: a state that is not listed is shown by its own name, in grey.
"""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

STATES: dict[str, tuple[str, str | Promise]] = {
    # deliveries
    "queued": ("info", _("Queued")),
    "deferred": ("warn", _("Deferred")),
    "held": ("held", _("Held")),
    "delivered": ("ok", _("Delivered")),
    "bounced": ("bad", _("Bounced")),
    "expired": ("bad", _("Expired")),
    "cancelled": ("", _("Cancelled")),
    "suppressed": ("", _("Suppressed")),
    "captured": ("held", _("Captured")),
    "accepted": ("info", _("Accepted")),
    "refused": ("bad", _("Refused")),
    # webhooks
    "waiting": ("info", _("Waiting")),
    "dropped": ("bad", _("Dropped")),
    "failing": ("bad", _("Failing")),
    # accounts, servers, credentials, domains
    "active": ("ok", _("Active")),
    "paused": ("warn", _("Paused")),
    "blocked": ("bad", _("Blocked")),
    "closed": ("", _("Closed")),
    "revoked": ("", _("Revoked")),
    "pending": ("warn", _("Waiting for proof")),
    "verified": ("ok", _("Verified")),
    "lost": ("bad", _("Proof lost")),
    # sender identities
    "draft": ("", _("Not finished")),
    "submitted": ("info", _("Being looked at")),
    # relays, lanes, commands
    "silent": ("bad", _("Silent")),
    "never_seen": ("warn", _("Not joined yet")),
    "flowing": ("ok", _("Flowing")),
    "slowed": ("warn", _("Slowed down")),
    "dead": ("bad", _("Out of reach")),
    "ok": ("ok", _("In order")),
    "warn": ("warn", _("Think about it")),
    "fail": ("bad", _("To mend")),
    "retry": ("", _("Try now")),
    "hold": ("", _("Hold")),
    "release": ("", _("Release")),
    "cancel": ("", _("Cancel")),
    "resend": ("", _("Send again")),
    "erase": ("", _("Erase")),
    # records in DNS
    "present": ("ok", _("There")),
    "wrong": ("bad", _("Wrong")),
    "missing": ("warn", _("Missing")),
    "unknown": ("", _("Unknown")),
    "unchecked": ("", _("Not checked")),
    # kinds of server
    "transactional": ("info", _("Transactional")),
    "marketing": ("held", _("Marketing")),
    "sandbox": ("warn", _("Sandbox")),
    # people
    "owner": ("", pgettext_lazy("role", "Owner")),
    "admin": ("", pgettext_lazy("role", "Administrator")),
    "developer": ("", pgettext_lazy("role", "Developer")),
    "viewer": ("", pgettext_lazy("role", "Viewer")),
    "operator": ("info", pgettext_lazy("role", "Operator")),
    "invited": ("warn", _("Invited")),
}


def look(state: str) -> tuple[str, str]:
    """Give the colour's class and the word of a state."""
    colour, word = STATES.get(state, ("", state))
    return colour, str(word)
