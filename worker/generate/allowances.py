"""rowmill.reserve_, release_ and reclaim_<source>(): what a job's customer may use, and gives back.

Only for a source with a `reserve` rule. What a job holds is one row of rowmill.allowances, from the
first paid call of its run until it is over:

    reserve_   before the payment, called by rowmill.intend(): the rule says who may, who mayn't
    settle_    succeeded: spent. Failed or cancelled: release_, in the same transaction
    reclaim_   what jobs still hold that left the queue in another way: cancelled by an UPDATE,
               deleted, finished by someone. Called by reserve_ for each of its customers, so that
               what was given up counts at once, and by maintenance for all

The row is deleted by whoever releases it, so nothing is given back twice.

Rows are looked up one by one (LATERAL): before PostgreSQL 17 a plan made for an empty table takes
`row_key = ANY (…)`, which isn't the index's first column, for a filter of all that the source holds.
"""

from __future__ import annotations

from worker.generate.rules import query, statements, with_relation
from worker.generate.words import (
    HEADER,
    LOCK_TIMEOUT,
    Target,
    ident,
    literal,
    status_of,
)

RECLAIMED = 200
"""By one call for all customers; each of them is a lock."""
PATIENCE = "SET LOCAL lock_timeout = '10ms'"
"""Of a payment, for a row that the platform holds: budgets are locked meanwhile."""


def allowance_functions(target: Target) -> list[str]:
    if target.rule("reserve") is None:
        return []
    return [_release(target), _reclaim(target), _reserve(target)]


def give_back_sql(source_id: int, source: str) -> str:
    """All that this source's jobs hold of their customers' allowances; it must have the rule."""
    return (
        "WITH gone AS (DELETE FROM rowmill.allowances a"
        f" WHERE a.source = {source_id} RETURNING a)"
        f" SELECT rowmill.release_{source}(array_agg(g.a)) FROM gone g"
    )


def _release(target: Target) -> str:
    key_type = target.key_type
    relation = (
        f"released AS (SELECT h.*, h.row_key::{key_type} AS row_id\n"
        "                        FROM unnest(p_held) h)"
    )
    rule = target.rule("release") or ""
    body = "".join(f"\n    {with_relation(s, relation)};" for s in statements(rule))
    return f"""CREATE OR REPLACE FUNCTION rowmill.release_{target.source.name}(p_held rowmill.allowances[])
RETURNS void LANGUAGE plpgsql {HEADER} AS $rowmill$
#variable_conflict use_column
DECLARE
    rowmill_keys {key_type}[] := ARRAY(SELECT h.row_key::{key_type} FROM unnest(p_held) h);
BEGIN{body or chr(10) + "    NULL;"}
END $rowmill$"""


def _reclaim(target: Target) -> str:
    source = target.source
    key, key_type = ident(source.key), target.key_type
    unqueued = _unqueued(target)
    succeeded = (
        f"(SELECT true FROM {target.table} t WHERE t.{key} = h.row_key::{key_type}\n"
        f"             AND ({status_of(target, 't')} = {literal(source.status.succeeded)}) IS TRUE LIMIT 1)"
    )
    return f"""CREATE OR REPLACE FUNCTION rowmill.reclaim_{source.name}(p_tenants text[] DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql {HEADER} {LOCK_TIMEOUT} AS $rowmill$
DECLARE
    v_keys      text[];
    v_customers bigint[];
    v_held      rowmill.allowances[];
BEGIN
    IF p_tenants IS NULL THEN
        SELECT array_agg(o.row_key), array_agg(o.customer) INTO v_keys, v_customers FROM (
            SELECT h.row_key, rowmill.customer({literal(target.platform.map.platform)}, h.tenant, h.row_key) AS customer
              FROM rowmill.allowances h
             WHERE h.source = {target.id} AND {unqueued} LIMIT {RECLAIMED}) o;
        -- Whoever asks for one of these customers sees all of it given back, or nothing yet.
        PERFORM rowmill.lock_customers(v_customers);
        v_held := ARRAY(
            SELECT f.h FROM (SELECT DISTINCT k FROM unnest(v_keys) k) o CROSS JOIN LATERAL (
                   SELECT h FROM rowmill.allowances h
                    WHERE h.source = {target.id} AND h.row_key = o.k
                      AND {unqueued} FOR UPDATE SKIP LOCKED) f);
    ELSE
        {PATIENCE};
        v_held := ARRAY(
            SELECT f.h FROM (SELECT DISTINCT t FROM unnest(p_tenants) t) o CROSS JOIN LATERAL (
                   SELECT h FROM rowmill.allowances h
                    WHERE h.source = {target.id} AND h.tenant = o.t AND h.amount > 0
                      AND {unqueued} FOR UPDATE SKIP LOCKED) f);
    END IF;
    -- Its job may have come back to the queue before we had the lock. From here on it asks anew.
    v_held := ARRAY(SELECT h FROM unnest(v_held) h WHERE {unqueued});
    IF cardinality(v_held) = 0 THEN
        RETURN 0;
    END IF;
    DELETE FROM rowmill.allowances a
     WHERE {_these(target, "unnest(v_held) o", key="o.row_key")};
    PERFORM rowmill.release_{source.name}(ARRAY(
        SELECT h FROM unnest(v_held) h WHERE {succeeded} IS NOT TRUE));
    RETURN cardinality(v_held);
END $rowmill$"""


