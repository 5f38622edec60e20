"""The triggers that turn a platform's own INSERT, UPDATE, DELETE and TRUNCATE into queue rows.

They copy typed columns, clamp, and follow foreign keys; they never parse, so a row that can't be
understood can't fail its producer. They run as their owner: producers need no right on rowmill.
Inserts and deletes are seen a statement at a time; on a partitioned table a row at a time, because
an INSERT into a leaf skips the parent's statement triggers, while row triggers are cloned to every
partition, also to those made later.
"""

from __future__ import annotations

from worker.generate.allowances import rename_allowances
from worker.generate.rules import query
from worker.generate.words import (
    LOCK_TIMEOUT,
    QUEUE_COLUMNS,
    Target,
    ident,
    lane_of,
    literal,
    queue_row,
    rank_of,
    ready_at,
    run_of,
    status_of,
    unfinished,
    value_of,
    words,
)
from worker.maps import parse_path

# Plans that a producer's session made while the queue was empty must hold for a full one.
_DEFINER = (
    "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n"
    "    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off"
)
_TELL = """
        IF v_claim.worker IS NOT NULL THEN
            PERFORM pg_notify('rowmill_' || v_claim.worker, 'lost ' || v_claim.id);
        END IF;"""
_NOT_OURS = "current_setting('rowmill.own', true) IS DISTINCT FROM 'on'"
EVENTS = ("enqueue", "change", "remove", "empty")


def trigger_functions(target: Target) -> list[str]:
    return [
        *_bonus(target),
        _enqueue(target),
        _change(target),
        _remove(target),
        _empty(target),
    ]


def _bonus(target: Target) -> list[str]:
    """What the platform's rank rule adds, by key; what goes wrong in it costs nothing but that.

    Also where it would wait for a table that someone alters, or says a number that is no integer:
    outside this function that would be the producer's error. One object, since a join here would compare every new row with every bonus.
    """
    rule = query(target, "rank")
    if rule is None:
        return []
    return [
        f"""CREATE OR REPLACE FUNCTION rowmill.bonus_{target.source.name}(rowmill_keys {target.key_type}[])
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off SET enable_mergejoin = off SET enable_hashjoin = on SET jit = off
    {LOCK_TIMEOUT} AS $rowmill$
BEGIN
    IF cardinality(rowmill_keys) = 0 THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT jsonb_object_agg(a.key::text, least(20, greatest(-20, a.bonus))::integer)
              FROM (
{rule}
            ) a WHERE a.key IS NOT NULL AND a.bonus <> 0);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $rowmill$"""
    ]


def _bonus_variable(target: Target) -> str:
    return "\n    v_bonus  jsonb;" if target.rule("rank") else ""


def _bonus_of(target: Target, keys: str) -> str:
    if target.rule("rank") is None:
        return ""
    return f"    v_bonus := rowmill.bonus_{target.source.name}({keys});\n"


def _function(target: Target, event: str, declare: str, body: str) -> str:
    return (
        f"CREATE OR REPLACE FUNCTION rowmill.{event}_{target.source.name}() RETURNS trigger\n"
        f"{_DEFINER} AS $rowmill$\nDECLARE\n{declare}\nBEGIN\n{body}\n    RETURN NULL;\nEND $rowmill$"
    )


def _enqueue(target: Target) -> str:
    rows = "(SELECT NEW.*)" if target.partitioned else "new_rows"
    values, joins = queue_row(target, "n", run_of(target, "n"))
    ready = f"{status_of(target, 'n')} IN {words(target.source.status.ready)}"
    new = f"ARRAY(SELECT n.{ident(target.source.key)} FROM {rows} n WHERE {ready})"
    return _function(
        target,
        "enqueue",
        "    v_now    timestamptz := clock_timestamp();\n    v_lane   text;"
        + _bonus_variable(target),
        f"""{_bonus_of(target, new)}    FOR v_lane IN
        WITH queued AS (
            INSERT INTO rowmill.queue ({QUEUE_COLUMNS})
            SELECT {values}
              FROM {rows} n {" ".join(joins)}
             WHERE {ready}
            ON CONFLICT (source, row_key) DO NOTHING
            RETURNING lane, state)
        SELECT DISTINCT q.lane FROM queued q WHERE q.state = 'ready' LIMIT 8
    LOOP
        PERFORM rowmill.ring(v_lane);
    END LOOP;""",
    )


