"""Delivery of webhooks, signed as Standard Webhooks asks for.

Delivered at least once: a crash between the receiver's 200 and our commit sends it again, under
the same `webhook-id`, by which receivers tell a repeat.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, Field

from jobs.contract import Context, Failed, Failure, FailureKind, Job, Outcome, RetryLater, Succeeded
from jobs.headers import allowed
from jobs.network import HostRefused
from jobs.payload import Payload, invalid, takes
from jobs.registry import RetryPolicy, kind

RETRY_STATUS = (408, 429)


def _key(secret: str) -> bytes:
    """`whsec_` marks a base64 key; anything else is the key itself."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("behind whsec_ it must be base64") from None


def check_secret(secret: str) -> str:
    _key(secret)
    return secret


class WebhookPayload(Payload):
    url: str = Field(min_length=1)
    body: Any = None
    event: Any = None
    secret: Annotated[str, Field(min_length=1), AfterValidator(check_secret)] | None = None
    headers: Annotated[dict[str, str], AfterValidator(allowed)] | None = None


class WebhookInput(Payload):
    payload: WebhookPayload


@kind("background:deliver_webhook", timeout=60, retry=RetryPolicy(base=5.0, cap=3600.0))
@takes(WebhookInput)
async def deliver_webhook(job: Job, ctx: Context, given: WebhookInput) -> Outcome:
    """POST an event to a customer's URL."""
    wanted = given.payload
    content = _content(wanted)
    if content is None:
        return invalid("payload.body: there is neither a body nor an event to deliver")
    return await deliver(
        job, ctx, wanted.url, content, secret=wanted.secret, headers=wanted.headers or {}
    )


async def deliver(
    job: Job,
    ctx: Context,
    url: str,
    content: Any,
    *,
    secret: str | None,
    headers: Mapping[str, str],
) -> Outcome:
    """Signed, under the id of this job's run."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    signature = sign(_message_id(job), int(time.time()), body, secret)
    try:
        status = await ctx.post(url, body, {**headers, **signature})
    except HostRefused as error:
        return invalid(f"payload.url: {error}", "host_refused")
    except (httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
        return RetryLater(Failure(FailureKind.TRANSIENT, f"not delivered: {reason}", "network"))
    return _outcome(status)


def _content(wanted: WebhookPayload) -> Any:
    """A named event wraps its body; a body, or an event that is an object, goes as it is."""
    if isinstance(wanted.event, str):
        named: dict[str, Any] = {"type": wanted.event}
        return named if wanted.body is None else {**named, "data": wanted.body}
    return wanted.event if wanted.body is None else wanted.body


def _message_id(job: Job) -> str:
    """The same for every try of one run; the row's identity itself stays with us."""
    name = "\0".join((job.source, job.key, str(job.run)))
    return f"msg_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def sign(message_id: str, timestamp: int, body: bytes, secret: str | None) -> Mapping[str, str]:
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
    }
    if secret is not None:
        signed = f"{message_id}.{timestamp}.".encode() + body
        digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Succeeded(metadata={"status": status})
    code = f"http_{status}"
    if status in RETRY_STATUS or status >= 500:
        return RetryLater(Failure(FailureKind.TRANSIENT, f"the receiver answered {status}", code))
    if 300 <= status < 400:
        message = f"the receiver answered {status}; redirects of a webhook are not followed"
        return Failed(Failure(FailureKind.INVALID, message, code))
    return Failed(Failure(FailureKind.INVALID, f"the receiver answered {status}", code))
