"""What happens beside the hot path: progress, the sweep, and what operators do.

rowmill.about_, row_, lock_, retry_, requeue_, priority_, cancel_ and fail_<source>() are called by
rowmill.act() and resolve(): sql/functions/acts.sql, ledger.sql.
"""

from __future__ import annotations

from worker.generate.rules import embed
from worker.generate.words import (
    CANCELLED,
    HEADER,
    LOCK_TIMEOUT,
    QUEUE_COLUMNS,
    Target,
    assignments,
    ident,
    lane_of,
    literal,
    lock_parents,
    parent_variables,
    queue_row,
    run_of,
    status_of,
    status_value,
    unfinished,
    value_of,
    words,
)


def operate_functions(target: Target) -> list[str]:
    return [
        _progress(target),
        _sweep(target),
        _about(target),
        _row(target),
        _lock(target),
        _retry(target),
        _requeue(target),
        _priority(target),
        _cancel(target),
        _fail(target),
    ]


def _progress(target: Target) -> str:
    """Progress and external ids of all running jobs of one worker, in one statement."""
    source = target.source
    key, key_type, table = ident(source.key), target.key_type, target.table
    sets = assignments(target, "progress")
    update = (
        f"""UPDATE {table} t SET {", ".join(sets)}
          FROM jsonb_to_recordset(p_entries) AS r (key text, progress double precision, external_id text)
         WHERE t.{key} = ANY (rowmill_keys) AND t.{key} = r.key::{key_type};"""
        if sets
        else ""
    )
    return f"""CREATE OR REPLACE FUNCTION rowmill.progress_{source.name}(p_entries jsonb) RETURNS integer
LANGUAGE plpgsql {HEADER} {LOCK_TIMEOUT} AS $rowmill$
DECLARE
    v_now        timestamptz := clock_timestamp();
    p_wait       boolean := false;
    rowmill_keys {key_type}[];{parent_variables(target)}
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    rowmill_keys := ARRAY(
        SELECT t.{key} FROM {table} t
         WHERE t.{key} = ANY (ARRAY(SELECT (e ->> 'key')::{key_type} FROM jsonb_array_elements(p_entries) e))
           AND {status_of(target, "t")} IN {words([source.status.running])}
           FOR NO KEY UPDATE SKIP LOCKED);{lock_parents(target, "rowmill_keys")}
    rowmill_keys := ARRAY(
        SELECT q.row_key::{key_type} FROM rowmill.queue q
          JOIN jsonb_to_recordset(p_entries) AS e (queue_id bigint, token bigint)
            ON e.queue_id = q.id AND e.token = q.token
         WHERE q.id = ANY (ARRAY(SELECT (e ->> 'queue_id')::bigint FROM jsonb_array_elements(p_entries) e))
           AND q.row_key = ANY (rowmill_keys::text[]) AND q.state = 'claimed');
    {update}{embed(target, "follow")}
    RETURN cardinality(rowmill_keys);
END $rowmill$"""


def _sweep(target: Target) -> str:
    """Ready rows without a queue row (triggers were off; or the table is just being attached).

    Running rows without a queue row were started by someone we know nothing of: they are held for a
    person, and only where the caller asks for them.
    """
    source = target.source
    values, joins = queue_row(target, "n", run_of(target, "n"), "(SELECT b.bonus FROM bonus b)")
    bonus = (
        f""", bonus AS MATERIALIZED (
        SELECT rowmill.bonus_{source.name}(ARRAY(SELECT n.{ident(source.key)} FROM missing n)) AS bonus)"""
        if target.rule("rank")
        else ""
    )
    ready = words(source.status.ready)
    status = status_of(target, "n")
    running = words([source.status.running])
    return f"""CREATE OR REPLACE FUNCTION rowmill.sweep_{source.name}(
    p_limit integer, p_running boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $rowmill$
DECLARE
    v_now   timestamptz := clock_timestamp();
    v_count integer;
BEGIN
    WITH missing AS MATERIALIZED (
        SELECT n.* FROM {target.table} n
         WHERE ({status} IN {ready} OR (p_running AND {status} IN {running}))
           AND NOT EXISTS (SELECT FROM rowmill.queue q
                            WHERE q.source = {target.id} AND q.row_key = n.{ident(source.key)}::text)
         LIMIT p_limit){bonus}
    INSERT INTO rowmill.queue ({QUEUE_COLUMNS}, note)
    SELECT v.source, v.row_key, v.lane, v.rank, v.ready_at,
           CASE WHEN v.running THEN 'held' ELSE v.state END, v.run, v.tenant,
           CASE WHEN v.running THEN 'it was already running when its table was attached: '
                'rowmill retry or rowmill cancel' END
      FROM (SELECT {values}, {status} IN {running}
              FROM missing n {" ".join(joins)}) AS v ({QUEUE_COLUMNS}, running)
    ON CONFLICT (source, row_key) DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $rowmill$"""


