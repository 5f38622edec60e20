"""Everything Rowmill says to Postgres; nothing else in the worker runs SQL.

pool.py        connections, with or without a pooler in between
errors.py      asyncpg's errors in the words the worker acts on
store.py       the hot path: claim, start, settle, heartbeat, ledger
bell.py        LISTEN for new work
limits.py      what a platform's own tables say of its lanes
turns.py       what the fleet may do only so often
upkeep.py      partitions, sweeps, clean-up
finding.py     which job a person means
gates.py       pause, resume, limit
fleet.py       who works
draining.py    asking workers to leave
pruning.py     taking away what is known of rows that are gone
acts.py        retry, requeue, cancel, priority, resolve
aims.py        what acts look at before; forecasts.py what they may cost
reports.py     what status reads; needs.py what of it needs a person
depth.py       what /metrics reads
running.py     what watch reads beside status
listing/       jobs as a list, a page at a time, and as they change
story.py       what job show reads; explaining.py why a job waits
naming.py      names that a shell may complete
health/        what doctor reads
migrations.py  the rowmill schema
attaching.py   a platform's triggers and functions
checking.py    what a map can't work with in a live database
catalog.py     someone's table, as the catalog and a few rows describe it
previewing.py  what a map would make of the rows that are there
"""

from worker.store.errors import (
    NO_FUNCTION,
    DeadWorker,
    LockTimeout,
    MissingPartition,
    Refused,
    StoreError,
    Unavailable,
)
from worker.store.store import (
    Claimed,
    Head,
    LaneRate,
    Pulse,
    SourceInfo,
    Started,
    Store,
    to_json,
)

__all__ = [
    "NO_FUNCTION",
    "Claimed",
    "DeadWorker",
    "Head",
    "LaneRate",
    "LockTimeout",
    "MissingPartition",
    "Pulse",
    "Refused",
    "SourceInfo",
    "Started",
    "Store",
    "StoreError",
    "Unavailable",
    "to_json",
]
