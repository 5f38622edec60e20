"""rowmill pause, limit and workers as they are typed, and mistyped."""

from __future__ import annotations

import pytest

from tests.commandline import Rowmill
from tests.database.support import LANES, Connect, OpenStore


@pytest.mark.parametrize(
    ("typed", "set_now"),
    [
        (("replicate", "5"), ("lane replicate", 5)),
        (("--source", "generation_jobs", "7"), ("source generation_jobs", 7)),
        (("--all", "9"), ("everything", 9)),
    ],
)
async def test_a_number_alone_is_that_of_jobs_at_a_time(
    photomemory: str,
    open_store: OpenStore,
    rowmill: Rowmill,
    typed: tuple[str, ...],
    set_now: tuple[str, int],
) -> None:
    await (await open_store(photomemory)).register(
        1, name="a", version="1", lanes=LANES, slots=4, lease=30
    )
    said = await rowmill(photomemory, "limit", *typed, "--json")
    assert (said.json["subject"], said.json["max_running"]) == set_now


async def test_what_is_wrong_is_said_with_what_to_do(
    photomemory: str, open_store: OpenStore, rowmill: Rowmill
) -> None:
    await (await open_store(photomemory)).register(
        1, name="a", version="1", lanes=LANES, slots=4, lease=30
    )
    said = await rowmill(photomemory, "pause", "replicte")
    assert said.code == 1
    assert "no lane 'replicte'; known lanes: " in said.err
    assert said.err.endswith("; did you mean replicate?\n")
    said = await rowmill(photomemory, "pause", "--source", "generation_job")
    assert "did you mean generation_jobs?" in said.err
    assert (await rowmill(photomemory, "limit", "replicate", "5", "--running", "6")).code == 2
    assert (await rowmill(photomemory, "limit", "--all", "0")).code == 2
    assert (await rowmill(photomemory, "drain")).code == 2
    assert (await rowmill(photomemory, "drain", "a", "--all")).code == 2
    said = await rowmill(photomemory, "drain", "b")
    assert (said.code, said.out) == (1, "")
    assert "no worker 'b'; alive: a" in said.err


async def test_workers(
    photomemory: str, connect: Connect, open_store: OpenStore, rowmill: Rowmill
) -> None:
    assert "No worker runs" in (await rowmill(photomemory, "workers")).out
    store, connection = await open_store(photomemory), await connect(photomemory)
    wicked = "a\x1b[2J[red]\nb"
    await store.register(
        7, name=wicked, version="1", lanes=LANES, slots=4, lease=30, host="render-7"
    )
    await store.register(8, name="gone", version="1", lanes=LANES, slots=4, lease=30)
    await store.retire(8)
    await connection.execute(
        "UPDATE rowmill.workers SET heartbeat_at = now() - interval '1 hour' WHERE id = 7"
    )
    said = await rowmill(photomemory, "workers")
    assert "\x1b" not in said.out
    assert "[red]" in said.out
    assert "silent" in said.out
    assert "gone" not in said.out
    told = (await rowmill(photomemory, "workers", "--all", "--json")).json["workers"]
    assert [(w["name"], w["state"], w["host"]) for w in told] == [
        (wicked, "silent", "render-7"),
        ("gone", "stopped", None),
    ]
    said = await rowmill(photomemory, "drain", wicked)
    assert said.code == 1
    assert "\x1b" not in said.out
    assert "can't be asked" in said.out
