"""A call's result as the JSON the ledger keeps, and back. Money and seconds are exact strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from jobs.contract import CallResult, Failure, FailureKind, Output, Usage


def to_json(result: CallResult, *, kept: bool = True) -> dict[str, Any]:
    """`kept=False`: the task ended and is billed, but nobody fetched what it made."""
    usage = asdict(result.usage)
    seconds = result.usage.seconds
    return {
        "provider": result.provider,
        "model": result.model,
        "external_id": result.external_id,
        "cost_cents": str(result.cost_cents),
        "usage": usage | {"seconds": None if seconds is None else str(seconds)},
        "text": result.text,
        "vectors": [list(vector) for vector in result.vectors],
        "outputs": [asdict(output) for output in result.outputs],
        "metadata": dict(result.metadata),
        "kept": kept,
    }


def failure_to_json(failure: Failure) -> dict[str, Any]:
    return asdict(failure)


def failure_from_json(value: Mapping[str, Any]) -> Failure:
    return Failure(**{**value, "kind": FailureKind(value["kind"])})


def is_kept(value: Mapping[str, Any]) -> bool:
    return bool(value["kept"])


def has_files(value: Mapping[str, Any]) -> bool:
    """They came inside the answer and were put away; nobody needs to be asked for them."""
    return "files" in value


def cost_of(value: Mapping[str, Any]) -> Decimal:
    return Decimal(value["cost_cents"])


def from_json(value: Mapping[str, Any]) -> CallResult:
    usage = dict(value["usage"])
    seconds = usage.pop("seconds")
    return CallResult(
        provider=value["provider"],
        model=value["model"],
        external_id=value["external_id"],
        cost_cents=Decimal(value["cost_cents"]),
        usage=Usage(**usage, seconds=None if seconds is None else Decimal(seconds)),
        text=value["text"],
        vectors=tuple(tuple(vector) for vector in value["vectors"]),
        outputs=tuple(Output(**output) for output in value["outputs"]),
        metadata=value["metadata"],
    )
