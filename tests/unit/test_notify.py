"""Notifications over a real webhook receiver and a real SMTP server, both on loopback."""

from __future__ import annotations

import asyncio
import email
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default as modern
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from jobs.contract import Failed, Held, JobEnds, Outcome, RetryLater, Succeeded
from jobs.mail import Mailer, MailServer, check_sender
from jobs.providers.transport import Client
from tests.unit.web import Web, run
from worker.logs import without_secrets
from worker.settings import Settings

KIND = "background:send_notification"
SENDER = "EcomVideo <no-reply@shop.example>"
USER = {"id": "u", "email": "ada@example.org", "first_name": "Ada", "is_active": True}
VIDEO = {"title": "Teapot", "status": "Completed", "video_url": "https://cdn.example/v.mp4"}


@dataclass
class Mailbox:
    """An SMTP server that keeps what it is sent, and refuses what it is told to."""

    refuse: dict[str, str] = field(default_factory=dict)
    """rcpt, sender or data → the answer."""
    got: list[Any] = field(default_factory=list)
    url: str = ""

    async def handle_MAIL(  # noqa: N802 - the server's name for it
        self, _s: SMTP, _se: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if "sender" in self.refuse:
            return self.refuse["sender"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _s: SMTP, _se: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if "rcpt" in self.refuse:
            return self.refuse["rcpt"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _s: SMTP, _se: Any, envelope: Envelope) -> str:  # noqa: N802
        if "data" in self.refuse:
            return self.refuse["data"]
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=modern)
        self.got.append((envelope.mail_from, envelope.rcpt_tos, message))
        return "250 kept"


def login(_s: Any, _se: Any, _e: Any, _mechanism: str, given: Any) -> AuthResult:
    return AuthResult(success=given == LoginPassword(b"ada@x", b"p:w/d"), handled=False)


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, authenticator=login, auth_require_tls=False, hostname="mx"), "127.0.0.1"
    )
    box.url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield box
    server.close()
    await server.wait_closed()


@dataclass
class Receiver:
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.json()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def ctx(mailbox: Mailbox) -> AsyncIterator[Web]:
    client = Client(limit=10)
    yield Web(client, Mailer(MailServer.parse(mailbox.url), SENDER))
    await client.aclose()


def told(type_: str = "VideoCompleted", **more: Any) -> dict[str, Any]:
    payload = {"type": type_, "video_id": "v-1", **more.pop("payload", {})}
    return {"payload": payload, "user": USER, "video": VIDEO, **more}


async def refused(box: Mailbox, ctx: Web, **how: str) -> Outcome:
    box.refuse = how
    return await run(ctx, KIND, told())


# --------------------------------------------------------------------------- mails


async def test_a_mail_in_the_platforms_tone(ctx: Web, mailbox: Mailbox) -> None:
    outcome = await run(ctx, KIND, told())
    assert outcome == Succeeded(metadata={"sent": ["email"]})
    [(sender, recipients, message)] = mailbox.got
    assert (sender, recipients) == ("no-reply@shop.example", ["ada@example.org"])
    assert message["From"] == SENDER
    assert message["To"] == "Ada <ada@example.org>"
    assert message["Subject"] == "Your video is ready: Teapot"
    text = message.get_content().replace("\r\n", "\n")
    assert text.startswith("Hi Ada,\n\nYour video “Teapot” is ready.\n\nhttps://cdn.example/v.mp4")
    assert message["Message-ID"].endswith("@shop.example>")
    assert message["Date"]


async def test_a_repeat_has_the_same_message_id(ctx: Web, mailbox: Mailbox) -> None:
    await run(ctx, KIND, told())
    await run(ctx, KIND, told())
    first, second = (message["Message-ID"] for _, _, message in mailbox.got)
    assert first == second


async def test_the_payloads_own_words(ctx: Web, mailbox: Mailbox) -> None:
    given = told("payment_failed", payload={"Subject": "Card", "message": "Please {look}."})
    await run(ctx, KIND, given)
    [(_, _, message)] = mailbox.got
    assert message["Subject"] == "Card"
    assert "Please {look}." in message.get_content()


@pytest.mark.parametrize("where", ["subject", "title", "first_name"])
async def test_no_header_can_be_injected(ctx: Web, mailbox: Mailbox, where: str) -> None:
    evil = "x\r\nBcc: eve@example.org\r\n\r\nbody"
    given = told(payload={"subject": evil} if where == "subject" else {})
    given["video"] = {**VIDEO, "title": evil if where == "title" else "Teapot"}
    given["user"] = {**USER, "first_name": evil if where == "first_name" else "Ada"}
    await run(ctx, KIND, given)
    [(_, recipients, message)] = mailbox.got
    assert recipients == ["ada@example.org"]
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    "address",
    ["a@b.c, eve@example.org", "a@b.c\r\nBcc: eve@example.org", "nobody", "@", "<a@b.c", "a b@c"],
)
async def test_an_address_that_is_none_fails(ctx: Web, mailbox: Mailbox, address: str) -> None:
    outcome = await run(ctx, KIND, told(user={**USER, "email": address}))
    assert isinstance(outcome, Failed), outcome
    assert mailbox.got == []


