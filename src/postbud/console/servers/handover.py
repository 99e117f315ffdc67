"""What is handed over with a fresh credential: settings to copy, snippets, a QR code.

Pure: takes values, gives text. Invariant: a secret appears here only because the caller had it at hand; nothing here keeps it.
"""

import json
import shlex
from dataclasses import dataclass

import segno
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _


@dataclass(frozen=True)
class Line:
    """One setting: what it is called, and its value. `secret` values are shown larger."""

    name: str
    value: str
    secret: bool = False


@dataclass(frozen=True)
class Snippet:
    """Text to paste into a terminal or program."""

    identity: str
    name: str
    text: str


@dataclass(frozen=True)
class Relay:
    """Where customers hand mail in."""

    host: str
    port: int
    tls_port: int
    api_url: str


def smtp_lines(relay: Relay, *, implicit: bool, username: str, secret: str, sender: str) -> list[Line]:
    """Give the settings of a device that signs in by SMTP."""
    port, tls = (relay.tls_port, _("SSL/TLS")) if implicit else (relay.port, "STARTTLS")
    return [
        Line(_("SMTP server"), relay.host),
        Line(_("Port"), str(port)),
        Line(_("Encryption"), tls),
        Line(_("Username"), username),
        Line(_("Password"), secret, secret=True),
        Line(_("Sender (From)"), sender),
    ]


def smtp_snippets(relay: Relay, *, username: str, secret: str, sender: str, recipient: str) -> list[Snippet]:
    """Give lines that send one message by SMTP."""
    parts = (
        f"swaks --server {relay.host}:{relay.port} --tls",
        f"--auth-user {shlex.quote(username)} --auth-password {shlex.quote(secret)}",
        f"--from {shlex.quote(sender)} --to {shlex.quote(recipient)}",
    )
    swaks = " \\\n  ".join(parts)
    python = f"""import smtplib
from email.message import EmailMessage

message = EmailMessage()
message["From"] = {json.dumps(sender)}
message["To"] = {json.dumps(recipient)}
message["Subject"] = "Hello from Postbud"
message.set_content("It works.")

with smtplib.SMTP({json.dumps(relay.host)}, {relay.port}) as smtp:
    smtp.starttls()
    smtp.login({json.dumps(username)}, {json.dumps(secret)})
    smtp.send_message(message)"""
    msmtp = f"host {relay.host}\nport {relay.port}\ntls on\nauth on\nuser {username}\npassword {secret}\nfrom {sender}"
    return [
        Snippet("snippet-swaks", "swaks", swaks),
        Snippet("snippet-python", "Python", python),
        Snippet("snippet-msmtp", "msmtp", msmtp),
    ]


def api_snippets(relay: Relay, *, key: str, sender: str, recipient: str) -> list[Snippet]:
    """Give lines that send one message by HTTP."""
    body = {"from": sender, "to": [recipient], "subject": "Hello from Postbud", "text": "It works."}
    url = relay.api_url.rstrip("/") + "/v1/messages"
    curl = (
        f"curl {shlex.quote(url)} \\\n  -H {shlex.quote(f'Authorization: Bearer {key}')} \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(body))}"
    )
    python = f"""import json, urllib.request

message = {json.dumps(body)}
request = urllib.request.Request({json.dumps(url)}, json.dumps(message).encode(), {{
    "Authorization": {json.dumps(f"Bearer {key}")}, "Content-Type": "application/json"}})
print(urllib.request.urlopen(request).read().decode())"""
    return [Snippet("snippet-curl", "curl", curl), Snippet("snippet-python", "Python", python)]


def qr_code(lines: list[Line]) -> SafeString:
    """Draw the settings as a QR code: text that a telephone shows and copies."""
    text = "\n".join(f"{line.name}: {line.value}" for line in lines)
    drawn = segno.make(text, error="m", micro=False).svg_inline(border=1, dark="#111", light="#fff", omitsize=True)
    return mark_safe(drawn)  # noqa: S308 (made by segno from its own shapes; the text is drawn, not written)
