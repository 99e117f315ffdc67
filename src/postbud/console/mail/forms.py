"""The filter of the message log, as the address bar carries it. Words in, a `Search` out; what is no value is left out."""

from datetime import datetime, timedelta

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.mail.models import DeliveryState
from postbud.console.mail.queries import LONGEST, Search

PERIODS = (
    ("", _("All that is kept")),
    ("1h", _("Last hour")),
    ("24h", _("Last 24 hours")),
    ("7d", _("Last 7 days")),
    ("31d", _("Last 31 days")),
)
CLASSES = (
    ("recipient", _("The recipient: no such mailbox, or full")),
    ("temporary", _("For the moment: try again later")),
    ("policy", _("The receiver's policy: content, reputation, limits")),
    ("infrastructure", _("The way there: names, connections, TLS")),
    ("unknown", _("Not understood")),
)
_LENGTHS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7), "31d": LONGEST}
_EVER = timedelta(days=3660)
_INSTANT = "%Y-%m-%dT%H:%M"
_GROUPS = {"waiting": (DeliveryState.QUEUED, DeliveryState.DEFERRED, DeliveryState.HELD)}


class SearchForm(forms.Form):
    """What may be asked. `q` is an address, an id, or a part of address, subject or reply."""

    q = forms.CharField(label=_("Search"), max_length=320, required=False, strip=True)
    period = forms.ChoiceField(label=_("Time"), choices=PERIODS, required=False)
    start = forms.DateTimeField(
        label=_("From"), required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=_INSTANT)
    )
    end = forms.DateTimeField(
        label=_("To"), required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=_INSTANT)
    )
    state = forms.ChoiceField(
        label=_("State"),
        choices=[("", _("Every state")), ("waiting", _("Still waiting")), *DeliveryState.choices],
        required=False,
    )
    server = forms.ChoiceField(label=_("Server"), required=False)
    credential = forms.ChoiceField(label=_("Device or program"), required=False)
    domain = forms.CharField(label=_("From domain"), max_length=255, required=False)
    mailbox = forms.CharField(label=_("Recipient"), max_length=320, required=False)
    site = forms.CharField(label=_("Recipient's provider"), max_length=255, required=False)
    source = forms.CharField(label=_("Egress source"), max_length=64, required=False)
    classified = forms.ChoiceField(label=_("Class of failure"), choices=[("", _("Every class")), *CLASSES], required=False)
    code = forms.IntegerField(label=_("Reply code"), min_value=200, max_value=599, required=False)

    def __init__(self, data: object, *, servers: list[tuple[str, str]], credentials: list[tuple[str, str]]) -> None:
        """Take the query string, and the account's servers and credentials to choose from."""
        super().__init__(data)  # type: ignore[arg-type]  # a QueryDict or a dict
        self.fields["server"].choices = [("", _("Every server")), *servers]  # type: ignore[attr-defined]  # a ChoiceField
        self.fields["credential"].choices = [("", _("Every device")), *credentials]  # type: ignore[attr-defined]  # likewise

    def search(self, account: str, now: datetime | None = None) -> Search:
        """Give what is looked for; a field with an error says nothing. Call after `is_valid`."""
        values = self.cleaned_data
        now = now or timezone.now()
        start, end = self._range(now)
        state = values.get("state") or ""
        return Search(
            account=account,
            start=start,
            end=end,
            server=values.get("server") or "",
            credential=values.get("credential") or "",
            from_domain=(values.get("domain") or "").lower(),
            site=(values.get("site") or "").lower(),
            source=values.get("source") or "",
            classified=values.get("classified") or "",
            mailbox=values.get("mailbox") or "",
            states=tuple(_GROUPS.get(state, (state,) if state else ())),
            reply_code=values.get("code"),
            text=values.get("q") or "",
        )

    def _range(self, now: datetime) -> tuple[datetime, datetime]:
        values = self.cleaned_data
        end = now + timedelta(minutes=1)  # a relay's clock may be ahead of ours
        if values.get("start") or values.get("end"):
            return _within(values.get("start"), now - _EVER, end), _within(values.get("end"), end, end)
        period = values.get("period") or ""
        return now - _LENGTHS.get(period, _EVER), end

    @property
    def narrowed(self) -> bool:
        """Whether anything at all is asked for."""
        return any(value not in {None, ""} for value in self.cleaned_data.values())


def _within(given: datetime | None, otherwise: datetime, end: datetime) -> datetime:
    """Give an instant that was asked for, or the nearest one about which there is anything to say."""
    if given is None or given.year > end.year:
        return otherwise if given is None else end
    return max(given, end - _EVER) if given.year > 1 else end - _EVER
