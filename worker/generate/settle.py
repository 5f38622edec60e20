"""rowmill.settle_<source>(): results of a batch into the platform's tables, exactly once.

One transaction, locks always in the same order: source rows (SKIP LOCKED), queue rows by (id,
token), shared parents in key order. Only rows whose source row and queue row are both locked and
still ours have effects; the queue rows go in the same commit, so a repeat finds nothing to do.
"""

from __future__ import annotations

from worker.generate.allowances import settle_allowances, settle_variables
from worker.generate.rules import embed, metered
from worker.generate.words import (
    CANCELLED,
    HEADER,
    LOCK_TIMEOUT,
    Target,
    assignments,
    ident,
    lane_of,
    literal,
    lock_parents,
    parent_variables,
    status_of,
    status_value,
    unfinished,
)


def settle_function(target: Target) -> str:
    source = target.source
    table, key, key_type = target.table, ident(source.key), target.key_type
    lane, joins = lane_of(target, "t")
    # In a table that has no word for it, a cancelled job is a failed one, and this tells them apart.
    failures = "'retry', 'fail'" if source.status.cancelled else "'retry', 'fail', 'cancel'"
    return f"""CREATE OR REPLACE FUNCTION rowmill.settle_{source.name}(
    p_results jsonb, p_wait boolean DEFAULT true)
RETURNS TABLE (queue_id bigint, verdict text)
LANGUAGE plpgsql {HEADER} {LOCK_TIMEOUT} AS $rowmill$
#variable_conflict use_column
DECLARE
    v_now        timestamptz := clock_timestamp();
    v_all        rowmill.result[];
    v_results    rowmill.result[];   -- the ones that are ours to write
    v_ids        bigint[];
    v_tokens     bigint[];
    v_locked     bigint[];
    v_keys       {key_type}[];
    v_mine       bigint[];
    v_verbs      text[];
    rowmill_keys {key_type}[];{parent_variables(target)}{settle_variables(target)}
BEGIN
    v_all := ARRAY(SELECT jsonb_populate_recordset(NULL::rowmill.result, p_results));
    SELECT array_agg(r.queue_id), array_agg(r.key::{key_type}) INTO v_ids, v_keys FROM unnest(v_all) r;

    rowmill_keys := ARRAY(SELECT t.{key} FROM {table} t
                           WHERE t.{key} = ANY (v_keys) AND {status_of(target, "t")} IN {unfinished(target)}
                             FOR NO KEY UPDATE SKIP LOCKED);{lock_parents(target, "rowmill_keys")}
    -- By id alone, and the rest compared by hashing: planned for a few rows, a join here would
    -- compare every row with every result.
    v_ids := ARRAY(SELECT c.id FROM unnest(v_ids, v_keys) AS c (id, key)
                    WHERE (c.key IN (SELECT k FROM unnest(rowmill_keys) k)) IS TRUE);
    SELECT array_agg(m.id), array_agg(m.token) INTO v_locked, v_tokens FROM (
        SELECT q.id, q.token FROM rowmill.queue q
         WHERE q.id = ANY (v_ids) AND q.token IS NOT NULL FOR UPDATE SKIP LOCKED) m;
    v_results := ARRAY(SELECT r FROM unnest(v_all) r
                        WHERE ((r.queue_id, r.token) IN (SELECT * FROM unnest(v_locked, v_tokens))) IS TRUE);
    SELECT coalesce(array_agg(r.queue_id), '{{}}'), coalesce(array_agg(r.key::{key_type}), '{{}}')
      INTO v_mine, rowmill_keys FROM unnest(v_results) r;
    v_verbs := ARRAY(SELECT DISTINCT r.verb FROM unnest(v_results) r);

    IF 'succeed' = ANY (v_verbs) THEN{embed(target, "output", where="r.verb = 'succeed'")}
        {_update(target, "succeed", source.status.succeeded, "success")}{embed(target, "finish", where="r.verb = 'succeed'")}{embed(target, "usage", where=metered(target))}
    END IF;
    IF 'retry' = ANY (v_verbs) THEN
        {_update(target, "retry", source.status.ready[0], "retry", tries=True)}
    END IF;
    IF 'fail' = ANY (v_verbs) THEN
        {_update(target, "fail", source.status.failed, "failure")}
    END IF;
    IF 'cancel' = ANY (v_verbs) THEN
        {_update(target, "cancel", source.status.cancelled or source.status.failed, "cancel")}
    END IF;{_failed_for_good(target)}
    IF v_verbs && ARRAY['yield', 'wait', 'release'] THEN
        {_update(target, ("yield", "wait", "release"), source.status.ready[0], None, attempts_back=True)}
    END IF;
    IF v_verbs && ARRAY[{failures}] THEN
        INSERT INTO rowmill.failures (source, row_key, lane, run, try, final, kind, code, provider, message, worker)
        SELECT {literal(source.name)}, r.key, r.lane, r.run, r.try, r.verb <> 'retry',
               CASE r.verb WHEN 'cancel' THEN {literal(CANCELLED)} ELSE coalesce(r.error_kind, 'unknown') END,
               coalesce(r.error_code, ''), r.provider, coalesce(r.error, ''), q.worker
          FROM unnest(v_results) r JOIN rowmill.queue q ON q.id = r.queue_id
         WHERE q.id = ANY (v_mine) AND r.verb IN ({failures});
    END IF;{settle_allowances(target)}

    IF v_verbs && ARRAY['succeed', 'retry', 'fail', 'yield'] THEN
        -- The job has answered for its calls: results are in the tables, billed failures are told.
        UPDATE rowmill.submissions s SET delivered_at = v_now
         WHERE s.id = ANY (ARRAY(
               SELECT d.id FROM unnest(v_results) r CROSS JOIN LATERAL (
                      SELECT s.id FROM rowmill.submissions s
                       WHERE s.source = {literal(source.name)} AND s.row_key = r.key
                         AND s.run = r.run AND s.delivered_at IS NULL
                         AND s.state = ANY (CASE r.verb
                             WHEN 'succeed' THEN '{{finished,failed}}'::rowmill.submission_state[]
                             ELSE '{{failed}}'::rowmill.submission_state[] END) OFFSET 0) d
                WHERE r.verb IN ('succeed', 'retry', 'fail', 'yield')));
    END IF;
    DELETE FROM rowmill.queue q WHERE q.id = ANY (ARRAY(
           SELECT r.queue_id FROM unnest(v_results) r WHERE r.verb IN ('succeed', 'fail', 'cancel')));
    IF v_verbs && ARRAY['retry', 'yield', 'wait', 'release', 'hold'] THEN
        UPDATE rowmill.queue q
           SET state = (CASE r.verb WHEN 'hold' THEN 'held' WHEN 'release' THEN 'ready'
                                    ELSE 'scheduled' END)::rowmill.queue_state,
               ready_at = CASE WHEN r.verb IN ('retry', 'yield', 'wait')
                               THEN v_now + make_interval(secs => coalesce(r.delay, 0)) ELSE q.ready_at END,
               tries = least(q.tries + (r.verb = 'retry')::integer, 32767),
               yields = least(q.yields + (r.verb = 'yield')::integer, 32767),
               lane = coalesce((SELECT {lane} FROM {table} t {" ".join(joins)}
                                 WHERE t.{key} = r.key::{key_type}), q.lane),
               token = NULL, worker = NULL, claimed_at = NULL, note = r.error
          FROM unnest(v_results) r
         WHERE q.id = ANY (v_mine) AND q.id = r.queue_id
           AND r.verb IN ('retry', 'yield', 'wait', 'release', 'hold');
    END IF;{embed(target, "follow")}

    RETURN QUERY SELECT m, 'settled' FROM unnest(v_mine) m;
    -- The rest: held by someone for a moment, changed by someone, or not ours any more.
    RETURN QUERY
        WITH rest AS (
            SELECT r.queue_id, r.token, r.key,
                   EXISTS (SELECT FROM {table} t WHERE t.{key} = r.key::{key_type}
                              AND {status_of(target, "t")} IN {unfinished(target)}) AS unfinished,
                   EXISTS (SELECT FROM rowmill.queue q WHERE q.id = r.queue_id AND q.token = r.token) AS ours
              FROM unnest(v_all) r
             WHERE NOT EXISTS (SELECT FROM unnest(v_results) m
                                WHERE m.queue_id = r.queue_id AND m.token = r.token)
        ), superseded AS (
            DELETE FROM rowmill.queue q USING rest r
             WHERE q.id = r.queue_id AND q.token = r.token AND NOT r.unfinished)
        SELECT r.queue_id, CASE WHEN NOT r.ours THEN 'lost' WHEN r.unfinished THEN 'busy'
                                ELSE 'superseded' END FROM rest r;
END $rowmill$"""


