"""What must be true of every row, call and charge after anything whatever has happened.

`watch` must be called before the first job: it notes every change of a status in a table, so that
the end can be compared with the way there. Then `broken` names each promise that doesn't hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from tests.process.fleet import Charge
from tests.process.rows import TABLES, billed, ledger

_WATCH = """
CREATE TABLE public.seen (source text, key text, before text, after text);
CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.seen VALUES (TG_ARGV[0], NEW.id::text, OLD.status::text, NEW.status::text);
    RETURN NULL;
END $$;
CREATE TRIGGER see_steps_back AFTER UPDATE OF progress_percentage ON public.generation_jobs
   FOR EACH ROW WHEN (NEW.progress_percentage < OLD.progress_percentage AND NEW.status <> 'queued')
   EXECUTE FUNCTION public.see('progress went back');
"""
_WATCH_TABLE = """
CREATE TRIGGER see AFTER UPDATE OF status ON {table}
   FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
   EXECUTE FUNCTION public.see('{source}');
"""


async def watch(connection: Any) -> None:
    await connection.execute(_WATCH)
    for source, table in TABLES.items():
        await connection.execute(_WATCH_TABLE.format(source=source, table=table))


# --------------------------------------------------------------------------- rows

_COMPLETIONS = """
SELECT count(*) FROM public.seen s
 WHERE s.source = '{source}' AND s.key = j.id::text AND s.after = 'completed'
"""
_DELIVERIES = """
SELECT count(*) FROM rowmill.submissions u
 WHERE u.source = '{source}' AND u.row_key = j.id::text AND u.delivered_at IS NOT NULL
   AND u.state = 'finished'
"""

# Each selects what breaks the promise it is called by.
PROMISES = {
    "every job ends, or a person is asked": """
SELECT row_key, state::text, note FROM rowmill.queue WHERE state <> 'held'
""",
    "a finished row stays as it is until its owner wants it again": """
SELECT source, key, before, after FROM public.seen
 WHERE before IN ('completed', 'failed', 'cancelled') AND after NOT IN ('queued', 'pending')
    OR source = 'progress went back'
""",
    "nothing completes but from processing": """
SELECT source, key, before, after FROM public.seen
 WHERE after = 'completed' AND before <> 'processing'
""",
    "a completed generation has its file and all its marks": """
SELECT j.id::text FROM public.generation_jobs j
  LEFT JOIN public.media_files f ON f.id = j.output_file_id
 WHERE j.status = 'completed'
   AND (f.user_id IS DISTINCT FROM j.user_id OR j.progress_percentage <> 100
        OR j.error_message IS NOT NULL OR j.completed_at IS NULL
        OR j.completed_at < j.started_at OR f.file_key NOT LIKE 'generation_jobs/' || j.id || '/%')
""",
    "each completion of a generation has one file, one usage record, one delivered call": f"""
SELECT j.id::text, c.count AS completions, u.count AS usage, f.count AS files, d.count AS calls
  FROM public.generation_jobs j
 CROSS JOIN LATERAL ({_COMPLETIONS.format(source="generation_jobs")}) c
 CROSS JOIN LATERAL ({_DELIVERIES.format(source="generation_jobs")}) d
 CROSS JOIN LATERAL (SELECT count(*) FROM public.usage_records r
                      WHERE r.generation_job_id = j.id) u
 CROSS JOIN LATERAL (SELECT count(*) FROM public.media_files m
                      WHERE m.file_key LIKE 'generation_jobs/' || j.id || '/%') f
 WHERE (c.count, c.count, c.count) <> (u.count, f.count, d.count)
""",
    "each completion of a text has one usage record and one delivered call": f"""
SELECT j.id::text, c.count AS completions, u.count AS usage, d.count AS calls
  FROM ai_processing.ai_generations j
 CROSS JOIN LATERAL ({_COMPLETIONS.format(source="ai_generations")}) c
 CROSS JOIN LATERAL ({_DELIVERIES.format(source="ai_generations")}) d
 CROSS JOIN LATERAL (SELECT count(*) FROM billing.usage_records r
                      WHERE r.ai_generation_id = j.id) u
 WHERE (c.count, c.count) <> (u.count, d.count)