def _unqueued(target: Target) -> str:
    return (
        f"(SELECT q.id FROM rowmill.queue q WHERE q.source = {target.id}\n"
        "             AND q.row_key = h.row_key AND q.run = h.run LIMIT 1) IS NULL"
    )


def _these(target: Target, those: str, *, key: str) -> str:
    """What the runs `o` of `those` hold.

    A row that is changed in this very moment may be missed: its job is over then, so that reclaim_
    finds it.
    """
    return f"""a.ctid = ANY (ARRAY(
           SELECT f.ctid FROM {those} CROSS JOIN LATERAL (
                  SELECT h.ctid FROM rowmill.allowances h
                   WHERE h.source = {target.id} AND h.row_key = {key} AND h.run = o.run OFFSET 0) f))"""


def _reserve(target: Target) -> str:
    source, key_type = target.source, target.key_type
    relation = (
        "intent AS MATERIALIZED (\n"
        "        SELECT i.row_id, i.position, i.run, i.tenant, coalesce(h.amount, 0) AS reserved\n"
        "          FROM unnest(rowmill_keys, v_runs, v_tenants)\n"
        "               WITH ORDINALITY i (row_id, run, tenant, position)\n"
        "          LEFT JOIN unnest(v_holders, v_amounts) h (tenant, amount) ON h.tenant = i.tenant)"
    )
    answer = with_relation(query(target, "reserve") or "", relation)
    return f"""CREATE OR REPLACE FUNCTION rowmill.reserve_{source.name}(p_ids bigint[])
RETURNS TABLE (queue_id bigint, verdict text, message text)
LANGUAGE plpgsql {HEADER} {LOCK_TIMEOUT} SET enable_hashjoin = on AS $rowmill$
#variable_conflict use_column
DECLARE
    v_ids        bigint[];
    v_runs       integer[];
    v_tenants    text[];
    v_holders    text[];       -- customers whose other jobs hold something, and how much
    v_amounts    numeric[];
    v_owing      text;
    v_blocked    text[] := '{{}}';
    v_answer     record;
    v_at         integer;
    v_held       rowmill.allowances[] := '{{}}';
    rowmill_keys {key_type}[];
BEGIN
    -- Again, now that the customers are locked: a repeat of a call whose answer was lost finds that
    -- the first one holds it already.
    SELECT array_agg(q.id ORDER BY q.rank DESC, q.ready_at, q.id),
           array_agg(q.row_key::{key_type} ORDER BY q.rank DESC, q.ready_at, q.id),
           array_agg(q.run ORDER BY q.rank DESC, q.ready_at, q.id),
           array_agg(q.tenant ORDER BY q.rank DESC, q.ready_at, q.id)
      INTO v_ids, rowmill_keys, v_runs, v_tenants
      FROM rowmill.queue q
     WHERE q.id = ANY (p_ids) AND (q.source = {target.id}) IS TRUE
       AND (SELECT h.run FROM rowmill.allowances h
             WHERE h.source = {target.id} AND h.row_key = q.row_key AND h.run = q.run LIMIT 1) IS NULL;
    IF v_ids IS NULL THEN
        RETURN;
    END IF;
    -- Where the platform holds what a customer is to get back, this customer alone waits for it.
    FOR v_owing IN
        SELECT t.tenant FROM (SELECT DISTINCT tenant FROM unnest(v_tenants) AS t (tenant)) t
         WHERE (SELECT true FROM rowmill.allowances h
                 WHERE h.source = {target.id} AND h.tenant = t.tenant AND h.amount > 0
                   AND {_unqueued(target)} LIMIT 1)
    LOOP
        BEGIN
            PERFORM rowmill.reclaim_{source.name}(ARRAY[v_owing]);
        EXCEPTION WHEN lock_not_available THEN
            v_blocked := v_blocked || v_owing;
        END;
    END LOOP;
    IF v_blocked <> '{{}}' THEN
        RETURN QUERY SELECT i.id, 'busy', NULL::text FROM unnest(v_ids, v_tenants) AS i (id, tenant)
                      WHERE i.tenant = ANY (v_blocked);
        SELECT array_agg(i.id ORDER BY i.n), array_agg(i.key ORDER BY i.n),
               array_agg(i.run ORDER BY i.n), array_agg(i.tenant ORDER BY i.n)
          INTO v_ids, rowmill_keys, v_runs, v_tenants
          FROM unnest(v_ids, rowmill_keys, v_runs, v_tenants) WITH ORDINALITY AS i (id, key, run, tenant, n)
         WHERE (i.tenant = ANY (v_blocked)) IS NOT TRUE;
        IF v_ids IS NULL THEN
            RETURN;
        END IF;
    END IF;
    SELECT array_agg(h.tenant), array_agg(h.amount) INTO v_holders, v_amounts FROM (
        SELECT t.tenant, (SELECT sum(a.amount) FROM rowmill.allowances a
                           WHERE a.source = {target.id} AND a.tenant = t.tenant AND a.amount > 0) AS amount
          FROM (SELECT DISTINCT tenant FROM unnest(v_tenants) AS t (tenant)) t) h;
    FOR v_answer IN
    {answer}
    LOOP
        v_at := array_position(rowmill_keys, v_answer.key);
        IF v_at IS NULL OR v_ids[v_at] IS NULL THEN
            RAISE EXCEPTION '{source.name}.reserve.sql answered for %, which it was not asked for, or twice',
                v_answer.key;
        END IF;
        queue_id := v_ids[v_at];
        verdict := v_answer.verdict;
        message := v_answer.message;
        v_ids[v_at] := NULL;
        IF verdict = 'ok' THEN
            v_held := v_held || ROW({target.id}, rowmill_keys[v_at]::text, v_runs[v_at], v_tenants[v_at],
                                    coalesce(v_answer.amount, 0), v_answer.taken)::rowmill.allowances;
        ELSIF verdict IN ('refused', 'busy') THEN
            RETURN NEXT;
        ELSE
            RAISE EXCEPTION '{source.name}.reserve.sql answered % for %: wanted are ok, refused and busy',
                coalesce(verdict, 'NULL'), v_answer.key;
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM unnest(v_ids) i WHERE i IS NOT NULL) THEN
        RAISE EXCEPTION '{source.name}.reserve.sql has no answer for %',
            (SELECT k FROM unnest(v_ids, rowmill_keys) AS u (i, k) WHERE u.i IS NOT NULL LIMIT 1);
    END IF;
    INSERT INTO rowmill.allowances SELECT (h).* FROM unnest(v_held) h;
END $rowmill$"""


