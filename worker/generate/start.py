"""rowmill.start_<source>(): claimed rows are marked running and their input is read.

Runs outside the claim's lock. Source rows come first, with SKIP LOCKED: a row some producer holds
goes back for half a second, a row that is no longer ready leaves the queue, what the stop rule names
is told to the worker, which settles it, and the rest start.
"""

from __future__ import annotations

from worker.generate.rules import embed, query
from worker.generate.words import (
    HEADER,
    LOCK_TIMEOUT,
    Target,
    assignments,
    ident,
    literal,
    lock_parents,
    parent_variables,
    status_of,
    status_value,
    tries_of,
    unfinished,
    value_of,
)


def start_function(target: Target) -> str:
    source = target.source
    table, key, key_type = target.table, ident(source.key), target.key_type
    kind, kind_joins = value_of(source.kind, "t", "kind")
    tries, most = tries_of(target)
    input_rule = query(target, "input")
    has_input = f"LEFT JOIN (\n{input_rule}\n        ) i ON i.key = t.{key}" if input_rule else ""
    given = "i.input" if input_rule else "to_jsonb(t)"
    taken = "(v_mine || v_stopped)" if target.rule("stop") else "v_mine"
    return f"""CREATE OR REPLACE FUNCTION rowmill.start_{source.name}(
    p_token bigint, p_ids bigint[], p_wait boolean DEFAULT true)
RETURNS TABLE (queue_id bigint, verdict text, kind text, tries integer, max_retries integer, input jsonb)
LANGUAGE plpgsql {HEADER} {LOCK_TIMEOUT} AS $rowmill$
#variable_conflict use_column
DECLARE
    v_now        timestamptz := clock_timestamp();
    v_ids        bigint[];
    v_keys       {key_type}[];
    v_mine       bigint[];
    v_rest       bigint[];
    rowmill_keys {key_type}[];{parent_variables(target)}{_stop_variables(target)}
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT array_agg(q.id), array_agg(q.row_key::{key_type}) INTO v_ids, v_keys
      FROM rowmill.queue q WHERE q.id = ANY (p_ids) AND q.token = p_token;
    rowmill_keys := ARRAY(SELECT t.{key} FROM {table} t
                           WHERE t.{key} = ANY (v_keys) AND {status_of(target, "t")} IN {unfinished(target)}
                             FOR NO KEY UPDATE SKIP LOCKED);{lock_parents(target, "rowmill_keys")}
    -- A reset or cancel needs the source row, which we hold; a rescue doesn't, so look again. Arrays
    -- are compared by hashing (IS TRUE keeps it from becoming a join, which has slower plans).
    v_ids := ARRAY(SELECT c.id FROM unnest(v_ids, v_keys) AS c (id, key)
                    WHERE (c.key IN (SELECT k FROM unnest(rowmill_keys) k)) IS TRUE);
    SELECT coalesce(array_agg(m.id), '{{}}'), coalesce(array_agg(m.row_key::{key_type}), '{{}}')
      INTO v_mine, rowmill_keys FROM (
        SELECT q.id, q.row_key FROM rowmill.queue q
         WHERE q.id = ANY (v_ids) AND q.token = p_token FOR NO KEY UPDATE SKIP LOCKED) m;{_stop(target)}

    UPDATE {table} t SET {", ".join(_started(target))}
     WHERE t.{key} = ANY (rowmill_keys);{_whose(target)}{embed(target, "start")}{embed(target, "follow")}

    IF cardinality({taken}) < cardinality(p_ids) THEN
        -- Whoever changed a row without committing may hold its queue row too. Such a claim is left as
        -- it is, for the worker's pulse to hand back: waiting here would hold up the whole batch.
        v_ids := ARRAY(SELECT q.id FROM rowmill.queue q
                        WHERE q.id = ANY (p_ids) AND q.token = p_token AND q.id <> ALL ({taken}));
        v_rest := ARRAY(SELECT q.id FROM rowmill.queue q
                         WHERE q.id = ANY (v_ids) AND q.token = p_token FOR UPDATE SKIP LOCKED);
        RETURN QUERY
            WITH gone AS (
                DELETE FROM rowmill.queue q
                 WHERE q.id = ANY (v_rest)
                   AND NOT EXISTS (SELECT FROM {table} t WHERE t.{key} = q.row_key::{key_type}
                                      AND {status_of(target, "t")} IN {unfinished(target)})
                RETURNING q.id
            ), busy AS (
                UPDATE rowmill.queue q SET state = 'scheduled', ready_at = v_now + interval '0.5 s',
                       token = NULL, worker = NULL, claimed_at = NULL, note = 'its row was locked'
                 WHERE q.id = ANY (v_rest)
                   AND EXISTS (SELECT FROM {table} t WHERE t.{key} = q.row_key::{key_type}
                                  AND {status_of(target, "t")} IN {unfinished(target)})
                RETURNING q.id
            )
            SELECT g.id, 'gone', NULL::text, 0, 0, NULL::jsonb FROM gone g
            UNION ALL SELECT b.id, 'busy', NULL, 0, 0, NULL FROM busy b
            UNION ALL SELECT l, 'busy', NULL, 0, 0, NULL FROM unnest(v_ids) l WHERE l <> ALL (v_rest);
    END IF;
    RETURN QUERY
        SELECT m.id, 'run'::text, coalesce({kind}, 'unknown')::text, ({tries})::integer,
               ({most})::integer, {given}
          FROM unnest(v_mine, rowmill_keys) AS m (id, key)
          JOIN {table} t ON t.{key} = m.key AND t.{key} = ANY (rowmill_keys)
          {" ".join(kind_joins)}
          {has_input};
END $rowmill$"""


