"""Providers, storage, Redis and the mail server: whether they answer from here.

Nothing that is asked costs money, and nothing is sent to anyone.
"""

from __future__ import annotations

import asyncio
import secrets
from urllib.parse import urlsplit

import httpx

from jobs.mail import MailServer, greet
from jobs.providers.greeting import greeting, host
from jobs.providers.registry import Provider
from jobs.providers.transport import Client
from jobs.storage import open_storage
from worker.coordination import Coordination
from worker.doctor.patient import Finding, Patient
from worker.paying import providers_of

REFUSED = "API_KEY_INVALID"
"""Google says 400 to a key that it doesn't know."""
LIMITED = ("missing_permission", "insufficient permission", "restricted")
"""In the answer to a key that is valid, and may not ask this."""


async def providers(patient: Patient) -> list[Finding]:
    try:
        configured = providers_of(patient.settings)
    except ValueError:
        return []  # environment.worker tells of it
    client = Client(limit=len(configured) + 1)
    try:
        said = await asyncio.gather(
            *(_ask(client, its, patient.limits.ask) for its in configured.values())
        )
    finally:
        await client.aclose()
    return [finding for finding in said if finding is not None]


async def _ask(client: httpx.AsyncClient, provider: Provider, seconds: float) -> Finding | None:
    request = greeting(provider) or host(provider)
    subject = f"provider {provider.name}"
    at = urlsplit(request.url).netloc
    try:
        async with asyncio.timeout(seconds):
            answer = await client.request(
                request.method, request.url, headers=dict(request.headers), follow_redirects=False
            )
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {seconds:g}s"
        evidence = f"{at} can't be reached from here: {why}"
        fix = (
            "the network, a proxy or its name here; else its status page: jobs wait and lose no try"
        )
        return Finding("providers.unreachable", "warning", subject, evidence, fix)
    if answer.status_code >= 500:
        evidence = f"{at} answers {answer.status_code}"
        fix = "its status page; jobs wait meanwhile and lose no try"
        return Finding("providers.unreachable", "warning", subject, evidence, fix)
    if greeting(provider) is not None and _refused(answer):
        evidence = f"{at} refuses the key of account {provider.account.name} ({answer.status_code})"
        fix = (
            f"a new key in ROWMILL_PROVIDERS__{provider.name.upper()}__API_KEY, where workers "
            "run too"
        )
        return Finding("providers.refused", "error", subject, evidence, fix)
    return None


def _refused(answer: httpx.Response) -> bool:
    if answer.status_code == 401:
        return not any(word in answer.text.lower() for word in LIMITED)
    return answer.status_code == 400 and REFUSED in answer.text


async def storage(patient: Patient) -> list[Finding]:
    """A few bytes there and back, under a name of their own."""
    url = patient.settings.storage_url
    key = f"rowmill-doctor/{secrets.token_hex(8)}"
    word = key.encode()
    try:
        async with asyncio.timeout(patient.limits.ask):
            store = open_storage(url)
            await store.put(word, key, "text/plain")
            same = await store.get(key) == word
            await store.delete(key)
    except TimeoutError:
        why = f"no answer within {patient.limits.ask:g}s"
    except Exception as error:  # noqa: BLE001 - each cloud has its own
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    else:
        if same:
            return []
        why = "it gives back something else than what was written"
    evidence = f"{_without_password(url)}: {why}"
    fix = (
        "ROWMILL_STORAGE_URL and its credentials, or the rights on that directory; outputs that "
        "can't be stored are kept by their provider for a while only"
    )
    return [Finding("storage.unreachable", "error", "storage", evidence, fix)]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1)


async def redis(patient: Patient) -> list[Finding]:
    url = patient.settings.redis_url
    if not url:
        return []
    try:
        coordination = Coordination.of(url)
    except ValueError as error:
        answers, why = False, str(error)
    else:
        try:
            answers, why = bool(await coordination.alive()), "no answer to PING"
        finally:
            await coordination.close()
    if answers:
        return []
    evidence = f"{_without_password(url)}: {why}"
    fix = (
        "bring it back: until then no messages are heard, and each worker has its share of the "
        "rates"
    )
    return [Finding("redis.unreachable", "warning", "redis", evidence, fix)]


async def mail(patient: Patient) -> list[Finding]:
    server: MailServer | None = patient.settings.mail_server
    if server is None:
        return []
    said = await greet(server, patient.limits.ask)
    if said is None:
        return []
    evidence = f"{server.host}:{server.port}: {said}"
    return [
        Finding("mail.unreachable", "warning", "mail", evidence, "ROWMILL_SMTP_URL, or the network")
    ]
