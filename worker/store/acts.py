"""What an operator does to single jobs: retry, cancel, resolve.

Every act is one statement, so the act and its line in `rowmill.actions` commit together, behind any
pooler. The line keeps what was there before: the statement's snapshot is older than what it does.
"""

from __future__ import annotations

from typing import Any

from worker.store.finding import Found, platform_row
from worker.store.gates import known_source
from worker.store.store import Store, to_json

# {name} is the name of a source, which a map checks to be a plain identifier.
_ACT = """
WITH before AS MATERIALIZED (
    SELECT to_jsonb(q) - ARRAY['token'] AS queued FROM rowmill.queue q
      JOIN rowmill.sources s ON s.id = q.source WHERE s.name = $1 AND q.row_key = $2
), done AS MATERIALIZED (
    SELECT rowmill.{action}_{name}($2) AS verdict
)
INSERT INTO rowmill.actions (who, action, subject, detail)
SELECT $3, '{action}', $1 || '/' || $2,
       jsonb_build_object('verdict', d.verdict, 'before', (SELECT queued FROM before),
                          'row', $4::jsonb)
  FROM done d
RETURNING detail ->> 'verdict'
"""


async def retry(store: Store, source: str, key: str, who: str) -> str:
    """Let it run again: a finished row starts over with no tries spent, a held one goes on.

    Returns requeued | released | hastened, or why not: missing | running | the row's status.
    """
    return await _act(store, "retry", source, key, who)


async def cancel(store: Store, source: str, key: str, who: str) -> str:
    """Returns cancelled, or why not: missing | the finished row's status."""
    return await _act(store, "cancel", source, key, who)


async def resolve(
    store: Store,
    job: Found,
    *,
    how: str,
    who: str,
    step: str | None = None,
    external_id: str | None = None,
) -> str:
    """Say what became of a call nobody could find out about; see rowmill.resolve()."""
    return str(
        await store.value(
            "SELECT rowmill.resolve($1, $2, $3, $4, $5, $6)",
            *(job.source, job.key, step, how, external_id, who),
        )
    )


async def _act(store: Store, action: str, source: str, key: str, who: str) -> str:
    name = await known_source(store, source)
    (info,) = [s for s in await store.sources() if s.name == name]
    row = await platform_row(store, info, key)
    if row is None:
        return "missing"
    statement = _ACT.format(action=action, name=name)
    return str(await store.value(statement, name, row.key, who, to_json(_in_short(row.data))))


def _in_short(data: dict[str, Any]) -> dict[str, Any]:
    """Long texts aren't what an operator changes; the record needn't hold a copy."""
    return {
        name: value
        for name, value in data.items()
        if not isinstance(value, str | dict | list) or len(str(value)) < 500
    }