@pytest.mark.parametrize(
    ("type_", "settings", "why"),
    [
        ("VideoCompleted", {"video_completed": False}, "video_completed"),
        ("VideoFailed", {"video_failed": False, "video_completed": True}, "video_failed"),
        ("SubscriptionRenewal", {"subscription_renewal": False}, "subscription_renewal"),
        ("SubscriptionExpired", {"subscription_expired": False}, "subscription_expired"),
        ("PaymentFailed", {"payment_failed": False}, "payment_failed"),
        ("NewFeatures", {"new_features": False}, "new_features"),
        ("WeeklyDigest", {"weekly_digest": False}, "weekly_digest"),
        ("VideoCompleted", {"email_enabled": False}, "email_enabled"),
        ("VideoCompleted", {"email_notifications_enabled": False}, "email_notifications"),
        ("MarketingUpdates", {"marketing_emails_enabled": True}, "marketing_updates"),
        ("MarketingUpdates", {"marketing_updates": True}, "marketing_emails_enabled"),
    ],
)
async def test_what_a_user_doesnt_want_is_not_sent(
    ctx: Web, mailbox: Mailbox, type_: str, settings: dict[str, bool], why: str
) -> None:
    ours = ("email_notifications_enabled", "marketing_emails_enabled")
    preferences = {name: value for name, value in settings.items() if name in ours}
    notifications = {name: value for name, value in settings.items() if name not in ours}
    given = told(type_, notifications=notifications, preferences=preferences)
    outcome = await run(ctx, KIND, given)
    assert isinstance(outcome, Succeeded), outcome
    assert why in outcome.metadata["skipped"]
    assert mailbox.got == []


async def test_wanted_marketing_is_sent(ctx: Web, mailbox: Mailbox) -> None:
    flags = {"notifications": {"marketing_updates": True}}
    given = told("MarketingUpdates", **flags, preferences={"marketing_emails_enabled": True})
    assert await run(ctx, KIND, given) == Succeeded(metadata={"sent": ["email"]})
    assert len(mailbox.got) == 1


async def test_an_unknown_type_fails(ctx: Web) -> None:
    outcome = await run(ctx, KIND, told("VideoMelted"))
    assert isinstance(outcome, Failed)
    assert "VideoCompleted" in outcome.failure.message


# --------------------------------------------------------------------------- webhooks


async def test_webhook_and_mail(ctx: Web, mailbox: Mailbox, receiver: Receiver) -> None:
    given = told(payload={"webhookUrl": receiver.url, "webhook_secret": "s"})
    assert await run(ctx, KIND, given) == Succeeded(metadata={"sent": ["webhook", "email"]})
    [(headers, body)] = receiver.got
    assert body["type"] == "VideoCompleted"
    assert body["data"]["video_url"] == VIDEO["video_url"]
    assert {name.lower() for name in headers} >= {"webhook-id", "webhook-signature"}
    assert len(mailbox.got) == 1


async def test_a_webhook_goes_though_no_mail_is_wanted(
    ctx: Web, mailbox: Mailbox, receiver: Receiver
) -> None:
    given = told(payload={"webhook_url": receiver.url}, notifications={"email_enabled": False})
    outcome = await run(ctx, KIND, given)
    assert isinstance(outcome, Succeeded)
    assert outcome.metadata["sent"] == ["webhook"]
    assert mailbox.got == []


async def test_no_mail_is_repeated_for_a_webhook(
    ctx: Web, mailbox: Mailbox, receiver: Receiver
) -> None:
    """While the webhook may still succeed there is no mail; after its last try there is one."""
    receiver.statuses = [500, 503, 500, 500]
    given = told(payload={"webhook_url": receiver.url})
    for tries in range(4):
        outcome = await run(ctx, KIND, given, tries=tries)
        assert isinstance(outcome, RetryLater), outcome
        assert len(mailbox.got) == (1 if tries == 3 else 0)


