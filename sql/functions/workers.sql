-- A new incarnation. Its id is drawn by the worker at random: sequence values can repeat after a
-- crash of the server, and an id must never name two lives.
CREATE OR REPLACE FUNCTION rowmill.register(
    p_worker bigint, p_name text, p_version text, p_lanes text[], p_slots integer,
    p_lease double precision, p_host text) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO rowmill.workers (id, name, version, lanes, slots, lease, host)
    VALUES (p_worker, p_name, p_version, p_lanes, p_slots, make_interval(secs => p_lease), p_host)
$$;

-- As workers of the version before call it.
CREATE OR REPLACE FUNCTION rowmill.register(
    p_worker bigint, p_name text, p_version text, p_lanes text[], p_slots integer,
    p_lease double precision) RETURNS void
LANGUAGE sql AS $$
    SELECT rowmill.register(p_worker, p_name, p_version, p_lanes, p_slots, p_lease, NULL)
$$;

-- How a worker is, in one word: working | asked (to drain, and hasn't heard yet) | draining | silent |
-- stopped. A gap of a lease is what others wait for before they take its jobs.
CREATE OR REPLACE FUNCTION rowmill.state_of(w rowmill.workers) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN w.stopped_at IS NOT NULL THEN 'stopped'
                WHEN w.heartbeat_at <= statement_timestamp() - w.lease THEN 'silent'
                WHEN w.draining THEN 'draining'
                WHEN w.drain_asked_at IS NOT NULL THEN 'asked'
                ELSE 'working' END
$$;

-- Renew every claim of a worker with one UPDATE, and tell it which claims are still its own.
-- `alive` is false for an incarnation that was given up: it must stop all it does and register anew.
CREATE OR REPLACE FUNCTION rowmill.heartbeat(
    p_worker bigint, p_running integer, p_draining boolean,
    OUT alive boolean, OUT queue_ids bigint[], OUT tokens bigint[])
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    UPDATE rowmill.workers w
       SET heartbeat_at = clock_timestamp(), running = p_running, draining = p_draining,
           idle = w.idle AND NOT p_draining,
           -- A gap (Postgres was away, or we were) starts the count anew. Half a lease is one:
           -- after an outage of nearly a lease, others may just have passed theirs.
           alive_since = CASE WHEN w.heartbeat_at < clock_timestamp() - w.lease / 2
                              THEN clock_timestamp() ELSE w.alive_since END
     WHERE w.id = p_worker AND w.stopped_at IS NULL;
    alive := FOUND;
    SELECT array_agg(q.id), array_agg(q.token) INTO queue_ids, tokens
      FROM rowmill.queue q WHERE q.worker = p_worker AND q.state = 'claimed';
END $$;

-- Give up workers that are silent for longer than their lease and their judge's, and put every claim
-- without a live worker back. Only a worker whose own heartbeats have been gapless for a lease (its
-- own, and that of whom it judges) may judge: after an outage of Postgres everyone looks dead for a
-- moment.
CREATE OR REPLACE FUNCTION rowmill.rescue(p_worker bigint, p_limit integer DEFAULT 500)
RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_since timestamptz;
    v_lease interval;
    v_count integer;
BEGIN
    SELECT w.alive_since, w.lease INTO v_since, v_lease FROM rowmill.workers w
      WHERE w.id = p_worker AND w.stopped_at IS NULL
        AND w.heartbeat_at > clock_timestamp() - w.lease / 2
        AND w.alive_since <= clock_timestamp() - w.lease;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    UPDATE rowmill.workers w SET stopped_at = clock_timestamp(), idle = false
     WHERE w.stopped_at IS NULL AND w.heartbeat_at < clock_timestamp() - greatest(w.lease, v_lease)
       AND v_since <= clock_timestamp() - w.lease;
    UPDATE rowmill.queue SET state = 'ready', token = NULL, worker = NULL, claimed_at = NULL,
           yields = least(yields + 1, 32767), note = 'its worker stopped'
     WHERE id = ANY (ARRAY(
           SELECT q.id FROM rowmill.queue q
            WHERE q.state = 'claimed'
              AND NOT EXISTS (SELECT FROM rowmill.workers w
                               WHERE w.id = q.worker AND w.stopped_at IS NULL)
            LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- A worker that leaves: it holds no claims any more, or hands back the ones it still has. Those that
-- a producer's open transaction holds are left to a rescue.
CREATE OR REPLACE FUNCTION rowmill.retire(p_worker bigint) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_count integer;
BEGIN
    UPDATE rowmill.workers SET stopped_at = clock_timestamp(), idle = false, running = 0
     WHERE id = p_worker AND stopped_at IS NULL;
    UPDATE rowmill.queue SET state = 'ready', token = NULL, worker = NULL, claimed_at = NULL,
           note = 'its worker left'
     WHERE id = ANY (ARRAY(
           SELECT q.id FROM rowmill.queue q
            WHERE q.state = 'claimed' AND q.worker = p_worker FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Claims whose answer never reached their worker. A row some producer holds is left for the next
-- pulse: waiting would delay heartbeats.
CREATE OR REPLACE FUNCTION rowmill.hand_back(p_ids bigint[], p_tokens bigint[]) RETURNS void
LANGUAGE sql SET enable_seqscan = off SET jit = off AS $$
    UPDATE rowmill.queue SET state = 'ready', token = NULL, worker = NULL, claimed_at = NULL
     WHERE id = ANY (ARRAY(
           SELECT q.id FROM rowmill.queue q
             JOIN unnest(p_ids, p_tokens) AS c (id, token) USING (id, token)
            WHERE q.id = ANY (p_ids) FOR UPDATE OF q SKIP LOCKED))
$$;

-- Ring one idle worker that serves the lane. NOTIFY serializes commits, so a busy fleet (no idle
-- worker) is never rung; whoever misses the bell polls within a second.
CREATE OR REPLACE FUNCTION rowmill.ring(p_lane text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_worker bigint;
BEGIN
    SELECT w.id INTO v_worker FROM rowmill.workers w
     WHERE w.stopped_at IS NULL AND w.idle AND p_lane = ANY (w.lanes)
       AND w.heartbeat_at > clock_timestamp() - w.lease
     ORDER BY random() LIMIT 1;
    IF FOUND THEN
        PERFORM pg_notify('rowmill_' || v_worker, '');
    END IF;
END $$;
