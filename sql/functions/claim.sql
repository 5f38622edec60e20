-- Everywhere in here enable_seqscan is off: a worker that rests plans its statements for an empty
-- queue, and would keep reading the whole of a full one until its statistics are renewed.

-- Scheduled rows whose time has come become ready. Called with every full scan, by every worker,
-- so a schedule is met within one poll interval.
CREATE OR REPLACE FUNCTION rowmill.promote(p_limit integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_count integer;
BEGIN
    UPDATE rowmill.queue SET state = 'ready'
     WHERE id = ANY (ARRAY(
           SELECT id FROM rowmill.queue
            WHERE state = 'scheduled' AND ready_at <= clock_timestamp()
            ORDER BY ready_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- The heads of the queue: every (lane, source, rank) that has ready rows, with its oldest ready
-- time; of all lanes where none is named. One index probe per head (a loose scan), however many rows
-- wait behind it. Arrays, because a set-returning function costs a claim more than the scan itself.
CREATE OR REPLACE FUNCTION rowmill.scan(
    p_lanes text[], OUT lanes text[], OUT sources smallint[], OUT ranks smallint[],
    OUT ready_from timestamptz[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    WITH RECURSIVE head AS (
        (SELECT q.lane, q.source, q.rank, q.ready_at
           FROM rowmill.queue q WHERE q.state = 'ready'
          ORDER BY q.lane, q.source, q.rank, q.ready_at LIMIT 1)
        UNION ALL
        SELECT n.lane, n.source, n.rank, n.ready_at
          FROM head h CROSS JOIN LATERAL (
               SELECT q.lane, q.source, q.rank, q.ready_at
                 FROM rowmill.queue q
                WHERE q.state = 'ready' AND (q.lane, q.source, q.rank) > (h.lane, h.source, h.rank)
                ORDER BY q.lane, q.source, q.rank, q.ready_at LIMIT 1) n
    )
    SELECT array_agg(h.lane), array_agg(h.source), array_agg(h.rank), array_agg(h.ready_at)
      INTO lanes, sources, ranks, ready_from
      FROM head h WHERE p_lanes IS NULL OR h.lane = ANY (p_lanes);
END $$;

-- How many more jobs each closed or limited gate ('lane/source') admits; null is no limit. Counts
-- claims only where a limit needs it.
CREATE OR REPLACE FUNCTION rowmill.gates(OUT names text[], OUT free integer[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    WITH gate AS MATERIALIZED (
        SELECT l.lane, l.source,
               l.paused_at IS NOT NULL OR l.platform_paused_why IS NOT NULL
                   OR coalesce(greatest(l.broken_until, l.slow_until) > clock_timestamp(), false) AS paused,
               least(l.max_running, l.platform_max_running, CASE WHEN l.broken_until IS NOT NULL THEN 1 END) AS most,
               CASE WHEN l.slow_until > clock_timestamp() - interval '1 minute' THEN l.slow_admits END AS at_once
          FROM rowmill.lanes l
         WHERE l.paused_at IS NOT NULL OR l.platform_paused_why IS NOT NULL
            OR l.broken_until IS NOT NULL OR l.slow_until > clock_timestamp() - interval '1 minute'
            OR l.max_running IS NOT NULL OR l.platform_max_running IS NOT NULL
    ), running AS MATERIALIZED (
        SELECT q.lane, s.name AS source, q.jobs
          FROM (SELECT c.lane, c.source, count(*) AS jobs FROM rowmill.queue c
                 WHERE c.state = 'claimed' AND c.worker IS NOT NULL   -- so that its index is used
                   AND EXISTS (SELECT FROM gate g WHERE NOT g.paused AND g.most IS NOT NULL)
                 GROUP BY 1, 2) q
          JOIN rowmill.sources s ON s.id = q.source
    )
    SELECT array_agg(g.lane || '/' || g.source),
           array_agg(CASE WHEN g.paused THEN 0
                          ELSE least(g.at_once, CASE WHEN g.most IS NOT NULL THEN
                               greatest(0, g.most - coalesce((
                               SELECT sum(r.jobs) FROM running r
                                WHERE g.lane IN ('*', r.lane) AND g.source IN ('*', r.source)), 0)) END)
                     END::integer)
      INTO names, free FROM gate g;
END $$;

-- A lane's provider fails: leave it alone, twice as long as the last time if nothing succeeded since.
-- Nothing changes while it is left alone already. Returns until when it is.
CREATE OR REPLACE FUNCTION rowmill.trip(p_lane text, p_why text, p_seconds double precision)
RETURNS timestamptz LANGUAGE sql AS $$
    WITH tripped AS (
        INSERT INTO rowmill.lanes AS l (lane, broken_until, broken_for, broken_why)
        VALUES (p_lane, clock_timestamp() + make_interval(secs => p_seconds),
                make_interval(secs => p_seconds), p_why)
        ON CONFLICT (lane, source) DO UPDATE
           SET (broken_for, broken_until, broken_why) = (
               SELECT f.longer, clock_timestamp() + f.longer, excluded.broken_why
                 FROM (SELECT greatest(excluded.broken_for, CASE WHEN l.broken_for IS NOT NULL
                              THEN least(l.broken_for * 2, interval '10 minutes') END) AS longer) f)
         WHERE coalesce(l.broken_until <= clock_timestamp(), true)
        RETURNING l.broken_until, l.broken_for
    ), told AS (
        INSERT INTO rowmill.actions (who, action, subject, detail)
        SELECT 'rowmill', 'breaker', 'lane ' || p_lane, jsonb_build_object('why', p_why, 'for', t.broken_for)
          FROM tripped t
    )
    SELECT t.broken_until FROM tripped t
$$;

-- It works again.
CREATE OR REPLACE FUNCTION rowmill.heal(p_lane text) RETURNS void
LANGUAGE sql AS $$
    UPDATE rowmill.lanes SET broken_until = NULL, broken_for = NULL, broken_why = NULL
     WHERE lane = p_lane AND source = '*' AND broken_until IS NOT NULL
$$;

-- A gate's rate is used up: nothing is claimed through it for so long, and then p_admits rows at a
-- time. Only ever extends it, by no more than ten minutes from now.
CREATE OR REPLACE FUNCTION rowmill.slow(
    p_lane text, p_source text, p_seconds double precision, p_admits integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO rowmill.lanes AS l (lane, source, slow_until, slow_admits)
    VALUES (p_lane, p_source, clock_timestamp() + make_interval(secs => least(p_seconds, 600)), p_admits)
    ON CONFLICT (lane, source) DO UPDATE
       SET slow_until = excluded.slow_until, slow_admits = coalesce(excluded.slow_admits, l.slow_admits)
     WHERE coalesce(l.slow_until < excluded.slow_until, true)
$$;

-- Take up to p_want jobs for one worker, in strict order: rank, then ready time, then id.
--
-- The advisory lock comes first, as a statement of its own: every later statement then has a
-- snapshot that holds all earlier claims, which makes order and limits exact for any number of
-- workers. Nothing but the queue, the gates and the worker's own row is touched under it, and no
-- row lock is ever waited for, so a stopped client or an idle producer can't hold up the fleet.
--
-- p_lane … p_from are the heads of an earlier scan() and the ready times this worker already
-- took everything below of: they spare a busy fleet the walk over dead index entries. They are
-- hints; the caller gives none at least once a second, and whenever it came back short.
CREATE OR REPLACE FUNCTION rowmill.claim(
    p_worker bigint, p_token bigint, p_lanes text[], p_want integer,
    p_lane text[] DEFAULT NULL, p_source smallint[] DEFAULT NULL,
    p_rank smallint[] DEFAULT NULL, p_from timestamptz[] DEFAULT NULL)
RETURNS TABLE (queue_id bigint, source smallint, row_key text, lane text, rank smallint, run integer,
               tries smallint, yields smallint, tenant text, ready_at timestamptz, waited_ms integer,
               age_ms integer)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off
    SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_full    boolean := p_lane IS NULL;
    v_gates   text[];              -- 'lane/source' of every gate that limits or is closed
    v_free    integer[];           -- what each of them still admits
    v_rank    smallint;
    v_left    integer := p_want;
    v_taken   bigint[] := '{}';
    v_seen    bigint[];            -- rows of this rank that were taken, or found locked
    v_batch   bigint[];
    v_mine    bigint[];
    c         record;
BEGIN
    PERFORM FROM rowmill.workers w
      WHERE w.id = p_worker AND w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'worker incarnation % is not alive: it must register again', p_worker
            USING ERRCODE = 'RM001';
    END IF;
    -- Safe to lose in a crash: every paid call is preceded by a synchronously committed intent,
    -- and the log is in order, so a durable intent implies its claim.
    PERFORM set_config('synchronous_commit', 'off', true);

    IF v_full THEN
        PERFORM FROM rowmill.queue q WHERE q.state = 'scheduled' AND q.ready_at <= clock_timestamp() LIMIT 1;
        -- One at a time: whoever waited for a row that is claimed by now would keep it locked, and
        -- its worker would find it busy.
        IF FOUND AND pg_try_advisory_xact_lock(x'726f776d'::integer, 2) THEN
            PERFORM rowmill.promote();
        END IF;
        SELECT h.lanes, h.sources, h.ranks, h.ready_from
          INTO p_lane, p_source, p_rank, p_from FROM rowmill.scan(p_lanes) h;
    END IF;
    IF p_lane IS NOT NULL AND p_want > 0 THEN
        PERFORM pg_advisory_xact_lock(x'726f776d'::integer, 1);
        SELECT g.names, g.free INTO v_gates, v_free FROM rowmill.gates() g;
        v_gates := coalesce(v_gates, '{}');

        FOR v_rank IN SELECT DISTINCT r FROM unnest(p_rank) r ORDER BY r DESC LOOP
            v_seen := '{}';
            LOOP
                v_batch := '{}';
                FOR c IN
                    WITH head AS MATERIALIZED (
                        SELECT h.lane, h.source, h.ready_from, g.both, g.lane_gate, g.source_gate, g.every,
                               least(v_left, v_free[g.both], v_free[g.lane_gate],
                                     v_free[g.source_gate], v_free[g.every]) AS most
                          FROM unnest(p_lane, p_source, p_rank, p_from) AS h (lane, source, rank, ready_from)
                          JOIN rowmill.sources s ON s.id = h.source
                         CROSS JOIN LATERAL (SELECT
                               array_position(v_gates, h.lane || '/' || s.name) AS both,
                               array_position(v_gates, h.lane || '/*')          AS lane_gate,
                               array_position(v_gates, '*/' || s.name)          AS source_gate,
                               array_position(v_gates, '*/*')                   AS every) g
                         WHERE h.rank = v_rank
                    )
                    SELECT q.id, h.both, h.lane_gate, h.source_gate, h.every
                      FROM head h CROSS JOIN LATERAL (
                           SELECT q.id, q.ready_at
                             FROM rowmill.queue q
                            WHERE q.state = 'ready' AND q.lane = h.lane AND q.source = h.source
                              AND q.rank = v_rank AND q.ready_at >= h.ready_from
                              AND q.id <> ALL (v_seen)
                            ORDER BY q.ready_at, q.id LIMIT h.most) q
                     ORDER BY q.ready_at, q.id
                LOOP
                    EXIT WHEN cardinality(v_batch) >= v_left;
                    CONTINUE WHEN v_free[c.both] <= 0 OR v_free[c.lane_gate] <= 0
                               OR v_free[c.source_gate] <= 0 OR v_free[c.every] <= 0;
                    IF c.both IS NOT NULL THEN v_free[c.both] := v_free[c.both] - 1; END IF;
                    IF c.lane_gate IS NOT NULL THEN v_free[c.lane_gate] := v_free[c.lane_gate] - 1; END IF;
                    IF c.source_gate IS NOT NULL THEN v_free[c.source_gate] := v_free[c.source_gate] - 1; END IF;
                    IF c.every IS NOT NULL THEN v_free[c.every] := v_free[c.every] - 1; END IF;
                    v_batch := v_batch || c.id;
                END LOOP;
                EXIT WHEN cardinality(v_batch) = 0;

                -- As text: the state itself would bring in the index of all that is ready.
                v_mine := ARRAY(SELECT q.id FROM rowmill.queue q
                                 WHERE q.id = ANY (v_batch) AND q.state::text = 'ready'
                                   FOR NO KEY UPDATE SKIP LOCKED);
                v_taken := v_taken || v_mine;
                v_left := v_left - cardinality(v_mine);
                EXIT WHEN cardinality(v_mine) = cardinality(v_batch);
                -- Some are locked by a producer's open transaction: look past them. Their gates
                -- stay counted, which may leave a limit unfilled for one claim, never overfilled.
                v_seen := v_seen || v_batch;
                EXIT WHEN v_left = 0 OR cardinality(v_seen) > 2000;
            END LOOP;
            EXIT WHEN v_left = 0;
        END LOOP;
    END IF;

    -- A worker that found less than it wanted wants the doorbell; a busy fleet needs none.
    IF v_full THEN
        UPDATE rowmill.workers w SET idle = (v_left > 0)
         WHERE w.id = p_worker AND w.idle <> (v_left > 0);
    END IF;
    RETURN QUERY
        WITH claimed AS (
            UPDATE rowmill.queue q
               SET state = 'claimed', token = p_token, worker = p_worker,
                   claimed_at = clock_timestamp(), note = NULL
             WHERE q.id = ANY (v_taken)
            RETURNING q.*)
        SELECT c.id, c.source, c.row_key, c.lane, c.rank, c.run, c.tries, c.yields, c.tenant, c.ready_at,
               least(2147483647, extract(epoch FROM c.claimed_at - c.ready_at) * 1000)::integer,
               least(2147483647, extract(epoch FROM c.claimed_at - c.enqueued_at) * 1000)::integer
          FROM claimed c ORDER BY c.rank DESC, c.ready_at, c.id;
END $$;
