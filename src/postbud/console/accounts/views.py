"""Pages of an account (home, people, settings, audit log), of invitations, and of the viewer's own profile.

Reads; what changes is changed by the service modules. Invariant: every query names the account of the address.
"""

from datetime import timedelta
from typing import Any, cast

from allauth.account.adapter import get_adapter
from allauth.mfa.models import Authenticator
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from postbud.console.accounts import invited, membership, services
from postbud.console.accounts import people as persons
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.forms import AccountForm, InvitationForm, JoiningForm, ProfileForm, SettingsForm
from postbud.console.accounts.history import page_of
from postbud.console.accounts.models import Account, Invitation, Membership, Person, Role
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.accounts.steps import first_steps
from postbud.console.configuration import current
from postbud.console.mail import figures
from postbud.console.refused import Refused
from postbud.console.ui.frame import accounts_of
from postbud.console.ui.refusals import as_message, at_field

DAY = timedelta(hours=24)
LATEST = 8
BOTH = ("GET", "HEAD", "POST")


@route(scope="person", methods=BOTH)
def start(request: HttpRequest) -> HttpResponse:
    """Lead on: to a waiting invitation, the one account, the operator's list, or the choice of accounts."""
    token = invited.token_of(request)
    if token and invited.find(token):
        return redirect("accounts:invitation", token)
    person = cast("Person", request.user)
    accounts = accounts_of(person)
    if request.method != "POST" and "choose" not in request.GET:
        if len(accounts) == 1 and not person.is_operator:
            return redirect(accounts[0]["home"])
        if person.is_operator and not accounts:
            return redirect("operator:overview")
    form = AccountForm(request.POST or None) if current().sign_up else None
    if form is not None and request.method == "POST" and form.is_valid():
        try:
            made = services.create_account(actor_of(request), form.cleaned_data["name"], owner=person)
        except Refused as refused:
            at_field(form, refused)
        else:
            return redirect("accounts:home", made.id)
    return render(request, "accounts/start.html", {"form": form})


@route(scope="person", methods=BOTH)
def profile(request: HttpRequest) -> HttpResponse:
    """Show and change what the viewer says about themselves."""
    person = cast("Person", request.user)
    given = {name: getattr(person, name) for name in ProfileForm.base_fields}
    form = ProfileForm(request.POST) if request.method == "POST" else ProfileForm(initial=given)
    if request.method == "POST" and form.is_valid():
        try:
            persons.update_profile(actor_of(request), person.id, **form.cleaned_data)
        except Refused as refused:
            at_field(form, refused)
        else:
            messages.success(request, _("Saved."))
            return redirect("accounts:profile")
    return render(request, "accounts/profile.html", {"form": form})