def _whose(target: Target) -> str:
    """Whose jobs these are, where no column says it: known from here on, so before any payment.

    A trigger couldn't look it up: it copies typed columns, and never parses what a producer wrote.
    """
    rule = query(target, "tenant")
    if rule is None:
        return ""
    return f"""
    UPDATE rowmill.queue q SET tenant = w.tenant::text
      FROM unnest(v_mine, rowmill_keys) AS m (id, key)
      LEFT JOIN (
{rule}
        ) w ON w.key = m.key
     WHERE q.id = ANY (v_mine) AND q.id = m.id AND q.tenant IS DISTINCT FROM w.tenant::text;"""


def stops_function(target: Target) -> list[str]:
    """rowmill.stops_<source>(): which of a worker's running jobs are to end now, and why."""
    rule = query(target, "stop")
    if rule is None:
        return []
    key_type = target.key_type
    return [
        f"""CREATE OR REPLACE FUNCTION rowmill.stops_{target.source.name}(p_entries jsonb)
RETURNS TABLE (queue_id bigint, message text)
LANGUAGE plpgsql {HEADER} {LOCK_TIMEOUT} AS $rowmill$
#variable_conflict use_column
DECLARE
    rowmill_keys {key_type}[] := ARRAY(
        SELECT (e ->> 'key')::{key_type} FROM jsonb_array_elements(p_entries) e);
BEGIN
    RETURN QUERY
        SELECT e.queue_id, coalesce(s.message::text, {_REASON})
          FROM (
{rule}
        ) s
          JOIN jsonb_to_recordset(p_entries) AS e (queue_id bigint, key text) ON e.key::{key_type} = s.key
         WHERE s.verdict = 'cancel';
END $rowmill$"""
    ]


_REASON = "'the platform''s rules stopped it'"


def _stop_variables(target: Target) -> str:
    if target.rule("stop") is None:
        return ""
    return f"""
    v_stopped    bigint[];
    v_stop_keys  {target.key_type}[];
    v_verdicts   text[];
    v_messages   text[];"""


def _stop(target: Target) -> str:
    """Not started at all, so that nothing of it is paid. What is paid for already isn't refused."""
    rule = query(target, "stop")
    if rule is None:
        return ""
    name, key = target.source.name, ident(target.source.key)
    kind, kind_joins = value_of(target.source.kind, "t", "kind")
    tries, most = tries_of(target)
    return f"""
    SELECT coalesce(array_agg(m.id), '{{}}'), array_agg(s.key), array_agg(s.verdict), array_agg(s.message)
      INTO v_stopped, v_stop_keys, v_verdicts, v_messages
      FROM (SELECT DISTINCT ON (a.key) a.key, a.verdict::text AS verdict,
                   coalesce(a.message::text, {_REASON}) AS message
              FROM (
{rule}
            ) a ORDER BY a.key, a.verdict) s
      JOIN unnest(v_mine, rowmill_keys) AS m (id, key) ON m.key = s.key
       -- With a limit it is a probe for each: EXISTS may be planned as a hash of all there is.
     WHERE s.verdict IS DISTINCT FROM 'refuse' OR (
           SELECT u.id FROM rowmill.queue q CROSS JOIN LATERAL (
                  SELECT u.id FROM rowmill.submissions u
                   WHERE u.source = {literal(name)} AND u.row_key = q.row_key AND u.run = q.run
                     AND u.state IN ('intent', 'accepted', 'unknown', 'finished') LIMIT 1) u
            WHERE q.id = m.id LIMIT 1) IS NULL;
    IF cardinality(v_stopped) > 0 THEN
        IF EXISTS (SELECT FROM unnest(v_verdicts) v WHERE (v IN ('refuse', 'cancel')) IS NOT TRUE) THEN
            RAISE EXCEPTION '{name}.stop.sql answered % for %: wanted are refuse and cancel',
                coalesce(v_verdicts[1], 'NULL'), v_stop_keys[1];
        END IF;
        SELECT coalesce(array_agg(m.id), '{{}}'), coalesce(array_agg(m.key), '{{}}') INTO v_mine, rowmill_keys
          FROM unnest(v_mine, rowmill_keys) AS m (id, key) WHERE m.id <> ALL (v_stopped);
        RETURN QUERY
            SELECT m.id, m.verdict, coalesce({kind}, 'unknown')::text, ({tries})::integer, ({most})::integer,
                   jsonb_build_object('message', m.message)
              FROM unnest(v_stopped, v_stop_keys, v_verdicts, v_messages) AS m (id, key, verdict, message)
              JOIN {target.table} t ON t.{key} = m.key AND t.{key} = ANY (v_stop_keys)
              {" ".join(kind_joins)};
    END IF;"""


def _started(target: Target) -> list[str]:
    source = target.source
    running = f"{ident(source.status.column)} = {status_value(target, source.status.running)}"
    return [running, *_attempt(target), *assignments(target, "start")]


def _attempt(target: Target) -> list[str]:
    """Tables that count attempts count one at each start; those that count retries, at a failure."""
    tries = target.source.tries
    if tries is None or tries.counts == "retries":
        return []
    column, most = f"t.{ident(tries.column)}", f"t.{ident(tries.max)}"
    return [
        f"{ident(tries.column)} = least(coalesce({column}, 0) + 1, "
        f"greatest(coalesce({most}, {tries.default_max + 1}), coalesce({column}, 0)))"
    ]
