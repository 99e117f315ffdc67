"""What a state means in plain words, and how to mend it: by the class of a failure and its enhanced status code.

Owns texts only. Source of the codes: RFC 3463 and the registry of RFC 5248. A code that is not listed falls back to its subject
(the middle number), then to the class that the relay gave the failure.
"""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from postbud.console.mail.models import DeliveryRow, DeliveryState

Text = str | Promise


@dataclass(frozen=True, slots=True)
class Meaning:
    """What happened, and what to do about it (empty: nothing)."""

    what: Text
    mend: Text = ""


_WAIT = _("Nothing to do: Postbud tries again by itself, for four days.")
_BY_CODE: dict[str, Meaning] = {
    "1.1": Meaning(
        _("The recipient's provider knows no such mailbox."),
        _("Check the address for typing errors, and take it off your list if it is gone."),
    ),
    "1.2": Meaning(_("The recipient's domain does not exist."), _("Check the address behind the @.")),
    "1.10": Meaning(_("The recipient's domain says that it takes no mail."), _("Ask the recipient for another address.")),
    "2.1": Meaning(_("The recipient's mailbox is closed."), _("Ask the recipient for another address.")),
    "2.2": Meaning(_("The recipient's mailbox is full."), _("The recipient must make room. Postbud tries again by itself.")),
    "3.4": Meaning(_("The message is too large for the recipient's provider."), _("Send a link instead of the attachment.")),
    "2.3": Meaning(_("The message is too large for the recipient."), _("Send a link instead of the attachment.")),
    "4.1": Meaning(_("The recipient's mail server does not answer."), _WAIT),
    "4.3": Meaning(_("The recipient's domain could not be looked up for now."), _WAIT),
    "4.4": Meaning(_("The recipient's domain names no mail server that can be used."), _("Check the address behind the @.")),
    "4.7": Meaning(_("The message waited too long and was given up."), _("See the last reply for the reason.")),
    "7.1": Meaning(
        _("The recipient's provider refused the message by its own rules."),
        _("Read the reply: it often names a page that says why. Mail to others goes on."),
    ),
    "7.26": Meaning(
        _("The message failed the recipient's check of its sender (SPF, DKIM, DMARC)."),
        _("Look at the sending domain's records on the page Domains."),
    ),
    "7.28": Meaning(_("The recipient's provider says that it gets too much at once."), _WAIT),
    "7.5": Meaning(_("No encrypted connection could be made that this message asks for."), _WAIT),
    "7.0": Meaning(_("The recipient's provider refused the message for a reason of security."), _("Read the reply.")),
    "6.7": Meaning(
        _("The recipient's server does not take addresses with letters beyond ASCII."), _("Ask for a plain address.")
    ),
}
_BY_CLASS: dict[str, Meaning] = {
    "recipient": Meaning(
        _("The recipient cannot get mail at this address."), _("Check the address, and take it off your list if it is gone.")
    ),
    "temporary": Meaning(_("The recipient's server asks to try again later."), _WAIT),
    "policy": Meaning(_("The recipient's provider refused the message by its own rules."), _("Read the reply.")),
    "infrastructure": Meaning(_("The recipient's mail servers could not be reached or had trouble."), _WAIT),
}
_BY_HOLD: dict[str, Meaning] = {
    "policy": Meaning(_("A rule of the policy holds it until a person looked at it.")),
    "quota": Meaning(_("Your plan's allowance is used up."), _("It goes out by itself when the next one begins.")),
    "block": Meaning(_("The account or server is blocked."), _("It goes out when the block is lifted.")),
    "pause": Meaning(_("The account or server is paused."), _("Resume it, and it goes out.")),
    "key": Meaning(_("There is no signing key for its domain, and nothing is sent unsigned."), _("Look at the domain's page.")),
    "operator": Meaning(_("An operator holds it.")),
    "schedule": Meaning(_("It waits for its time.")),
    "quarantine": Meaning(_("It was set aside, because it is damaged or made the relay fail."), _("Ask your operator.")),
}


def meaning(delivery: DeliveryRow) -> Meaning | None:
    """Give what a delivery's state means; None when it speaks for itself."""
    state = delivery.state
    if state == DeliveryState.HELD:
        return next((_BY_HOLD[one] for one in delivery.holders if one in _BY_HOLD), None)
    if state not in {DeliveryState.DEFERRED, DeliveryState.BOUNCED, DeliveryState.EXPIRED}:
        return None
    subject = delivery.enhanced.partition(".")[2]
    found = _BY_CODE.get(subject) or _BY_CLASS.get(delivery.classified)
    if found is not None and state != DeliveryState.DEFERRED and found.mend is _WAIT:
        return Meaning(found.what)
    return found
