"""Forms about people and accounts: words in, values out, refusals at their field. `services` checks the rest and writes."""

import zoneinfo
from functools import cache
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.models import Account, Person, Role
from postbud.console.ui.middleware import language_of


@cache
def time_zones() -> list[tuple[str, str]]:
    """List the time zones that people choose from: places, and UTC."""
    skipped = ("Etc/", "SystemV/", "US/", "posix/", "right/")
    names = sorted(name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith(skipped))
    return [("UTC", "UTC"), *((name, name.replace("_", " ")) for name in names)]


def _languages() -> list[tuple[str, Any]]:
    return [("", _("As the browser asks")), *settings.LANGUAGES]


def _zones() -> list[tuple[str, Any]]:
    return [("", _("As the browser says")), *time_zones()]


def _choices(known: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [("", _("Not set")), *known]


class SignupFields(forms.Form):
    """What signing up asks for beside e-mail address and password (allauth adds these fields to its own)."""

    name = forms.CharField(
        label=_("Your name"), max_length=120, required=False, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    field_order = ("name", "email", "password1")

    def signup(self, request: HttpRequest, user: Person) -> None:
        """Keep the name, and the language that was signed up in."""
        user.name = self.cleaned_data["name"]
        user.language = language_of(request)
        user.save(update_fields=["name", "language"])


class ProfileForm(forms.Form):
    """What people say about themselves."""

    name = forms.CharField(label=_("Name"), max_length=120, required=False)
    language = forms.ChoiceField(label=_("Language"), choices=_languages, required=False)
    time_zone = forms.ChoiceField(label=_("Time zone"), choices=_zones, required=False)


class AccountForm(forms.Form):
    """A new account."""

    name = forms.CharField(label=_("Name"), max_length=120, widget=forms.TextInput(attrs={"autocomplete": "organization"}))


class OperatorAccountForm(AccountForm):
    """A new account that the operator makes for somebody."""

    owner = forms.EmailField(label=_("E-mail address of its owner"), help_text=_("Gets an invitation."))


class SettingsForm(forms.Form):
    """What owners and administrators set for an account."""

    name = forms.CharField(label=_("Name"), max_length=120)
    language = forms.ChoiceField(label=_("Language of notices"), choices=lambda: _choices(settings.LANGUAGES), required=False)
    time_zone = forms.ChoiceField(label=_("Time zone of notices"), choices=lambda: _choices(time_zones()), required=False)
    mfa_required = forms.BooleanField(
        label=_("Everybody signs in with a second factor"),
        required=False,
        help_text=_("Who has none sets one up at the next visit, and sees nothing of the account before."),
    )

    @classmethod
    def of(cls, account: Account) -> "SettingsForm":
        """Give the form filled with an account's settings."""
        return cls(initial={name: getattr(account, name) for name in cls.base_fields})


class InvitationForm(forms.Form):
    """Who is invited, as what."""

    email = forms.EmailField(label=_("E-mail address"))
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.DEVELOPER)


class JoiningForm(forms.Form):
    """What somebody new says when they take an invitation."""

    name = forms.CharField(
        label=_("Your name"), max_length=120, required=False, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    password = forms.CharField(
        label=_("Password"), strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )
