"""Notifications of a platform's users: a signed webhook, a mail, or both.

The webhook goes first and the mail last, since nothing but the whole job is repeated: a receiver
knows a repeated webhook by its id, a reader doesn't know a repeated mail. So no mail is sent
while the webhook may still succeed, and one is sent even where it failed for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from jobs.contract import Context, Job, Outcome, RetryLater, Succeeded
from jobs.payload import Payload, invalid, takes
from jobs.product import tidy
from jobs.registry import RetryPolicy, kind
from jobs.webhook import check_secret, deliver

MAX_SUBJECT = 200


@dataclass(frozen=True, slots=True)
class Notice:
    flag: str
    """The column of `notification_settings` that says whether its mails are wanted."""
    subject: str
    text: str
    default: bool = True
    marketing: bool = False


NOTICES = {
    "VideoCompleted": Notice(
        "video_completed", "Your video is ready: {title}", "Your video “{title}” is ready."
    ),
    "VideoFailed": Notice(
        "video_failed",
        "Your video could not be made: {title}",
        "We could not make your video “{title}”. The credits it used are back in your account.\n\n"
        "You can change its text or picture and try again.",
    ),
    "SubscriptionRenewal": Notice(
        "subscription_renewal", "Your subscription renews soon", "Your subscription renews soon."
    ),
    "SubscriptionExpired": Notice(
        "subscription_expired",
        "Your subscription has expired",
        "Your subscription has expired. Your videos are still there; renew it to make new ones.",
    ),
    "PaymentFailed": Notice(
        "payment_failed",
        "Your payment did not go through",
        "Your last payment did not go through. Please check your payment details.",
    ),
    "NewFeatures": Notice("new_features", "New for your videos", "There is something new to try."),
    "MarketingUpdates": Notice(
        "marketing_updates", "News for your shop", "There is news.", default=False, marketing=True
    ),
    "WeeklyDigest": Notice("weekly_digest", "Your week in videos", "Here is your week in videos."),
}
BY_NAME = {name.lower(): name for name in NOTICES}


class NotificationPayload(Payload):
    type: str = Field(min_length=1)
    video_id: Any = None
    webhook_url: str | None = None
    webhook_secret: Annotated[str, Field(min_length=1), AfterValidator(check_secret)] | None = None
    subject: str | None = None
    message: str | None = None
    data: Any = None


class User(Payload):
    email: str | None = None
    first_name: str | None = None


class Video(Payload):
    title: str | None = None
    status: str | None = None
    video_url: str | None = None
    thumbnail_url: str | None = None


class NotificationInput(Payload):
    payload: NotificationPayload
    user: User | None = None
    preferences: dict[str, Any] | None = None
    notifications: dict[str, Any] | None = None
    video: Video | None = None
    signature: str | None = None
    """Who signs: the platform's input.sql says."""


@kind("background:send_notification", timeout=180, retry=RetryPolicy(base=15.0, cap=3600.0))
@takes(NotificationInput)
async def send_notification(job: Job, ctx: Context, given: NotificationInput) -> Outcome:
    """Tell a user by webhook and mail, as their settings say."""
    name = BY_NAME.get(given.payload.type.replace("_", "").lower())
    if name is None:
        known = ", ".join(NOTICES)
        return invalid(f"payload.type: {given.payload.type!r} is none of {known}")
    notice, url = NOTICES[name], given.payload.webhook_url
    unwanted = why_no_mail(notice, given)
    message = None
    if unwanted is None:
        try:
            message = compose(notice, given)
        except (ValueError, IndexError, MessageError):
            return invalid("user.email: it is not an address mail can be sent to", "address")
    if url is None and message is None:
        return Succeeded(metadata={"skipped": unwanted})
    told: Outcome = Succeeded()
    if url is not None:
        secret = given.payload.webhook_secret
        told = await deliver(job, ctx, url, event(name, given), secret=secret, headers={})
        if isinstance(told, RetryLater) and job.tries < job.max_retries:
            return told
    if message is not None:
        await ctx.mail(message)
    if not isinstance(told, Succeeded):
        return told
    sent = [way for way, done in (("webhook", url), ("email", message)) if done]
    return Succeeded(metadata={"sent": sent, **({"no_email": unwanted} if unwanted else {})})


def why_no_mail(notice: Notice, given: NotificationInput) -> str | None:
    """None if it is wanted. What a row doesn't say is as the platform's tables default it."""
    settings, preferences = given.notifications or {}, given.preferences or {}
    if not given.user or not given.user.email:
        return "the user has no address"
    asked = [
        ("notification_settings", settings, notice.flag, notice.default),
        ("notification_settings", settings, "email_enabled", True),
        ("user_preferences", preferences, "email_notifications_enabled", True),
    ]
    if notice.marketing:
        asked.append(("user_preferences", preferences, "marketing_emails_enabled", False))
    for table, row, flag, default in asked:
        if not _flag(row, flag, default=default):
            return f"{table}.{flag} is off"
    return None


def _flag(row: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = row.get(name)
    return default if value is None else bool(value)


def compose(notice: Notice, given: NotificationInput) -> EmailMessage:
    """Raises `ValueError`, `IndexError` or `MessageError` for an address that is none.

    Header fields are objects, not text: a line break in a name or a title can't begin another one.
    """
    payload, user, video = given.payload, given.user or User(), given.video or Video()
    title = tidy(video.title or "") or "your video"
    subject = tidy(payload.subject or "") or notice.subject.format(title=title)
    text = (payload.message or "").strip() or notice.text.format(title=title)
    link = video.video_url if notice.flag == "video_completed" else None
    if link and link.startswith(("https://", "http://")) and link not in text:
        text = f"{text}\n\n{link}"
    name = tidy(user.first_name or "")
    message = EmailMessage()
    message["To"] = Address(display_name=name, addr_spec=(user.email or "").strip())
    message["Subject"] = subject[:MAX_SUBJECT]
    message["Auto-Submitted"] = "auto-generated"
    parts = (f"Hi{f' {name}' if name else ''},", text, (given.signature or "").strip())
    message.set_content("\n\n".join(part for part in parts if part) + "\n")
    return message


def event(name: str, given: NotificationInput) -> dict[str, Any]:
    """What the webhook says: the payload's own data, or the video as it is."""
    payload, video = given.payload, given.video
    data = payload.data
    if data is None:
        data = {"video_id": payload.video_id, "message": payload.message}
        if video is not None:
            data |= {
                "title": video.title,
                "status": video.status,
                "video_url": video.video_url,
                "thumbnail_url": video.thumbnail_url,
            }
        data = {key: value for key, value in data.items() if value is not None}
    return {"type": name, "data": data}
