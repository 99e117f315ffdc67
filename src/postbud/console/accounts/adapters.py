"""How allauth behaves here: who may sign up, where links lead, what is sealed.

Invariants: links in mail begin with `public_url`, whatever Host a request claims; a way back after signing
in is a path of ours.
"""

import base64
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailConfirmation
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from postbud.console.accounts.guesses import mark_too_many
from postbud.console.accounts.invited import invitation_of
from postbud.console.configuration import current
from postbud.console.installation import seal_value, unseal_value

_SEALED_FACTOR = "second-factor"
_LOCAL = ("localhost", "127.0.0.1")


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Signing up and in."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Let in whoever was invited, and everybody when the operator allows it."""
        return current().sign_up or invitation_of(request) is not None

    def is_safe_url(self, url: str | None) -> bool:
        """Let a way back be a path of ours only."""
        return url_has_allowed_host_and_scheme(url, allowed_hosts=None)

    def validation_error(self, code: str, *args: Any) -> ValidationError:
        """Say what is wrong; too many tries are answered with 429."""
        if code.startswith("too_many"):
            mark_too_many()
        error: ValidationError = super().validation_error(code, *args)
        return error

    def get_client_ip(self, request: HttpRequest) -> str:
        """Give the address that `doors.ProxyMiddleware` settled."""
        return str(request.META.get("REMOTE_ADDR", ""))

    def get_reset_password_from_key_url(self, key: str) -> str:
        """Give the link that a reset mail carries."""
        path: str = reverse("account_reset_password_from_key", kwargs={"uidb36": "UID", "key": "KEY"})
        return public_address(path.replace("UID-KEY", key))

    def get_email_confirmation_url(
        self,
        request: HttpRequest,  # noqa: ARG002 (allauth's signature)
        emailconfirmation: EmailConfirmation,
    ) -> str:
        """Give the link that a confirmation mail carries."""
        return public_address(reverse("account_confirm_email", args=[emailconfirmation.key]))

    def render_mail(self, template_prefix: str, email: str, context: dict[str, Any], headers: Any = None) -> Any:
        """Name our own address, not the request's, in every mail."""
        site = {"name": "Postbud", "domain": urlsplit(current().public_url).netloc}
        context = {
            **context,
            "current_site": site,
            "public_url": current().public_url,
            "signup_url": public_address(reverse("account_signup")),
        }
        if "password_reset_url" in context and template_prefix == "account/email/account_already_exists":
            context["password_reset_url"] = public_address(reverse("account_reset_password"))
        return super().render_mail(template_prefix, email, context, headers)


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth has no types
    """Second factors: secrets sealed at rest, passkeys bound to our own name."""

    def encrypt(self, text: str) -> str:
        """Seal a secret."""
        return base64.b64encode(seal_value(_SEALED_FACTOR, text.encode())).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Open a sealed secret."""
        return unseal_value(_SEALED_FACTOR, base64.b64decode(encrypted_text)).decode()

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Name whom a passkey is for: the public name; on the machine itself what the browser calls it."""
        public = urlsplit(current().public_url).hostname or "localhost"
        asked = context.request.get_host().partition(":")[0]
        return {"id": asked if public in _LOCAL and asked in _LOCAL else public, "name": "Postbud"}


def public_address(path: str) -> str:
    """Give a path as others reach it."""
    return current().public_url.rstrip("/") + path
