"""A request to each provider that costs nothing, and that only a valid key gets an answer to.

None where a vendor documents no such thing: then only its host can be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobs.providers.adapter import Account, Request
from jobs.providers.registry import Provider
from jobs.providers.vendors import anthropic, runway

# Path below the account's base URL, the header that holds the key, and what goes with it.
_FREE: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "anthropic": ("/models?limit=1", "x-api-key", {"anthropic-version": anthropic.VERSION}),
    "elevenlabs": ("/models", "xi-api-key", {}),
    "gemini": ("/models?pageSize=1", "x-goog-api-key", {}),
    "openai": ("/models", "Authorization", {}),
    "openai_responses": ("/models", "Authorization", {}),
    "replicate": ("/account", "Authorization", {}),
    "runway": ("/organization", "Authorization", {"X-Runway-Version": runway.VERSION}),
}


def greeting(provider: Provider) -> Request | None:
    known = _FREE.get(provider.adapter.name)
    if known is None:
        return None
    path, header, others = known
    return Request(
        "GET", provider.account.base_url + path, _headers(provider.account, header, others)
    )


def _headers(account: Account, header: str, others: Mapping[str, str]) -> dict[str, str]:
    key = f"Bearer {account.api_key}" if header == "Authorization" else account.api_key
    return account.over({header: key, **others})


def host(provider: Provider) -> Request:
    """Without the key: whatever it answers, it is there."""
    return Request("GET", provider.account.base_url)