def _about(target: Target) -> str:
    """How far these jobs are, in the words that all tables share, and what they are.

    `version` is another one as soon as it is another job: of one that is over with everything that
    anyone writes into its row, of a queued one when it is over, queued anew, held, or no more the one
    that was held. `began` says of a queued job whether it ran before, and so waits for more than its own
    time.
    """
    source, status = target.source, target.source.status
    key, name = ident(source.key), literal(source.name)
    kind, kind_joins = value_of(source.kind, "t", "kind")
    lane, lane_joins = lane_of(target, "t")
    failed = f"WHEN {literal(status.failed)} THEN 'failed'"
    if status.cancelled:
        failed += f" WHEN {literal(status.cancelled)} THEN 'cancelled'"
    else:
        failed = f"""WHEN {literal(status.failed)} THEN
                    CASE WHEN (SELECT f.kind FROM rowmill.failures f
                                WHERE f.source = {name} AND f.row_key = t.{key}::text AND f.final
                                ORDER BY f.id DESC LIMIT 1) = {literal(CANCELLED)}
                         THEN 'cancelled' ELSE 'failed' END"""
    return f"""CREATE OR REPLACE FUNCTION rowmill.about_{source.name}(p_keys text[])
RETURNS TABLE (key text, status text, state text, lane text, kind text, rank smallint, run integer, began boolean, version text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $rowmill$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT t.{key}::text, {status_of(target, "t")},
               CASE q.state WHEN 'claimed' THEN 'running' ELSE coalesce(q.state::text,
                    CASE {status_of(target, "t")} WHEN {literal(status.succeeded)} THEN 'completed'
                    {failed}
                    ELSE 'unqueued' END) END,
               coalesce(q.lane, {lane}), coalesce({kind}, ''), q.rank, q.run,
               q.tries > 0 OR q.yields > 0 OR q.note IS NOT NULL,
               coalesce('queued ' || q.id || CASE q.state WHEN 'held' THEN ', held ' || q.xmin::text ELSE '' END,
                        t.xmin::text)
          FROM {target.table} t {" ".join([*kind_joins, *lane_joins])}
          LEFT JOIN rowmill.queue q ON q.source = {target.id} AND q.row_key = t.{key}::text
         WHERE t.{key} = ANY (p_keys::{target.key_type}[]);
END $rowmill$"""


def _row(target: Target) -> str:
    """The row for an operator, locked, and its key as the database writes it; no long values."""
    source = target.source
    return f"""CREATE OR REPLACE FUNCTION rowmill.row_{source.name}(p_key text, OUT key text, OUT data jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $rowmill$
BEGIN
    SELECT t.{ident(source.key)}::text, to_jsonb(t) INTO key, data FROM {target.table} t
     WHERE t.{ident(source.key)} = p_key::{target.key_type} FOR NO KEY UPDATE;
    data := (SELECT jsonb_object_agg(c.key, c.value) FROM jsonb_each(data) c
              WHERE length(c.value::text) < 500);
END $rowmill$"""


def _lock(target: Target) -> str:
    """A job for an operator: its row, then its queue row, locked in everyone's order.

    `state` is null where it isn't queued. Until the end of the transaction nobody claims it.
    """
    source = target.source
    return f"""CREATE OR REPLACE FUNCTION rowmill.lock_{source.name}(
    p_key text, OUT there boolean, OUT status text, OUT state rowmill.queue_state)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $rowmill$
BEGIN
    SELECT {status_of(target, "t")} INTO status FROM {target.table} t
     WHERE t.{ident(source.key)} = p_key::{target.key_type} FOR NO KEY UPDATE;
    there := FOUND;
    SELECT q.state INTO state FROM rowmill.queue q
     WHERE q.source = {target.id} AND q.row_key = p_key FOR UPDATE;
END $rowmill$"""