def _failed_for_good(target: Target) -> str:
    rule = embed(target, "fail", where="r.verb IN ('fail', 'cancel')")
    if not rule:
        return ""
    return f"""
    IF v_verbs && ARRAY['fail', 'cancel'] THEN{rule}
    END IF;"""


def _update(
    target: Target,
    verb: str | tuple[str, ...],
    word: str,
    group: str | None,
    *,
    tries: bool = False,
    attempts_back: bool = False,
) -> str:
    source = target.source
    key, key_type = ident(source.key), target.key_type
    sets = [f"{ident(source.status.column)} = {status_value(target, word)}"]
    if source.tries is not None:
        column, most = f"t.{ident(source.tries.column)}", f"t.{ident(source.tries.max)}"
        if tries and source.tries.counts == "retries":
            sets.append(
                f"{ident(source.tries.column)} = least(coalesce({column}, 0) + 1, "
                f"coalesce({most}, {source.tries.default_max}))"
            )
        if attempts_back and source.tries.counts == "attempts":
            sets.append(f"{ident(source.tries.column)} = greatest(coalesce({column}, 0) - 1, 0)")
    if group is not None:
        sets += assignments(target, group)
    verbs = (verb,) if isinstance(verb, str) else verb
    listed = ", ".join(literal(v) for v in verbs)
    return f"""UPDATE {target.table} t SET {", ".join(sets)}
          FROM unnest(v_results) r
         WHERE t.{key} = ANY (rowmill_keys) AND t.{key} = r.key::{key_type} AND r.verb IN ({listed});"""