@route(scope="public", methods=BOTH)
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Show an invitation, and take it: as who is signed in, or as somebody new."""
    found = invited.find(token)
    if found is None:
        return render(request, "accounts/invitation.html", {"invitation": None}, status=404)
    invited.remember(request, token)
    person = request.user if isinstance(request.user, Person) else None
    known = Person.objects.filter(email=found.email).exists()
    form = None if person or known else JoiningForm(request.POST or None)
    if request.method == "POST" and (person or (form is not None and form.is_valid())):
        try:
            if person:
                membership.accept_invitation(actor_of(request), token, person)
            elif form is not None:
                values = form.cleaned_data
                made = membership.accept_as_new_person(actor_of(request), token, values["name"], values["password"])
                get_adapter(request).login(request, made)
        except Refused as refused:
            if form is not None:
                at_field(form, refused)
            else:
                as_message(request, refused)
                return redirect("accounts:invitation", token)
        else:
            invited.forget(request)
            return redirect("accounts:home", found.account_id)
    inviter = found.invited_by
    return render(
        request,
        "accounts/invitation.html",
        {
            "invitation": found,
            "inviter": inviter.get_full_name() if inviter else "Postbud",
            "wrong_person": bool(person and person.email != found.email),
            "new_person": form is not None,
            "form": form,
        },
    )


@route(Permission.VIEW)
def home(request: HttpRequest, account_id: str) -> HttpResponse:
    """Show where an account stands: first steps, the last day, what happened lately."""
    account = _account(request)
    now = timezone.now()
    day = figures.total(account_id, now - DAY)
    steps = first_steps(account) if may(request, Permission.SERVERS) else []
    share = day.share_delivered
    return render(
        request,
        "accounts/home.html",
        {
            "steps": steps,
            "day": day,
            "rate": "" if share is None else number_format(share * 100, 1) + " %",
            "chart": _chart(account_id, now) if day.accepted or day.bounced or day.deferred else None,
            "latest": figures.latest(account_id, LATEST),
        },
    )


@route(Permission.VIEW, methods=BOTH)
def people(request: HttpRequest, account_id: str) -> HttpResponse:
    """List members and invitations; POST invites somebody."""
    account = _account(request)
    may_manage = may(request, Permission.PEOPLE)
    form = InvitationForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        if not may_manage:
            return render(request, "403.html", status=403)
        if form.is_valid():
            try:
                membership.invite(actor_of(request), account_id, form.cleaned_data["email"], form.cleaned_data["role"])
            except Refused as refused:
                at_field(form, refused)
            else:
                messages.success(request, _("The invitation is on its way."))
                return redirect("accounts:people", account_id)
    waiting = Invitation.objects.filter(account=account, accepted_at=None, withdrawn_at=None, expires_at__gt=timezone.now())
    return render(
        request,
        "accounts/people.html",
        {
            "members": _members(request, account),
            "invitations": waiting.order_by("created_at") if may_manage else [],
            "roles": Role.choices,
            "form": form,
            "may_manage": may_manage,
        },
    )


@route(Permission.PEOPLE, methods=("POST",))
def member_role(request: HttpRequest, account_id: str, person_id: str) -> HttpResponse:
    """Give a member another role."""
    try:
        membership.change_role(actor_of(request), account_id, person_id, request.POST.get("role", ""))
        messages.success(request, _("Saved."))
    except Refused as refused:
        as_message(request, refused)
    return redirect("accounts:people", account_id)


@route(Permission.PEOPLE, methods=("POST",))
def member_remove(request: HttpRequest, account_id: str, person_id: str) -> HttpResponse:
    """End a membership."""
    try:
        membership.remove_member(actor_of(request), account_id, person_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("accounts:people", account_id)


@route(Permission.PEOPLE, methods=("POST",))
def invitation_withdraw(request: HttpRequest, account_id: str, invitation_id: str) -> HttpResponse:
    """Take an invitation back."""
    try:
        membership.withdraw_invitation(actor_of(request), account_id, invitation_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("accounts:people", account_id)


@route(Permission.VIEW, methods=BOTH)
def settings(request: HttpRequest, account_id: str) -> HttpResponse:
    """Show an account's settings and plan; POST changes them."""
    account = _account(request)
    may_manage = may(request, Permission.ACCOUNT)
    form = SettingsForm(request.POST) if request.method == "POST" else SettingsForm.of(account)
    if request.method == "POST":
        if not may_manage:
            return render(request, "403.html", status=403)
        if form.is_valid():
            try:
                services.update_account(actor_of(request), account_id, **form.cleaned_data)
            except Refused as refused:
                at_field(form, refused)
            else:
                messages.success(request, _("Saved."))
                return redirect("accounts:settings", account_id)
    if not may_manage:
        for field in form.fields.values():
            field.disabled = True
    values = {"form": form, "may_manage": may_manage, "may_leave": may(request, Permission.OWN)}
    return render(request, "accounts/settings.html", values)


@route(Permission.AUDIT)
def audit_log(request: HttpRequest, account_id: str) -> HttpResponse:
    """Show who changed what."""
    page = page_of(
        account_id, actor=request.GET.get("actor", ""), action=request.GET.get("action", ""), below=request.GET.get("below", "")
    )
    return render(request, "accounts/audit.html", {**page.shown(reverse("accounts:audit", args=[account_id]))})


def _account(request: HttpRequest) -> Account:
    return cast("Account", request.account)  # type: ignore[attr-defined]  # set by `route`


def _members(request: HttpRequest, account: Account) -> list[Membership]:
    members = list(Membership.objects.filter(account=account).select_related("person").order_by("created_at"))
    kinds = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    ids = [one.person_id for one in members]
    guarded = set(Authenticator.objects.filter(user_id__in=ids, type__in=kinds).values_list("user_id", flat=True))
    owner = may(request, Permission.OWN)
    shown: list[Any] = []
    for one in members:
        one.has_second_factor = one.person_id in guarded  # type: ignore[attr-defined]  # for the template only
        one.changeable = owner or one.role != Role.OWNER  # type: ignore[attr-defined]  # as above
        shown.append(one)
    return shown


def _chart(account_id: str, now: Any) -> dict[str, Any]:
    course = figures.course(account_id, now - DAY, now)
    return {
        "times": course.times,
        "series": [
            {"name": _("Delivered"), "colour": "ok", "values": course.delivered},
            {"name": _("Deferred"), "colour": "warn", "values": course.deferred},
            {"name": _("Bounced"), "colour": "bad", "values": course.bounced},
        ],
    }
