"""One message through our own relay with a customer's credential, while its secret is at hand.

Speaks SMTP to the configured relay on this machine only; keeps nothing. Invariant: what the relay said is passed on as text,
and the secret appears neither in a log nor in an error. RFC 5321, 4954.
"""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Trial:
    """What became of the handing over: the message's id, or the reply that refused it. `reached` False: nobody answered."""

    message: str = ""
    reply: str = ""
    reached: bool = True


def send_trial(*, relay: str, username: str, secret: str, sender: str, recipient: str, subject: str, text: str) -> Trial:
    """Hand one message to the relay at `relay` (`host:port`), signed in as the credential."""
    host, _, port = relay.rpartition(":")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"], message["Date"] = sender, recipient, subject, formatdate(usegmt=True)
    message.set_content(text)
    try:
        with smtplib.SMTP(host, int(port), timeout=TIMEOUT_SECONDS) as smtp:
            smtp.ehlo()
            if smtp.has_extn("starttls"):
                smtp.starttls(context=_own_relay())
                smtp.ehlo()
            smtp.login(username, secret)
            smtp.mail(sender)
            code, said = smtp.rcpt(recipient)
            if code < 300:
                code, said = smtp.data(message.as_bytes(policy=SMTP))
    except smtplib.SMTPResponseException as error:
        return Trial(reply=_text(error.smtp_code, error.smtp_error))
    except (OSError, smtplib.SMTPException):
        return Trial(reached=False)
    reply = _text(code, said)
    return Trial(message=next((word for word in reply.split() if word.startswith("msg_")), ""), reply=reply)


def _own_relay() -> ssl.SSLContext:
    """Encrypt without asking who it is: the relay is ours, on this machine, and may have a certificate of its own making."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _text(code: int, said: bytes | str) -> str:
    return f"{code} {said.decode('utf-8', 'replace') if isinstance(said, bytes) else said}"