def _retry(target: Target) -> str:
    source, status = target.source, target.source.status
    key, key_type = ident(source.key), target.key_type
    finished = words([w for w in (status.failed, status.cancelled) if w])
    return f"""CREATE OR REPLACE FUNCTION rowmill.retry_{source.name}(p_key text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
    SET rowmill.retrying = 'on' AS $rowmill$
DECLARE
    v_now    timestamptz := clock_timestamp();
    v_status text;
    v_state  rowmill.queue_state;
BEGIN
    SELECT l.status, l.state INTO v_status, v_state FROM rowmill.lock_{source.name}(p_key) l WHERE l.there;
    IF NOT FOUND THEN
        RETURN 'missing';
    ELSIF v_state = 'claimed' THEN
        RETURN 'running';
    ELSIF v_state IS NOT NULL THEN
        UPDATE rowmill.queue q SET state = 'ready', ready_at = least(q.ready_at, v_now), tries = 0,
               yields = 0, note = NULL
         WHERE q.source = {target.id} AND q.row_key = p_key;
        RETURN CASE v_state WHEN 'held' THEN 'released' ELSE 'hastened' END;
    ELSIF v_status IN {finished} THEN
        -- The row's own trigger puts it back in the queue, as for anyone else's UPDATE.
        UPDATE {target.table} t SET {_from_the_start(target)} WHERE t.{key} = p_key::{key_type};
        RETURN 'requeued';
    END IF;
    RETURN v_status;
END $rowmill$"""


def _from_the_start(target: Target) -> str:
    """What a finished row gets that is to run again."""
    source, status = target.source, target.source.status
    sets = [f"{ident(status.column)} = {status_value(target, status.ready[0])}"]
    if source.tries is not None:
        sets.append(f"{ident(source.tries.column)} = 0")
    return ", ".join([*sets, *assignments(target, "requeue")])


def _requeue(target: Target) -> str:
    """New work for a finished row, in a new run, as anyone's UPDATE of it asks for.

    Only where nothing that is paid for would be lost or paid a second time by it: who holds the row's
    lock keeps every claim away, so the ledger can't get anything new of it meanwhile.
    """
    source, status = target.source, target.source.status
    finished = words([w for w in (status.succeeded, status.failed, status.cancelled) if w])
    return f"""CREATE OR REPLACE FUNCTION rowmill.requeue_{source.name}(p_key text, p_anew boolean) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $rowmill$
DECLARE
    v_now    timestamptz := clock_timestamp();
    v_status text;
    v_state  rowmill.queue_state;
    v_owed   text;
BEGIN
    SELECT l.status, l.state INTO v_status, v_state FROM rowmill.lock_{source.name}(p_key) l WHERE l.there;
    IF NOT FOUND THEN
        RETURN 'missing';
    ELSIF v_state IS NOT NULL THEN
        RETURN CASE v_state WHEN 'claimed' THEN 'running' WHEN 'held' THEN 'held' ELSE 'waiting' END;
    ELSIF v_status NOT IN {finished} THEN
        RETURN v_status;
    END IF;
    v_owed := rowmill.owed({literal(source.name)}, p_key);
    IF v_owed IS NOT NULL AND NOT (p_anew AND v_owed = 'undelivered') THEN
        RETURN v_owed;
    END IF;
    UPDATE {target.table} t SET {_from_the_start(target)} WHERE t.{ident(source.key)} = p_key::{target.key_type};
    RETURN 'requeued';
END $rowmill$"""


def _priority(target: Target) -> str:
    """The row's own priority, which its trigger makes a rank of; or the rank, where it has none."""
    source = target.source
    column = source.priority.column if source.priority else None
    if column:
        written = f"""
    UPDATE {target.table} t SET {ident(column)} = p_value::{target.columns[column].type}
     WHERE t.{ident(source.key)} = p_key::{target.key_type};"""
    else:
        written = f"""
    IF v_state IS NULL THEN
        RETURN 'unqueued';
    END IF;
    UPDATE rowmill.queue q SET rank = p_value::smallint
     WHERE q.source = {target.id} AND q.row_key = p_key;
    IF v_state = 'ready' THEN
        PERFORM rowmill.ring(q.lane) FROM rowmill.queue q WHERE q.source = {target.id} AND q.row_key = p_key;
    END IF;"""
    return f"""CREATE OR REPLACE FUNCTION rowmill.priority_{source.name}(p_key text, p_value text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $rowmill$
DECLARE
    v_status text;
    v_state  rowmill.queue_state;
BEGIN
    SELECT l.status, l.state INTO v_status, v_state FROM rowmill.lock_{source.name}(p_key) l WHERE l.there;
    IF NOT FOUND THEN
        RETURN 'missing';
    ELSIF v_status NOT IN {unfinished(target)} THEN
        RETURN v_status;
    END IF;{written}
    RETURN CASE WHEN v_state = 'claimed' THEN 'noted' ELSE 'moved' END;
END $rowmill$"""


