"""Profiles of what sends mail: an icon, a name, and what its settings are called on the thing itself.

Knows neither database nor network. Invariant: `PROFILES` keeps the names that credentials are stored with; one that is
unknown is shown as a program.
"""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

STARTTLS = "starttls"
IMPLICIT = "implicit"


@dataclass(frozen=True)
class Profile:
    """A kind of device or program. `tls` is what it mostly knows; `menu` says where its settings are."""

    name: str
    image: str
    title: str | Promise
    tls: str
    menu: str | Promise
    cap_hint: int = 200
    signs_in: bool = True


PROFILES: dict[str, Profile] = {
    one.name: one
    for one in (
        Profile(
            "printer",
            "printer",
            _("Printer"),
            STARTTLS,
            _("On its web page: Network or Administrator settings, then E-mail or SMTP."),
        ),
        Profile("scanner", "scan", _("Scanner"), STARTTLS, _("On its web page: Scan to e-mail, then SMTP server.")),
        Profile("phone", "phone", _("Telephone system"), STARTTLS, _("Under Voicemail or Notifications, then Mail server.")),
        Profile("pc", "device-desktop", _("Mail program"), IMPLICIT, _("In the account's settings: Outgoing server (SMTP).")),
        Profile("shop", "shopping-cart", _("Web shop"), STARTTLS, _("In the shop's settings: E-mail, Sending by SMTP."), 2000),
        Profile("newsletter", "news", _("Newsletter"), STARTTLS, _("In the program's settings: Sending, SMTP."), 20000),
        Profile(
            "sensor",
            "temperature",
            _("Sensor or alarm"),
            STARTTLS,
            _("On its web page: Notifications or Events, then SMTP."),
            60,
        ),
        Profile(
            "nas", "database", _("Storage (NAS)"), STARTTLS, _("In its control panel: Notification, E-mail, SMTP server."), 60
        ),
        Profile("camera", "camera", _("Camera"), STARTTLS, _("On its web page: Events, Actions, SMTP."), 120),
        Profile("server", "server", _("Server"), STARTTLS, _("As the relay host of its mail system, or with msmtp."), 1000),
        Profile("program", "code", _("Program"), STARTTLS, _("Any SMTP library takes these values."), 2000),
        Profile("api", "api", _("Program, by HTTP"), IMPLICIT, _("An API key: JSON over HTTPS instead of SMTP."), 2000),
    )
}


def profile(name: str) -> Profile:
    """Give the profile of that name, or the one for programs."""
    return PROFILES.get(name, PROFILES["program"])
