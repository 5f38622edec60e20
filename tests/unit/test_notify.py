"""Notifications over a real webhook receiver and a real SMTP server, both on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from jobs.contract import Failed, Held, Outcome, RetryLater, Succeeded
from jobs.mail import Mailer, MailServer
from jobs.providers.transport import Client
from tests.unit.mailbox import SENDER, Mailbox, mailbox
from tests.unit.web import Web, run

__all__ = ["mailbox"]

KIND = "background:send_notification"
USER = {"id": "u", "email": "ada@example.org", "first_name": "Ada", "is_active": True}
VIDEO = {"title": "Teapot", "status": "Completed", "video_url": "https://cdn.example/v.mp4"}


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
