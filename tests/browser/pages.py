"""Every page there is, who looks at it, and where: what is checked for faults, and photographed."""

from dataclasses import dataclass
from typing import Any

from tests.browser.seed_names import ADA, NINA, OPERATOR


@dataclass(frozen=True)
class Shown:
    """A page: its name in files, its address (with `{}` of what `seed` made), and who is signed in."""

    name: str
    route: str
    address: str
    who: str = ADA

    def at(self, made: dict[str, Any]) -> str:
        """Give the address."""
        printer = made["credentials"]["Printer, 2nd floor"]["id"]
        return self.address.format(**made | {"a": f"/a/{made['account']}", "fresh": f"/a/{made['fresh']}", "printer": printer})


PAGES = [
    Shown("sign-in", "account_login", "/me/login/", ""),
    Shown("sign-up", "account_signup", "/me/signup/", ""),
    Shown("password-forgotten", "account_reset_password", "/me/password/reset/", ""),
    Shown("nothing-there", "", "/nothing/", ""),
    Shown("start", "accounts:start", "/", NINA),
    Shown("home", "accounts:home", "{a}/"),
    Shown("home-fresh", "accounts:home", "{fresh}/"),
    Shown("statistics", "mail:statistics", "{a}/statistics/"),
    Shown("statistics-month", "mail:statistics", "{a}/statistics/?period=30d&by=class"),
    Shown("statistics-one", "mail:statistics", "{a}/statistics/?period=24h&dimension=server&key={server}"),
    Shown("statistics-fresh", "mail:statistics", "{fresh}/statistics/"),
    Shown("messages", "mail:messages", "{a}/messages/"),
    Shown("messages-fresh", "mail:messages", "{fresh}/messages/"),
    Shown("messages-found", "mail:messages", "{a}/messages/?period=7d&state=bounced"),
    Shown("messages-nothing", "mail:messages", "{a}/messages/?q=absent"),
    Shown("message", "mail:message", "{a}/messages/{message}/"),
    Shown("message-content", "mail:content", "{a}/messages/{content}/content/"),
    Shown("servers", "servers:servers", "{a}/servers/"),
    Shown("servers-fresh", "servers:servers", "{fresh}/servers/"),
    Shown("server-new", "servers:create", "{a}/servers/new/"),
    Shown("server", "servers:server", "{a}/servers/{server}/"),
    Shown("server-settings", "servers:edit", "{a}/servers/{server}/settings/"),
    Shown("credential-new", "servers:credential_create", "{a}/servers/{server}/credentials/new/"),
    Shown("credential", "servers:credential", "{a}/credentials/{printer}/"),
    Shown("domains", "domains:domains", "{a}/domains/"),
    Shown("domains-fresh", "domains:domains", "{fresh}/domains/"),
    Shown("domain-new", "domains:create", "{a}/domains/new/"),
    Shown("domain", "domains:domain", "{a}/domains/{domain}/"),
    Shown("domain-pending", "domains:domain", "{a}/domains/{pending}/"),
    Shown("webhooks", "hooks:endpoints", "{a}/webhooks/"),
    Shown("webhook-new", "hooks:create", "{a}/webhooks/new/"),
    Shown("webhook", "hooks:endpoint", "{a}/webhooks/{endpoint}/"),
    Shown("webhook-settings", "hooks:edit", "{a}/webhooks/{endpoint}/settings/"),
    Shown("webhook-post", "hooks:hook", "{a}/webhooks/{endpoint}/posts/{hook}/"),
    Shown("identity", "accounts:identity", "{a}/identity/"),
    Shown("identity-fresh", "accounts:identity", "{fresh}/identity/"),
    Shown("people", "accounts:people", "{a}/people/"),
    Shown("audit", "accounts:audit", "{a}/audit/"),
    Shown("api-keys", "api:keys", "{a}/api-keys/"),
    Shown("api-keys-fresh", "api:keys", "{fresh}/api-keys/"),
    Shown("api-reference", "api:reference", "/api/"),
    Shown("settings", "accounts:settings", "{a}/settings/"),
    Shown("profile", "accounts:profile", "/profile/"),
    Shown("addresses", "account_email", "/me/email/"),
    Shown("password", "account_change_password", "/me/password/change/"),
    Shown("security", "mfa_index", "/me/mfa/"),
    Shown("sessions", "usersessions_list", "/me/sessions/"),
    Shown("operator", "accounts:operator", "/operator/accounts/", OPERATOR),
    Shown("operator-overview", "operator:overview", "/operator/", OPERATOR),
    Shown("operator-statistics", "operator:statistics", "/operator/statistics/", OPERATOR),
    Shown("operator-queue", "operator:queue", "/operator/queue/", OPERATOR),
    Shown("operator-health", "operator:health", "/operator/health/", OPERATOR),
    Shown("operator-relays", "operator:relays", "/operator/relays/", OPERATOR),
    Shown("operator-relay", "operator:relay", "/operator/relays/{node}/", OPERATOR),
    Shown("operator-account", "operator:account", "/operator/accounts/{account}/", OPERATOR),
    Shown("operator-domains", "operator:domains", "/operator/domains/", OPERATOR),
    Shown("operator-identities", "operator:identities", "/operator/identities/", OPERATOR),
    Shown("operator-audit", "operator:audit", "/operator/audit/", OPERATOR),
    Shown("operator-announcements", "operator:announcements", "/operator/announcements/", OPERATOR),
]
# no page of its own: a fragment, a file, for programs, a frame's content, or there only for a moment (the walk comes by)
NO_PAGE = {
    "domains:zone", "mail:statistics_export",
    "mail:newer", "mail:export_csv", "mail:export_ndjson", "mail:content_html", "mail:content_raw", "servers:trial_state",
    "accounts:invitation", "accounts:evidence", "accounts:everything", "api:nothing", "operator:evidence",
    "api:api-root", "api:openapi-json", "mail:weekly_end",
}  # fmt: skip
