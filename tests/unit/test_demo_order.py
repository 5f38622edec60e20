"""Whether the demo would notice a wrong order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.demo.order import Move, Watched, order

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
WORKER = 7
LANES = ["replicate", "openai"]


def move(number: int, row: int, state: str, rank: int = 10, **more: Any) -> Move:
    given: dict[str, Any] = {
        "at": BEGAN + timedelta(seconds=number),
        "batch": number,
        "source": "generation_jobs",
        "platform": "photomemory",
        "lane": "replicate",
        "worker": WORKER if state == "claimed" else None,
    }
    return Move(number=number, row=row, state=state, rank=rank, **(given | more))


TEXT = {"source": "ai_generations", "platform": "ebook", "lane": "openai"}


def watched(*moves: Move, opened: int = 2, **more: Any) -> Watched:
    return Watched(moves, opened, {WORKER: LANES}, slots=4, **more)


READY = (move(1, 1, "ready", 5), move(2, 2, "ready", 9, **TEXT))


def test_the_higher_rank_first_is_order() -> None:
    found = order(watched(*READY, move(3, 2, "claimed", 9, **TEXT), move(4, 1, "claimed", 5)))
    assert found.row() == {"claims": 2, "platforms": 2, "inversions": 0}
    assert found.compared == 1


def test_the_lower_rank_of_another_platform_first_is_an_inversion() -> None:
    found = order(watched(*READY, move(3, 1, "claimed", 5), move(4, 2, "claimed", 9, **TEXT)))
    assert found.row() == {"claims": 2, "platforms": 2, "inversions": 1}


def test_who_is_never_claimed_waits_too() -> None:
    assert order(watched(*READY, move(3, 1, "claimed", 5))).inversions == 1


def test_one_claim_may_take_both() -> None:
    both = (move(3, 1, "claimed", 5, batch=9), move(4, 2, "claimed", 9, batch=9, **TEXT))
    assert order(watched(*READY, *both)).inversions == 0


def test_all_rows_of_a_claim_count_although_others_move_meanwhile() -> None:
    lower = move(3, 3, "ready", 4)
    claim = (move(4, 1, "claimed", 5, batch=9), move(6, 3, "claimed", 4, batch=9))
    meanwhile = move(5, 8, "ready", 20)
    seen = watched(*READY, lower, claim[0], meanwhile, claim[1], opened=3)
    assert order(seen).inversions == 2  # of row 2, not of row 8


@pytest.mark.parametrize(
    "given",
    [
        {"lane": "runway"},  # not one of this worker's
        {"state": "scheduled"},
        {"state": "gone"},
        {"state": "held"},
    ],
)
def test_who_could_not_be_claimed_excuses(given: dict[str, Any]) -> None:
    excuse = {"state": "ready", "lane": "replicate"} | given
    later = move(2, 2, excuse["state"], 9, lane=excuse["lane"])
    first = (move(1, 1, "ready", 5), move(1, 2, "ready", 5), later)
    found = order(watched(*first, move(3, 1, "claimed", 5)))
    assert (found.inversions, found.compared) == (0, 0)


@pytest.mark.parametrize(
    ("gates", "inversions"),
    [
        ({}, 1),
        ({"openai/*": 0}, 0),
        ({"*/ai_generations": 0}, 0),
        ({"openai/ai_generations": 4}, 0),  # four jobs may have ended since the claim looked
        ({"openai/ai_generations": 5}, 1),
        ({"*/*": 0}, 0),
        ({"replicate/*": 0, "openai/generation_jobs": 0}, 1),
        ({"openai/*": None}, 1),
    ],
)
def test_a_gate_excuses_only_those_behind_it(gates: dict[str, Any], inversions: int) -> None:
    found = order(watched(*READY, move(3, 1, "claimed", 5), gates={3: gates}))
    assert found.inversions == inversions


@pytest.mark.parametrize(("waited", "inversions"), [(4, 0), (5, 1)])
def test_after_the_beginning_it_must_have_waited_for_some_seconds(
    waited: int, inversions: int
) -> None:
    first, second = READY
    claim = move(2 + waited, 1, "claimed", 5)
    assert order(watched(first, second, claim, opened=1)).inversions == inversions


def test_who_came_back_has_waited_since_then() -> None:
    away = move(3, 2, "scheduled", 9, **TEXT)
    back = move(4, 2, "ready", 9, **TEXT)
    early, late = move(8, 1, "claimed", 5), move(9, 1, "claimed", 5)
    assert order(watched(*READY, away, back, early)).inversions == 0
    assert order(watched(*READY, away, back, late)).inversions == 1


def test_a_raised_rank_counts_from_when_it_was_raised() -> None:
    raised = move(3, 2, "ready", 20, **TEXT)
    lower = (READY[0], move(2, 2, "ready", 3, **TEXT), raised)
    assert order(watched(*lower, move(4, 1, "claimed", 5))).inversions == 0
    assert order(watched(*lower, move(9, 1, "claimed", 5))).inversions == 1