def settle_allowances(target: Target) -> str:
    """For settle_<source>(): what the jobs that are over held."""
    if target.rule("reserve") is None:
        return ""
    over = "(SELECT * FROM unnest(v_results) r WHERE r.verb IN ('succeed', 'fail', 'cancel')) o"
    return f"""
    IF v_verbs && ARRAY['succeed', 'fail', 'cancel'] THEN
        -- Spent by those that succeeded, given back by the others.
        WITH gone AS (
            DELETE FROM rowmill.allowances a
             WHERE {_these(target, over, key="o.key")}
            RETURNING a)
        SELECT array_agg(g.a) INTO v_back FROM gone g
         WHERE ((g.a).row_key IN (SELECT r.key FROM unnest(v_results) r WHERE r.verb <> 'succeed')) IS TRUE;
        IF v_back IS NOT NULL THEN
            PERFORM rowmill.release_{target.source.name}(v_back);
        END IF;
    END IF;"""


def settle_variables(target: Target) -> str:
    if target.rule("reserve") is None:
        return ""
    return "\n    v_back       rowmill.allowances[];"


def rename_allowances(target: Target) -> str:
    """For change_<source>(): the row's key was changed."""
    if target.rule("reserve") is None:
        return ""
    key = ident(target.source.key)
    return f"""
        UPDATE rowmill.allowances a SET row_key = NEW.{key}::text
         WHERE a.source = {target.id} AND a.row_key = OLD.{key}::text
           AND NOT EXISTS (SELECT FROM rowmill.allowances h
                            WHERE h.source = {target.id} AND h.row_key = NEW.{key}::text);"""