""",
    "a completed text is there": """
SELECT id::text FROM ai_processing.ai_generations
 WHERE status = 'completed' AND (response = '' OR tokens_used <= 0 OR completed_at IS NULL)
""",
    "a failed row says why": """
SELECT id::text FROM public.generation_jobs
 WHERE status = 'failed' AND (failed_at IS NULL OR coalesce(error_message, '') = '')
UNION ALL
SELECT id::text FROM ai_processing.ai_generations
 WHERE status = 'failed' AND coalesce(error_message, '') = ''
UNION ALL
SELECT id::text FROM system.background_jobs
 WHERE status = 'failed' AND coalesce(error_message, '') = ''
""",
    "no job is tried more often than it allows": """
SELECT id::text, retry_count FROM public.generation_jobs
 WHERE retry_count > max_retries OR progress_percentage NOT BETWEEN 0 AND 100
UNION ALL
SELECT id::text, retry_count FROM system.background_jobs WHERE retry_count > max_retries
""",
    "no paid task is in nobody's care": """
SELECT u.row_key, u.state::text FROM rowmill.submissions u WHERE u.state = 'accepted'
""",
    "only a cancelled job's call may stay undecided": """
SELECT u.row_key, u.state::text FROM rowmill.submissions u
 WHERE u.state IN ('intent', 'unknown')
   AND EXISTS (SELECT FROM public.seen s WHERE s.key = u.row_key)
   AND NOT EXISTS (SELECT FROM public.seen s WHERE s.key = u.row_key AND s.after = 'cancelled')
""",
}


async def broken(connection: Any, charges: list[Charge]) -> dict[str, Any]:
    """The promises that don't hold, with what breaks them."""
    found = {name: await connection.fetch(sql) for name, sql in PROMISES.items()}
    lines = [dict(line) for line in await connection.fetch(_CALLS)]
    found["nothing but a small text is paid twice"] = paid_again(lines, charges)
    found["our ledger is the provider's bill"] = wrongly_booked(
        lines, await ledger(connection), billed(charges)
    )
    return {name: rows for name, rows in found.items() if rows}


# --------------------------------------------------------------------------- money

_CALLS = """
SELECT source || '/' || row_key AS marker, run, step, provider, state::text, external_id
  FROM rowmill.submissions
"""
CENT = Decimal(1)


def paid_again(calls: list[dict[str, Any]], charges: list[Charge]) -> list[Any]:
    """Steps of a run that were paid twice, and tasks that we don't know of at all.

    A task that was cancelled may be followed by another.
    """
    tasks = {call["external_id"]: call for call in calls if call["external_id"]}
    paid = [charge for charge in charges if charge.net > 0]
    unknown = [c for c in paid if c.external_id not in tasks and c.net > CENT]
    known = [tasks[c.external_id] for c in paid if c.external_id in tasks]
    steps = Counter(
        (call["marker"], call["run"], call["step"])
        for call in known
        if call["state"] != "cancelled"
    )
    return [*unknown, *(step for step, times in steps.items() if times > 1)]


def wrongly_booked(
    calls: list[dict[str, Any]], ours: dict[str, Decimal], theirs: dict[str, Decimal]
) -> list[Any]:
    """Jobs whose sums differ by more than the small calls whose answers were lost."""
    lost: dict[str, int] = defaultdict(int)
    for call in calls:
        lost[call["marker"]] += call["provider"] == "openai" and call["state"] in (
            "written_off",
            "intent",
            "unknown",
        )
    zero = Decimal(0)
    return [
        (marker, ours.get(marker), theirs.get(marker))
        for marker in ours.keys() | theirs.keys()
        if not 0 <= theirs.get(marker, zero) - ours.get(marker, zero) <= lost[marker] * CENT
    ]