async def test_a_webhook_that_fails_for_good_costs_nobody_the_mail(
    ctx: Web, mailbox: Mailbox, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    outcome = await run(ctx, KIND, told(payload={"webhook_url": receiver.url}))
    assert isinstance(outcome, Failed)
    assert len(mailbox.got) == 1


async def test_a_webhook_to_a_private_host_is_refused(ctx: Web, receiver: Receiver) -> None:
    ctx.allowed = ()
    outcome = await run(ctx, KIND, told(payload={"webhook_url": receiver.url}))
    assert isinstance(outcome, Failed)
    assert outcome.failure.code == "host_refused"
    assert receiver.got == []


# --------------------------------------------------------------------------- the mail server


@pytest.mark.parametrize(
    ("stage", "answer", "kind"),
    [
        ("rcpt", "550 no such user", Failed),
        ("rcpt", "450 try later", RetryLater),
        ("data", "554 looks like spam", Failed),
        ("data", "452 full", RetryLater),
        ("sender", "550 who are you", Held),
        ("sender", "451 greylisted", RetryLater),
    ],
)
async def test_who_refuses_what(
    ctx: Web, mailbox: Mailbox, stage: str, answer: str, kind: type[Outcome]
) -> None:
    outcome = await refused(mailbox, ctx, **{stage: answer})
    assert isinstance(outcome, kind), outcome
    assert answer[4:] in str(outcome)


async def test_no_server_there_is_tried_again(ctx: Web) -> None:
    ctx.mailer = Mailer(MailServer.parse("smtp://127.0.0.1:1"), SENDER)
    assert isinstance(await run(ctx, KIND, told()), RetryLater)


@pytest.mark.parametrize(
    ("server", "sender", "names"),
    [
        (None, SENDER, "ROWMILL_SMTP_URL is not set"),
        (MailServer.parse("smtp://127.0.0.1:1"), None, "ROWMILL_MAIL_FROM is not set"),
    ],
)
async def test_without_a_server_nothing_is_lost(
    ctx: Web, server: MailServer | None, sender: str | None, names: str
) -> None:
    ctx.mailer = Mailer(server, sender)
    outcome = await run(ctx, KIND, told())
    assert isinstance(outcome, Held)
    assert names in outcome.reason


async def test_logging_in(ctx: Web, mailbox: Mailbox) -> None:
    url = mailbox.url.replace("smtp://", "smtp://ada%40x:p%3Aw%2Fd@")
    ctx.mailer = Mailer(MailServer.parse(url), SENDER)
    assert isinstance(await run(ctx, KIND, told()), Succeeded)
    ctx.mailer = Mailer(MailServer.parse(url.replace("p%3A", "no")), SENDER)
    outcome = await run(ctx, KIND, told())
    assert isinstance(outcome, Held), outcome


async def test_no_password_is_sent_in_the_clear(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.mail._here", lambda _host: False)  # as if it were elsewhere
    server = MailServer.parse(mailbox.url.replace("smtp://", "smtp://ada%40x:p%3Aw%2Fd@"))
    with pytest.raises(JobEnds, match="offers no TLS"):
        await Mailer(server, SENDER).send(note(), ("a",))
    assert mailbox.got == []


CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mx -addext"
    " subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    subprocess.run(CERTIFICATE.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Mailbox]:
    """A server that offers STARTTLS, with a certificate for which nobody vouches yet."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, authenticator=login, tls_context=context, hostname="mx"), "127.0.0.1"
    )
    box.url = f"smtp://ada%40x:p%3Aw%2Fd@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield box
    server.close()


async def test_a_certificate_nobody_vouches_for_is_refused(
    secure: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STARTTLS, with a password that may not go elsewhere in the clear."""
    monkeypatch.setattr("jobs.mail._here", lambda _host: False)
    with pytest.raises(JobEnds, match=r"(?i)certificate"):
        await Mailer(MailServer.parse(secure.url), SENDER).send(note(), ("a",))
    assert secure.got == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await Mailer(MailServer.parse(secure.url), SENDER).send(note(), ("a",))
    assert len(secure.got) == 1


async def test_tls_from_the_first_byte_with_a_server_that_has_none(mailbox: Mailbox) -> None:
    server = MailServer.parse(mailbox.url.replace("smtp://", "smtps://"))
    with pytest.raises(JobEnds) as ended:
        await Mailer(server, SENDER).send(note(), ("a",))
    assert isinstance(ended.value.outcome, RetryLater)


def note() -> EmailMessage:
    message = EmailMessage()
    message["To"], message["Subject"] = "ada@example.org", "Hello"
    message.set_content("Hello")
    return message


# --------------------------------------------------------------------------- settings


def test_reading_a_servers_address() -> None:
    assert MailServer.parse("smtps://u%40x:p%2F@mx.example") == MailServer(
        "mx.example", 465, tls=True, user="u@x", password="p/"
    )
    assert MailServer.parse("smtp://mx.example") == MailServer("mx.example", 587, tls=False)


@pytest.mark.parametrize(
    "url",
    ["mx", "http://mx", "smtp://", "smtp://mx/secret", "smtp://u@mx", "smtp://u:secret@mx:x"],
)
def test_what_is_no_address_says_so_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match=r"give|port") as said:
        MailServer.parse(url)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize("text", ["", "Shop", "a@", "Shop <a@b.c>\r\nBcc: e@x"])
def test_what_is_no_sender_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        check_sender(text)


def test_the_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWMILL_SMTP_URL", "smtp://ada:hunter2@mx.example")
    settings = Settings()
    assert settings.mail_server is not None
    assert settings.mail_server.password == "hunter2"
    shown = repr(settings) + str(settings.model_dump()) + repr(settings.mail_server)
    assert "hunter2" not in shown
    assert "hunter2" not in without_secrets("smtp://ada:hunter2@mx.example")
