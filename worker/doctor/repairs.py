"""What `--repair` does: what workers and operators do anyway, and nothing that could lose anything.

Each repair is recorded in rowmill.actions, with what was found before it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from worker.doctor.patient import Finding, Mend, Mending
from worker.maps import MapError, Platform
from worker.store import SourceInfo, Store, StoreError, upkeep
from worker.store.attaching import attach
from worker.store.health import rows, space
from worker.store.health.recorded import record
from worker.store.health.tables import target_of
from worker.store.migrations import MigrationError, migrate


def in_order(findings: Iterable[Finding]) -> dict[Mend, Finding]:
    """Each repair once, with the worst finding it is for."""
    wanted: dict[Mend, Finding] = {}
    for finding in findings:
        if finding.mend is not None:
            wanted.setdefault(finding.mend, finding)
    return dict(sorted(wanted.items(), key=lambda item: ORDER.index(item[0].how)))


async def do(store: Store, mend: Mend, finding: Finding, who: str) -> dict[str, Any]:
    """`failed` says why where it couldn't be done; the finding then stays."""
    did, failed = "", None
    try:
        did = await REPAIRS[mend.how](store, mend.target)
        detail = {"finding": finding.id, "evidence": finding.evidence, "did": did}
        await record(store, who, SUBJECTS[mend.how].format(mend.target), detail)
    except (StoreError, MapError, MigrationError, ValueError) as error:
        failed = str(error)
    return {"id": finding.id, "subject": finding.subject, "did": did, "failed": failed}


async def _migrate(store: Store, _target: str) -> str:
    return f"applied {', '.join(await migrate(store.dsn)) or 'nothing'}"


async def _attach(store: Store, name: str) -> str:
    """As it was attached: by the map that is in the database."""
    platform = await _platform(store, name)
    await attach(store.dsn, platform)
    return f"attached {name} again: its triggers and functions were made anew"


async def _partitions(store: Store, name: str) -> str:
    await upkeep.make_partitions(store, await _platform(store, name))
    return f"had {name}'s own function make what partitions are missing"


async def _vacuum(store: Store, table: str) -> str:
    await space.vacuum(store, table)
    return f"VACUUM (ANALYZE) {table}"


async def _sweep(store: Store, name: str) -> str:
    total = 0
    while found := await store.sweep(name):
        total += found
    return f"queued {total} row(s) of {name}"


async def _drop(store: Store, name: str) -> str:
    target = await target_of(store, await _info(store, name))
    if target is None:
        raise ValueError(f"the table of {name} has changed: see maps.misfit")
    found = await rows.queued(store, target)
    keys = [row["key"] for row in found if row["how"] in ("over", "gone")]
    return f"took {await rows.drop(store, target, keys)} row(s) of {name} from the queue"


async def _platform(store: Store, name: str) -> Platform:
    for info in await store.sources():
        if info.platform == name:
            return Platform.from_definition(info.definition)
    raise ValueError(f"platform {name} isn't attached any more")


async def _info(store: Store, name: str) -> SourceInfo:
    for info in await store.sources():
        if info.name == name:
            return info
    raise ValueError(f"source {name} isn't attached any more")


REPAIRS: Mapping[Mending, Callable[[Store, str], Awaitable[str]]] = {
    "migrate": _migrate,
    "attach": _attach,
    "partitions": _partitions,
    "sweep": _sweep,
    "drop": _drop,
    "vacuum": _vacuum,
}
SUBJECTS: Mapping[Mending, str] = {
    "migrate": "{}",
    "attach": "platform {}",
    "partitions": "platform {}",
    "sweep": "source {}",
    "drop": "source {}",
    "vacuum": "table {}",
}
"""As rowmill.actions has them."""
ORDER: tuple[Mending, ...] = ("migrate", "attach", "partitions", "sweep", "drop", "vacuum")
"""In which they are done: what is attached again needs the schema, a sweep triggers."""