def _change(target: Target) -> str:
    source, status = target.source, target.source.status
    key, name = ident(source.key), literal(source.name)
    lane, lane_joins = lane_of(target, "n")
    rank, rank_joins = rank_of(target, "n")
    tenant, tenant_joins = value_of(source.tenant, "n", "tenant") if source.tenant else ("NULL", [])
    joins = " ".join([*lane_joins, *rank_joins, *tenant_joins])
    # Where a rule looks it up, its start did, and the next one does again.
    kept = "q.tenant" if target.rule("tenant") else "v_tenant"
    moved = _moved(target)
    finished = words([w for w in (status.succeeded, status.failed, status.cancelled) if w])
    # An UPDATE of a finished row asks for new work; `rowmill retry` asks for the rest of the old.
    again = f"v_before IN {finished} AND current_setting('rowmill.retrying', true) IS DISTINCT FROM 'on'"
    return _function(
        target,
        "change",
        """    v_now    timestamptz := clock_timestamp();
    v_status text;
    v_before text;
    v_lane   text;
    v_rank   smallint;
    v_tenant text;
    v_ready  timestamptz;
    v_state  rowmill.queue_state;
    v_claim  record;"""
        + _bonus_variable(target),
        f"""    v_status := {status_of(target, "NEW")};
    v_before := {status_of(target, "OLD")};
    IF NEW.{key} IS DISTINCT FROM OLD.{key} THEN
        -- What runs was started under the old key: it starts over, and finds its calls again.
        UPDATE rowmill.submissions SET row_key = NEW.{key}::text
         WHERE source = {name} AND row_key = OLD.{key}::text
           AND NOT EXISTS (SELECT FROM rowmill.submissions s
                            WHERE s.source = {name} AND s.row_key = NEW.{key}::text);
        UPDATE rowmill.queue q
           SET row_key = NEW.{key}::text, token = NULL, worker = NULL, claimed_at = NULL,
               state = CASE WHEN q.state = 'claimed' THEN 'ready' ELSE q.state END
          FROM (SELECT o.id, o.worker FROM rowmill.queue o
                 WHERE o.source = {target.id} AND o.row_key = OLD.{key}::text FOR UPDATE) o
         WHERE q.id = o.id
        RETURNING q.id, o.worker INTO v_claim;{_TELL}{rename_allowances(target)}
    END IF;
    IF v_status NOT IN {unfinished(target)}
       OR (v_status = {literal(status.running)} AND v_status <> v_before) THEN
        -- Finished, cancelled, or taken by someone else: the row is no longer ours to run.
        DELETE FROM rowmill.queue q WHERE q.source = {target.id} AND q.row_key = NEW.{key}::text
        RETURNING q.id, q.worker INTO v_claim;{_TELL}
        RETURN NULL;
    END IF;
{_bonus_of(target, f"ARRAY[NEW.{key}]")}    SELECT {lane}, ({rank})::smallint, {tenant}, {ready_at(target, "n")}
      INTO v_lane, v_rank, v_tenant, v_ready
      FROM (SELECT NEW.*) n {joins};
    v_state := CASE WHEN v_ready > v_now THEN 'scheduled' ELSE 'ready' END;
    IF v_status = v_before THEN
        -- Moved: another priority, lane or time. A back-off stays as it is, and a claim counts in the
        -- lane that admitted it until it comes back.
        UPDATE rowmill.queue q SET rank = v_rank, tenant = {kept},
               lane = CASE WHEN q.state = 'claimed' THEN q.lane ELSE v_lane END,
               ready_at = CASE WHEN q.state IN ('ready', 'scheduled') AND {moved}
                               THEN v_ready ELSE q.ready_at END,
               state = CASE WHEN q.state IN ('ready', 'scheduled') AND {moved}
                            THEN v_state ELSE q.state END,
               note = CASE WHEN q.state IN ('ready', 'scheduled') AND {moved} THEN NULL ELSE q.note END
         WHERE q.source = {target.id} AND q.row_key = NEW.{key}::text;
    ELSE
        -- Made ready by someone: a finished row starts a new run; a running one is taken from its
        -- worker and starts over in the same run.
        INSERT INTO rowmill.queue ({QUEUE_COLUMNS})
        VALUES ({target.id}, NEW.{key}::text, v_lane, v_rank, v_ready, v_state,
                {run_of(target, "NEW", again=again)}, v_tenant)
        ON CONFLICT (source, row_key) DO UPDATE
           SET lane = v_lane, rank = v_rank, ready_at = v_ready, state = v_state, tenant = v_tenant,
               token = NULL, worker = NULL, claimed_at = NULL, note = NULL;
    END IF;
    IF v_state = 'ready' THEN
        PERFORM rowmill.ring(v_lane);
    END IF;""",
    )


