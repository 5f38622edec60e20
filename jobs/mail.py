"""Mail through the operator's SMTP server.

    smtps://user:password@host[:465]    TLS from the first byte
    smtp://user:password@host[:587]     STARTTLS where the server offers it; without TLS no password
                                        is sent, but to this machine itself

Certificates are always verified. A message may arrive twice (a connection that breaks after the
text was sent tells nothing), under the same Message-ID, by which mail servers can tell a repeat.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from urllib.parse import SplitResult, unquote, urlsplit

import aiosmtplib
from aiosmtplib import SMTP, SMTPException

from jobs.contract import Failed, Failure, FailureKind, Held, JobEnds, Outcome, RetryLater

PORTS = {"smtp": 587, "smtps": 465}
PERMANENT = 500
AT_ONCE = 4
"""Connections of one worker: mail servers refuse who opens many."""
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class MailServer:
    host: str
    port: int
    tls: bool
    """From the first byte."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> MailServer:
        """Raises `ValueError`, without the password in it."""
        parts, wrong = urlsplit(url), "give smtp://user:password@host:port or smtps://…"
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(wrong)
        if parts.username and parts.password is None:
            raise ValueError("there is a user but no password: " + wrong)
        return cls(
            host=parts.hostname,
            port=_port(parts) or PORTS[parts.scheme],
            tls=parts.scheme == "smtps",
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError("the port must be a number below 65536") from None


def check_sender(text: str) -> str:
    """An address with or without a name: `Shop <no-reply@shop.example>`."""
    address = parseaddr(text)[1]
    if not text.isprintable() or "@" not in address.strip("@") or " " in address:
        raise ValueError("give an address such as no-reply@shop.example or Shop <…>")
    return text


class Mailer:
    def __init__(self, server: MailServer | None, sender: str | None) -> None:
        self._server = server
        self._sender = sender
        self._free = asyncio.Semaphore(AT_ONCE)

    async def send(self, message: EmailMessage, identity: tuple[str, ...]) -> None:
        """`identity` is the same for every try of the same work. Raises `JobEnds`."""
        if self._server is None:
            raise JobEnds(_held("ROWMILL_SMTP_URL is not set"))
        if self._sender is None:
            raise JobEnds(_held("ROWMILL_MAIL_FROM is not set"))
        self._complete(message, self._sender, identity)
        async with self._free:
            try:
                await self._deliver(self._server, message)
            except (SMTPException, OSError) as error:
                raise JobEnds(_outcome(error)) from error

    def _complete(self, message: EmailMessage, sender: str, identity: tuple[str, ...]) -> None:
        if "From" not in message:
            message["From"] = sender
        if "Date" not in message:
            message["Date"] = formatdate()
        if "Message-ID" not in message:
            words = (*identity, str(message["To"]), str(message["Subject"]))
            name = hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]
            message["Message-ID"] = f"<{name}@{parseaddr(sender)[1].rpartition('@')[2]}>"

    async def _deliver(self, server: MailServer, message: EmailMessage) -> None:
        async with asyncio.timeout(2 * SECONDS):
            # STARTTLS is left to connect(): it upgrades where that is offered.
            async with SMTP(
                hostname=server.host, port=server.port, use_tls=server.tls, timeout=SECONDS
            ) as smtp:
                if server.user is not None and server.password is not None:
                    await _login(smtp, server, server.user, server.password)
                await smtp.send_message(message)


async def greet(server: MailServer, seconds: float) -> str | None:
    """Whether it is there and speaks SMTP; what is wrong where it isn't. Sends nothing."""
    try:
        async with asyncio.timeout(seconds):
            async with SMTP(
                hostname=server.host, port=server.port, use_tls=server.tls, timeout=seconds
            ) as smtp:
                await smtp.ehlo()
    except TimeoutError:
        return f"no answer within {seconds:g}s"
    except (SMTPException, OSError) as error:
        return _first_line(error)
    return None


async def _login(smtp: SMTP, server: MailServer, user: str, password: str) -> None:
    if smtp.get_transport_info("sslcontext") is None and not _here(server.host):
        raise NotLetIn(f"{server.host} offers no TLS, so the password is not sent")
    try:
        await smtp.login(user, password)
    except aiosmtplib.SMTPNotSupported as error:
        raise NotLetIn(f"{server.host} has no way to log in that we know: {error}") from error


class NotLetIn(SMTPException):
    """We can't log in, or won't."""


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _outcome(error: Exception) -> Outcome:
    """What it means for the job, by who refused what, and whether for good."""
    code, reason = _code(error), _first_line(error)
    match error:
        case NotLetIn():
            return _held(reason)
        case aiosmtplib.SMTPNotSupported():  # an address this server can't write to
            return _refused(reason, "smtp_unsupported")
        case aiosmtplib.SMTPRecipientsRefused() | aiosmtplib.SMTPDataError():
            if code >= PERMANENT:
                return _refused(reason, f"smtp_{code}")
        case aiosmtplib.SMTPResponseException() if code >= PERMANENT:
            return _held(f"the mail server refuses us: {reason}")
    name = f"smtp_{code}" if code else "network"
    return RetryLater(Failure(FailureKind.TRANSIENT, f"the mail was not sent: {reason}", name))


def _code(error: Exception) -> int:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):  # one that may take it later counts
        return min((refused.code for refused in error.recipients), default=0)
    return error.code if isinstance(error, aiosmtplib.SMTPResponseException) else 0


def _first_line(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return "; ".join(f"{r.recipient}: {r.code} {r.message}" for r in error.recipients)
    return (str(error) or type(error).__name__).split("\n", 1)[0]


def _refused(reason: str, code: str) -> Failed:
    return Failed(Failure(FailureKind.INVALID, f"the mail is refused: {reason}", code))


def _held(problem: str) -> Held:
    settings = "ROWMILL_SMTP_URL and ROWMILL_MAIL_FROM"
    return Held(f"{problem}: set {settings} on the workers, then `rowmill retry` the job")
