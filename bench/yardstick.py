"""pgbench calling the functions a worker calls, with the same batches and nothing in between.

It builds its results in SQL, as it can't build them itself. Where there is no pgbench, a minimal
loop plays the same script through one connection.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from bench.database import database, enqueue
from worker.embedded_places import EmbeddedError, wheel_binaries

_CLAIM = r"""
\set token random(1, 4611686018427387904)
SELECT coalesce(array_agg(queue_id), '{}') AS ids FROM rowmill.claim(1, :token::bigint, '{replicate}', %(batch)d) \gset
SELECT count(*) FROM rowmill.start_generation_jobs(:token::bigint, :ids::bigint[], true);
"""

_JOURNAL = r"""
SELECT coalesce(jsonb_agg(jsonb_build_object('queue_id', id, 'token', :token::bigint, 'worker', 1, 'step', 'main',
       'provider', 'replicate', 'account', 'default', 'model', 'instant', 'estimate_cents', '6.5', 'fingerprint', '', 'nonce', id)), '[]') AS intents
  FROM unnest(:ids::bigint[]) AS i (id) \gset
SELECT coalesce(array_agg(id), '{}') AS submissions FROM rowmill.intend(:intents::jsonb) \gset
SELECT count(*) FROM rowmill.journal((SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'state', 'accepted',
       'ref', jsonb_build_object('id', id), 'external_id', id)), '[]') FROM unnest(:submissions::bigint[]) AS s (id)));
SELECT count(*) FROM rowmill.journal((SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'state', 'finished',
       'result', jsonb_build_object('url', 'https://cdn.example.com/x'), 'cost_cents', '6.5')), '[]')
  FROM unnest(:submissions::bigint[]) AS s (id)));
"""

_SETTLE = r"""
SELECT count(*) FROM rowmill.settle_generation_jobs((
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'queue_id', q.id, 'token', q.token, 'key', q.row_key, 'lane', q.lane, 'kind', 'media' || chr(58) || 'video',
        'run', q.run, 'verb', 'succeed', 'try', 1, 'media_id', q.row_key,
        'outputs', jsonb_build_array(jsonb_build_object(
            'role', 'main', 'media_id', q.row_key, 'key', 'generation_jobs/' || q.row_key || '/1/main/0.mp4',
            'url', 'https://cdn.example.com/' || q.row_key, 'mime_type', 'video/mp4', 'file_type', 'video',
            'size', 123456, 'sha256', md5(q.row_key), 'filename', 'video.mp4',
            'width', 1920, 'height', 1080, 'duration_seconds', 5.0)),
        'metadata', '{"provider": "replicate", "model": "instant"}'::jsonb, 'data', '{}'::jsonb,
        'cost_cents', '6.5', 'provider', 'replicate', 'model', 'instant',
        'external_id', q.row_key || '-1', 'duration_ms', 0)), '[]')
      FROM rowmill.queue q WHERE q.id = ANY (:ids::bigint[])), true);
"""


# A worker that meets the lock time-out tries in another way; pgbench would end with an error.
_PATIENT = """
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc
              WHERE pronamespace = 'rowmill'::regnamespace AND proconfig::text LIKE '%lock_timeout%' LOOP
        EXECUTE format('ALTER FUNCTION %s SET lock_timeout = %L', f, '30s');
    END LOOP;
END $$
"""


async def yardstick(admin: str, jobs: int, *, batch: int, paid: bool) -> float:
    """Jobs per second; the better of one and two clients, which depends on the machine."""
    script = (_CLAIM + (_JOURNAL if paid else "") + _SETTLE) % {"batch": batch}
    one = await _measure(admin, jobs, script, clients=1, times=-(-jobs // batch))
    return max(one, await _measure(admin, jobs, script, clients=2, times=-(-jobs // (2 * batch))))


async def _measure(admin: str, jobs: int, script: str, *, clients: int, times: int) -> float:
    async with database(admin) as dsn:
        await enqueue(dsn, jobs)
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            "SELECT rowmill.register(1, 'pgbench', '0', '{replicate}', 1000, 3600)"
        )
        await connection.execute(_PATIENT)
        began = time.perf_counter()
        await _run(dsn, script, clients, times)
        seconds = time.perf_counter() - began
        left = await connection.fetchval("SELECT count(*) FROM rowmill.queue")
        await connection.close()
    return float((jobs - left) / seconds)


async def _run(dsn: str, script: str, clients: int, times: int) -> None:
    binary = _binary()
    if binary is None:
        await asyncio.gather(*(_loop(dsn, script, times) for _ in range(clients)))
        return
    with tempfile.TemporaryDirectory(prefix="rowmill-bench-") as directory:
        file = Path(directory) / "cycle.sql"
        file.write_text(script)
        process = await asyncio.create_subprocess_exec(
            *(str(binary), "-n", "-M", "prepared", "-c", str(clients), "-j", str(clients)),
            *("-t", str(times), "-f", str(file), dsn),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"pgbench failed: {errors.decode()[-500:]}")


def _binary() -> Path | None:
    """Pgbench from PATH, or of the embedded server's wheel."""
    found = shutil.which("pgbench")
    if found:
        return Path(found)
    try:
        return next((b / "pgbench" for b in wheel_binaries() if (b / "pgbench").exists()), None)
    except EmbeddedError:
        return None


async def _loop(dsn: str, script: str, times: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for _ in range(times):
            await _play(connection, script)
    finally:
        await connection.close()


async def _play(connection: Any, script: str) -> None:
    """One round of the script: a statement ends with a semicolon, or with gset to keep its row."""
    values = {"token": str(secrets.randbits(62))}
    for part in re.split(r"(;|\\gset)\n", re.sub(r"\\set .*\n", "", script)):
        statement = part.strip()
        if not statement or statement in (";", "\\gset"):
            continue
        row = await connection.fetchrow(_filled(statement, values))
        values |= {name: _text(value) for name, value in row.items()}


def _filled(statement: str, values: dict[str, str]) -> str:
    return re.sub(r"(?<!:):([a-z]\w*)", lambda match: f"'{values[match[1]]}'", statement)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "{" + ",".join(map(str, value)) + "}"
    return str(value).replace("'", "''")
