"""Which providers there are: name → adapter and account, from the configuration.

A lane is a provider's name. A name that no adapter has needs `adapter` spelled out, so that a
misspelt lane is an error at start-up and not a new provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from jobs.providers.adapter import Account, Adapter
from jobs.providers.vendors.anthropic import Anthropic
from jobs.providers.vendors.elevenlabs import ElevenLabs
from jobs.providers.vendors.freepik import Freepik
from jobs.providers.vendors.gemini import Gemini
from jobs.providers.vendors.openai import OpenAI
from jobs.providers.vendors.openai_responses import OpenAIResponses
from jobs.providers.vendors.replicate import Replicate
from jobs.providers.vendors.runway import Runway
from jobs.providers.vendors.stability import Stability

HeaderValues = SecretStr | dict[str, str]

ALL: tuple[Adapter, ...] = (
    Anthropic(),
    ElevenLabs(),
    Freepik(),
    Gemini(),
    OpenAI(),
    OpenAIResponses(),
    Replicate(),
    Runway(),
    Stability(),
)
ADAPTERS: Mapping[str, Adapter] = {adapter.name: adapter for adapter in ALL}


class ProviderSettings(BaseModel):
    """One provider of the configuration; everything a vendor may change can be set here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    adapter: str | None = None
    """Needed only when the provider isn't called like its adapter (a second account, a proxy)."""
    base_url: str | None = None
    account: str = "default"
    """Goes into the ledger: a task can only be asked for by the account that made it."""
    api_key: SecretStr = SecretStr("")
    models: dict[str, str] = Field(default_factory=dict)
    """Default model per medium (`video`, `image`, `audio`); `voice` where speech is made."""
    headers: dict[str, str] = Field(default_factory=dict)
    request_timeout: float = Field(default=60.0, gt=0)
    """Seconds for a whole request and its answer."""
    poll_seconds: float | None = Field(default=None, gt=0)
    """Between two looks at a task; the default is what the vendor asks for."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """Paid requests, of all workers together."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Of prompts and answers, as estimated."""

    @field_validator("api_key", mode="before")
    @classmethod
    def _trimmed(cls, value: object) -> object:
        """A file's last line break comes along when a key is read from it."""
        return value.strip() if isinstance(value, str) else value

    @field_validator("api_key", "headers")
    @classmethod
    def _fits_in_a_header(cls, value: HeaderValues) -> HeaderValues:
        words = value.values() if isinstance(value, dict) else [value.get_secret_value()]
        if not all(word.isascii() and word.isprintable() for word in words):
            raise ValueError("only printable ASCII characters fit in a header, and no line breaks")
        return value


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    adapter: Adapter
    account: Account
    request_timeout: float
    poll_seconds: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def build_providers(settings: Mapping[str, ProviderSettings]) -> dict[str, Provider]:
    return {name: _provider(name, given) for name, given in settings.items()}


def _provider(name: str, given: ProviderSettings) -> Provider:
    adapter = ADAPTERS.get(given.adapter or name)
    if adapter is None:
        raise ValueError(
            f"provider {name!r}: there is no adapter {given.adapter or name!r}; "
            f"set `adapter` to one of {', '.join(sorted(ADAPTERS))}"
        )
    account = Account(
        name=given.account,
        base_url=(given.base_url or adapter.base_url).rstrip("/"),
        api_key=given.api_key.get_secret_value(),
        models={**adapter.models, **given.models},
        headers=given.headers,
    )
    poll = given.poll_seconds or adapter.poll_seconds
    return Provider(
        name,
        adapter,
        account,
        given.request_timeout,
        poll,
        given.requests_per_minute,
        given.tokens_per_minute,
    )