def _moved(target: Target) -> str:
    column = target.source.schedule
    if column is None:
        return "false"
    return f"NEW.{ident(column)} IS DISTINCT FROM OLD.{ident(column)}"


def _remove(target: Target) -> str:
    rows = "(SELECT OLD.*)" if target.partitioned else "old_rows"
    return _function(
        target,
        "remove",
        "    v_claim record;",
        f"""    FOR v_claim IN
        DELETE FROM rowmill.queue q WHERE q.id = ANY (ARRAY(
            SELECT f.id FROM {rows} o CROSS JOIN LATERAL (
                   SELECT q.id FROM rowmill.queue q
                    WHERE q.source = {target.id}
                      AND q.row_key = o.{ident(target.source.key)}::text OFFSET 0) f))
        RETURNING q.id, q.worker
    LOOP{_TELL}
    END LOOP;""",
    )


def _empty(target: Target) -> str:
    return _function(
        target, "empty", "", f"    DELETE FROM rowmill.queue WHERE source = {target.id};"
    ).replace("DECLARE\n\n", "")


def drop_triggers(target: Target) -> list[str]:
    return [f"DROP TRIGGER IF EXISTS rowmill_{event} ON {target.table}" for event in EVENTS]


def create_triggers(target: Target) -> list[str]:
    name, table = target.source.name, target.table
    per_row = target.partitioned
    inserted = "FOR EACH ROW" if per_row else "REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"
    deleted = "FOR EACH ROW" if per_row else "REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT"
    # An UPDATE that changes a row's partition is a DELETE here and an INSERT there; ours are no end
    # of a job, and its INSERT finds the queue row that is still there.
    moved = f"    WHEN ({_NOT_OURS})\n" if per_row else ""
    watched = _watched(target)
    old = ", ".join(f"OLD.{ident(c)}" for c in watched)
    new = ", ".join(f"NEW.{ident(c)}" for c in watched)
    return [
        f"CREATE TRIGGER rowmill_enqueue AFTER INSERT ON {table} {inserted}\n"
        f"    EXECUTE FUNCTION rowmill.enqueue_{name}()",
        f"CREATE TRIGGER rowmill_change AFTER UPDATE ON {table} FOR EACH ROW\n"
        f"    WHEN ({_NOT_OURS}\n"
        f"          AND ROW({old}) IS DISTINCT FROM ROW({new}))\n"
        f"    EXECUTE FUNCTION rowmill.change_{name}()",
        f"CREATE TRIGGER rowmill_remove AFTER DELETE ON {table} {deleted}\n{moved}"
        f"    EXECUTE FUNCTION rowmill.remove_{name}()",
        f"CREATE TRIGGER rowmill_empty AFTER TRUNCATE ON {table} FOR EACH STATEMENT\n"
        f"    EXECUTE FUNCTION rowmill.empty_{name}()",
    ]


def _watched(target: Target) -> list[str]:
    """The columns whose change matters to the queue."""
    source = target.source
    columns = [source.key, source.status.column, source.schedule]
    columns.append(source.priority.column if source.priority else None)
    columns += [value.column if value else None for value in (source.lane, source.tenant)]
    paths = [source.lane.path, source.priority.path if source.priority else None]
    columns += [parse_path(path)[0] for path in paths if path]
    return list(dict.fromkeys(c for c in columns if c))