def _cancel(target: Target) -> str:
    """Row, queue row (by the row's own trigger), parents: everyone's order.

    For a parent it waits less long than the server needs to look for a deadlock.
    """
    source, status = target.source, target.source.status
    key, key_type = ident(source.key), target.key_type
    word = status.cancelled or status.failed
    return f"""CREATE OR REPLACE FUNCTION rowmill.cancel_{source.name}(p_key text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
    SET enable_seqscan = off SET enable_mergejoin = off SET jit = off AS $rowmill$
DECLARE
    p_wait       boolean := true;
    v_status     text;
    rowmill_keys {key_type}[] := ARRAY[p_key::{key_type}];{parent_variables(target)}
BEGIN
    SELECT {status_of(target, "t")} INTO v_status FROM {target.table} t
     WHERE t.{key} = p_key::{key_type} FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    ELSIF v_status NOT IN {unfinished(target)} THEN
        RETURN v_status;
    END IF;{_told_apart(target)}
    UPDATE {target.table} t SET {ident(status.column)} = {status_value(target, word)}
     WHERE t.{key} = p_key::{key_type};{_parents(target)}{embed(target, "follow")}
    RETURN 'cancelled';
END $rowmill$"""


def _parents(target: Target) -> str:
    """What the follow rule waits for is waited for no longer, either: then nothing is cancelled."""
    if not target.source.locks and target.rule("follow") is None:
        return ""
    return f"""
    PERFORM set_config('lock_timeout', '250ms', true);{lock_parents(target, "rowmill_keys")}"""


def _told_apart(target: Target) -> str:
    if target.source.status.cancelled:
        return ""
    name = literal(target.source.name)
    return f"""
    INSERT INTO rowmill.failures (source, row_key, lane, run, try, final, kind, message, worker)
    SELECT {name}, p_key, coalesce(q.lane, ''), coalesce(q.run, (
               SELECT max(s.run) FROM rowmill.submissions s
                WHERE s.source = {name} AND s.row_key = p_key), 1),
           coalesce(q.tries, 0) + 1, true, {literal(CANCELLED)}, 'an operator cancelled it', coalesce(q.worker, 0)
      FROM (SELECT) AS one
      LEFT JOIN rowmill.queue q ON q.source = {target.id} AND q.row_key = p_key;"""


def _fail(target: Target) -> str:
    """An operator's word that a job has failed goes the way of a worker's: claimed, then settled."""
    source = target.source
    kind, joins = value_of(source.kind, "t", "kind")
    return f"""CREATE OR REPLACE FUNCTION rowmill.fail_{source.name}(p_key text, p_error text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $rowmill$
DECLARE
    q         rowmill.queue;
    v_kind    text;
    v_verdict text;
BEGIN
    PERFORM rowmill.lock_{source.name}(p_key);
    SELECT * INTO q FROM rowmill.queue o
     WHERE o.source = {target.id} AND o.row_key = p_key AND o.state <> 'claimed';
    IF NOT FOUND THEN
        RETURN 'running';
    END IF;
    UPDATE rowmill.queue o SET state = 'claimed', token = -q.id, worker = 0, claimed_at = clock_timestamp()
     WHERE o.id = q.id;
    SELECT {kind} INTO v_kind FROM {target.table} t {" ".join(joins)}
     WHERE t.{ident(source.key)} = p_key::{target.key_type};
    SELECT s.verdict INTO v_verdict FROM rowmill.settle_{source.name}(jsonb_build_array(jsonb_build_object(
        'queue_id', q.id, 'token', -q.id, 'key', p_key, 'lane', q.lane, 'kind', coalesce(v_kind, ''), 'run', q.run, 'verb', 'fail',
        'try', q.tries + 1, 'error', p_error, 'error_kind', 'unknown', 'error_code', 'resolved'))) s;
    RETURN CASE v_verdict WHEN 'settled' THEN 'failed' ELSE v_verdict END;
END $rowmill$"""
