"""Every setting of a worker, from `ROWMILL_*` environment variables (or a .env file)."""

from __future__ import annotations

import os
import socket
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.mail import MailServer, check_sender
from jobs.providers.registry import ProviderSettings

Words = Annotated[tuple[str, ...], NoDecode]
"""Comma-separated in the environment."""


def spare_processors() -> int:
    """One is left to the worker itself."""
    ours = getattr(os, "sched_getaffinity", None)
    return max(1, (len(ours(0)) if ours else os.cpu_count() or 1) - 1)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="ROWMILL_",
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: str | None = Field(default=None, description="The Postgres that holds the jobs.")
    redis_url: str | None = Field(
        default=None, description="Redis for arq messages, shared rate limits and finer progress."
    )

    lanes: Words = Field(
        default=(), description="Serve only these lanes; empty serves every lane it can."
    )
    handlers: Words = Field(
        default=(), description="Python modules with your own job kinds, comma-separated."
    )
    worker_name: str | None = Field(
        default=None, description="How this worker is called in `status`; default host:pid."
    )
    slots: int = Field(default=100, ge=1, description="Jobs that run at the same time.")
    claim_batch: int = Field(default=200, ge=1, le=1000, description="Rows per claim, at most.")
    settle_batch: int = Field(default=200, ge=1, le=1000, description="Rows per settling commit.")
    poll_seconds: float = Field(
        default=0.5, gt=0, le=1, description="How often an idle worker looks for work unasked."
    )
    lease_seconds: float = Field(
        default=30.0, ge=2, description="Silence after which a worker is given up for dead."
    )
    pulse_seconds: float = Field(
        default=2.0, gt=0, description="How often heartbeat and progress are written."
    )
    grace_seconds: float = Field(
        default=30.0, ge=0, description="How long a draining worker waits for running jobs."
    )
    max_yields: int = Field(
        default=100, ge=1, description="Returns that cost no try before a job is held."
    )
    sweep_seconds: float = Field(
        default=60.0, gt=0, description="How often rows that missed their trigger are looked for."
    )

    resubmit_up_to_cents: Decimal = Field(
        default=Decimal(1),
        ge=0,
        description="A paid call whose fate can't be learnt is sent again up to this estimate.",
    )
    prices: Path | None = Field(
        default=None, description="A price list of your own (TOML), laid over the built-in one."
    )
    unknown_price: Decimal | None = Field(
        default=None,
        description="Cents to count for a call of a model without a price; `refuse` allows none.",
    )
    providers: dict[str, ProviderSettings] = Field(
        default={}, description="Per provider: ROWMILL_PROVIDERS__OPENAI__API_KEY and so on."
    )
    storage_url: str = Field(
        default="file://" + str(Path.cwd() / ".rowmill" / "outputs"),
        description="Where outputs are kept: s3://, gs://, az://, file:///, memory://.",
    )
    public_base_url: str | None = Field(
        default=None, description="What storage keys are appended to in file URLs."
    )
    max_output_bytes: int = Field(
        default=2 * 1024**3, gt=0, description="The largest output that is downloaded."
    )
    compute_processes: int = Field(
        default_factory=spare_processors,
        ge=1,
        description="Processes for work that keeps a processor busy; default: all but one.",
    )
    compute_memory_mb: int = Field(
        default=4096, ge=0, description="Address space of such a process, at most; 0: any."
    )
    allow_private_hosts: Words = Field(
        default=(),
        description="Private hosts that downloads, webhooks and scraping may reach, such as"
        " 127.0.0.1.",
    )
    smtp_url: SecretStr | None = Field(
        default=None, description="The mail server: smtp://user:password@host:port or smtps://…"
    )
    mail_from: str | None = Field(
        default=None, description="The sender of mails, such as Shop <no-reply@shop.example>."
    )

    http_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Where /healthz, /readyz and /metrics are served; unset: nowhere, 0: any port.",
    )
    http_host: str = Field(default="127.0.0.1", description="The address they are served on.")
    stuck_seconds: float = Field(
        default=300.0,
        gt=0,
        description="A loop this long at one turn, while the database answers, is not healthy.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console in a terminal, JSON elsewhere."
    )

    @field_validator("lanes", "handlers", "allow_private_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @field_validator("http_port", mode="before")
    @classmethod
    def _no_port(cls, value: object) -> object:
        return None if value == "" else value  # deployments set it to nothing to say they have none

    @field_validator("smtp_url")
    @classmethod
    def _check_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None  # deployments set it to nothing to say they have none
        MailServer.parse(value.get_secret_value())
        return value

    @field_validator("mail_from")
    @classmethod
    def _check_sender(cls, value: str | None) -> str | None:
        return check_sender(value) if value else None

    @property
    def name(self) -> str:
        """What this process is called in `status` and in logs."""
        return self.worker_name or f"{socket.gethostname()}:{os.getpid()}"

    @property
    def mail_server(self) -> MailServer | None:
        return MailServer.parse(self.smtp_url.get_secret_value()) if self.smtp_url else None

    @field_validator("unknown_price", mode="before")
    @classmethod
    def _cents(cls, value: object) -> Decimal | None:
        if value in (None, "refuse"):
            return None
        try:
            cents = Decimal(str(value))
        except InvalidOperation:
            cents = Decimal("NaN")
        if not cents.is_finite() or cents < 0:
            raise ValueError("give a number of cents, or `refuse`")
        return cents


class NoDatabase(Exception):
    def __init__(self) -> None:
        super().__init__(
            "ROWMILL_DATABASE_URL is not set: give it the Postgres that holds your job tables "
            "(postgresql://user@host/db), or try `rowmill demo`"
        )


EMBEDDED = "embedded:"
_EMBEDDED: dict[Path, Any] = {}
"""The servers this process started; a reference keeps each one's guardian."""


def database_url(settings: Settings) -> str:
    """The configured Postgres; `embedded:DIRECTORY` starts one for the life of this process."""
    if not settings.database_url:
        raise NoDatabase
    if not settings.database_url.startswith(EMBEDDED):
        return settings.database_url
    from worker.embedded import EmbeddedPostgres  # noqa: PLC0415 - an optional dependency

    directory = Path(settings.database_url.removeprefix(EMBEDDED))
    if directory not in _EMBEDDED:
        _EMBEDDED[directory] = EmbeddedPostgres(directory)
        _EMBEDDED[directory].start()  # its guardian stops it when this process ends
    return str(_EMBEDDED[directory].dsn())
