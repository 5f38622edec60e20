"""When a worker is stuck, and when others are to blame."""

from __future__ import annotations

from dataclasses import dataclass

from worker.vitals import Turns, Vitals

LIMIT = 100.0


@dataclass
class World:
    now: float = 1000.0
    answers: bool = True
    asked: int = 0

    def clock(self) -> float:
        return self.now

    async def database(self) -> bool:
        self.asked += 1
        return self.answers


def vitals_in(world: World) -> tuple[Turns, Vitals]:
    turns = Turns(world.clock)
    vitals = Vitals(
        turns,
        stuck_seconds=LIMIT,
        database_answers=world.database,
        lagged=lambda _lag: None,
        clock=world.clock,
    )
    return turns, vitals


async def passes(world: World, vitals: Vitals, seconds: float) -> None:
    """As the loop of `Vitals` would, a look every second."""
    for _ in range(int(seconds)):
        world.now += 1
        await vitals.look()


async def test_a_turn_without_end_is_told_and_its_end_too() -> None:
    world = World()
    turns, vitals = vitals_in(world)
    with turns.turn("settler"), turns.turn("pulse"):
        await passes(world, vitals, LIMIT)
        assert vitals.stuck == []
        await passes(world, vitals, 2)
        assert vitals.stuck == ["pulse", "settler"]
    await passes(world, vitals, 1)
    assert vitals.stuck == []


async def test_a_loop_at_rest_may_rest() -> None:
    world = World()
    turns, vitals = vitals_in(world)
    with turns.turn("consumer"):
        pass
    await passes(world, vitals, 10 * LIMIT)
    assert vitals.stuck == []
    assert world.asked == 0, "the database isn't asked for nothing"


async def test_no_time_counts_in_which_the_database_was_away() -> None:
    world = World(answers=False)
    turns, vitals = vitals_in(world)
    with turns.turn("pulse"):
        await passes(world, vitals, 5 * LIMIT)
        assert vitals.stuck == []
        world.answers = True
        await passes(world, vitals, LIMIT / 2)
        assert vitals.stuck == [], "it has had no time yet"
        await passes(world, vitals, LIMIT)
        assert vitals.stuck == ["pulse"]


async def test_the_database_is_asked_now_and_then() -> None:
    world = World()
    turns, vitals = vitals_in(world)
    with turns.turn("pulse"):
        await passes(world, vitals, 2 * LIMIT)
    assert 10 <= world.asked <= 20
