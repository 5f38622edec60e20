"""What is counted for a call where the price table is silent."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr, ValidationError

from jobs.contract import (
    EmbedTask,
    Failure,
    FailureKind,
    MediaTask,
    Task,
    TextTask,
    TokenPrice,
    Usage,
)
from jobs.providers.adapter import RemoteOutput, State
from jobs.providers.charges import Charges
from jobs.providers.errors import ProviderError
from jobs.providers.prices import PriceTable
from jobs.providers.registry import ADAPTERS, Provider, ProviderSettings, build_providers
from worker.paying import charges_of
from worker.settings import Settings

SUM = Decimal("7.5")
FAILED = State("failed", failure=Failure(FailureKind.UNKNOWN, "no", accepted="yes"))
MADE = State("succeeded", outputs=(RemoteOutput(url="https://x/1"),), usage=Usage(items=1))

TASKS: dict[str, tuple[Task, State]] = {
    "anthropic": (TextTask("claude-new", "Write."), replace(MADE, usage=Usage(5, 5))),
    "elevenlabs": (MediaTask("audio", "Say it."), replace(MADE, usage=Usage(characters=9))),
    "freepik": (MediaTask("image", "A boat."), MADE),
    "gemini": (TextTask("gemini-new", "Write."), replace(MADE, usage=Usage(5, 5))),
    "openai": (TextTask("gpt-4o", "Write."), replace(MADE, usage=Usage(5, 5))),
    "openai_responses": (TextTask("gpt-new", "Write."), replace(MADE, usage=Usage(5, 5))),
    "replicate": (MediaTask("image", "A boat."), MADE),
    "runway": (MediaTask("image", "A boat.", model="gen4_image"), MADE),
    "stability": (MediaTask("image", "A boat."), MADE),
}


def provider(name: str) -> Provider:
    return build_providers({name: ProviderSettings(api_key=SecretStr("k"))})[name]


def test_every_adapter_is_tried() -> None:
    assert TASKS.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_without_a_price_a_call_is_refused_or_counts_as_told(name: str) -> None:
    (task, made), used = TASKS[name], provider(name)
    with pytest.raises(ProviderError, match="no price is known"):
        Charges(PriceTable({})).estimate(used, task)
    charges = Charges(PriceTable({}), SUM)
    with structlog.testing.capture_logs() as logs:
        model, estimate = charges.estimate(used, task)
        assert charges.estimate(used, task) == (model, estimate)
    assert estimate == SUM
    assert [(line["event"], line["provider"], line["model"]) for line in logs] == [
        ("price.unknown", name, model)
    ]
    assert charges.cost(used, model, made, task, SUM) == SUM
    if name not in ("anthropic", "elevenlabs", "gemini", "openai"):  # no tasks that fail later
        assert charges.cost(used, model, FAILED, task, SUM) == 0


@pytest.mark.parametrize("name", TASKS)
def test_what_is_wrong_otherwise_is_still_refused(name: str) -> None:
    task, _ = TASKS[name]
    assert not isinstance(task, EmbedTask)
    with pytest.raises(ProviderError) as caught:
        Charges(PriceTable({}), SUM).estimate(provider(name), replace(task, prompt=" "))
    assert caught.value.failure.code == "invalid_task"


def test_a_known_price_is_never_replaced() -> None:
    task, own = TextTask("gpt-4o", "Write.", max_tokens=100), TokenPrice(Decimal(1), Decimal(2))
    told, table = Charges(unknown=SUM), Charges()
    assert told.estimate(provider("openai"), task) == table.estimate(provider("openai"), task)
    priced = replace(task, model="their-own", price=own)
    assert told.estimate(provider("openai"), priced) == ("their-own", Decimal(202))


# --------------------------------------------------------------------------- settings


def test_the_settings_lay_a_list_over_and_set_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ours.toml"
    path.write_text('[stability]\n"core" = { as_of = 2026-11-02, item = "2" }\n')
    monkeypatch.setenv("ROWMILL_PRICES", str(path))
    monkeypatch.setenv("ROWMILL_UNKNOWN_PRICE", "12.5")
    charges = charges_of(Settings())
    task, _ = TASKS["stability"]
    assert charges.estimate(provider("stability"), task) == ("core", Decimal(2))
    other = replace(task, model="sd9-large")
    assert charges.estimate(provider("stability"), other) == ("sd9-large", Decimal("12.5"))
    path.unlink()
    with pytest.raises(ValueError, match=f"ROWMILL_PRICES: {path} can't be read"):
        charges_of(Settings())


@pytest.mark.parametrize("wrong", ["some", "-1", "NaN", "Infinity", ""])
def test_the_sum_is_a_number_of_cents(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("ROWMILL_UNKNOWN_PRICE", wrong)
    with pytest.raises(ValidationError, match="a number of cents, or `refuse`"):
        Settings()
    monkeypatch.setenv("ROWMILL_UNKNOWN_PRICE", "refuse")
    assert Settings().unknown_price is None
