-- What rowmill.status asks of the queue without reading all of it.
--
-- Small numbers are exact, and large ones estimates, each said by its column. A queue of few pages is
-- simply counted. Of a larger one every nth page is read, which tells how much there is of what: evenly
-- spaced pages meet a lane's rows in their share, also where one INSERT put them side by side. Beside it
-- every lane is counted by index up to a bound, so that a sample says nothing about a small one. No
-- statistics are used, which are wrong just after many rows came or went.
--
-- p_pages is how many pages are read, p_exact up to which number a lane is counted (less, where there
-- are very many lanes). `arrived` are the rows of the last minute that are still unfinished.
CREATE OR REPLACE FUNCTION rowmill.counted(p_pages integer DEFAULT 200, p_exact integer DEFAULT 500)
RETURNS TABLE (lane text, source smallint, ready bigint, scheduled bigint, running bigint, held bigint,
               over_budget bigint, arrived bigint, oldest timestamptz,
               ready_estimated boolean, scheduled_estimated boolean, held_estimated boolean)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_pages  bigint := pg_relation_size('rowmill.queue') / current_setting('block_size')::bigint;
    v_step   bigint := greatest(1, ceil(v_pages::numeric / p_pages));
    v_minute timestamptz := statement_timestamp() - interval '1 minute';
BEGIN
    IF v_step = 1 THEN
        RETURN QUERY
            SELECT q.lane, q.source, count(*) FILTER (WHERE q.state = 'ready'),
                   count(*) FILTER (WHERE q.state = 'scheduled'), count(*) FILTER (WHERE q.state = 'claimed'),
                   count(*) FILTER (WHERE q.state = 'held'),
                   count(*) FILTER (WHERE q.state = 'scheduled' AND q.note = 'over budget'),
                   count(*) FILTER (WHERE q.enqueued_at > v_minute),
                   min(q.ready_at) FILTER (WHERE q.state = 'ready'), false, false, false
              FROM rowmill.queue q WHERE q.ctid >= '(0,0)' GROUP BY q.lane, q.source;
        RETURN;
    END IF;
    RETURN QUERY
        WITH head AS (
            SELECT h.* FROM rowmill.scan(NULL) s
             CROSS JOIN unnest(s.lanes, s.sources, s.ready_from) AS h (lane, source, ready_at)
        ), waiting AS MATERIALIZED (
            SELECT h.lane, h.source, min(h.ready_at) AS oldest,
                   greatest(100, least(p_exact, 5 * p_exact / count(*) OVER ())) AS most
              FROM head h GROUP BY h.lane, h.source
        ), sampled AS MATERIALIZED (
            SELECT q.lane, q.source, q.state, v_step * count(*) AS jobs,
                   v_step * count(*) FILTER (WHERE q.note = 'over budget') AS over_budget,
                   v_step * count(*) FILTER (WHERE q.enqueued_at > v_minute) AS arrived
              FROM generate_series(v_step / 2, v_pages - 1, v_step) page
             CROSS JOIN LATERAL (
                   SELECT s.lane, s.source, s.state, s.note, s.enqueued_at FROM rowmill.queue s
                    WHERE s.ctid >= format('(%s,0)', page)::tid
                      AND s.ctid < format('(%s,0)', page + 1)::tid
                   OFFSET 0) q   -- so that each page is a scan of its own
             GROUP BY q.lane, q.source, q.state
        ), newest AS MATERIALIZED (
            SELECT q.lane, q.source, q.enqueued_at FROM rowmill.queue q ORDER BY q.id DESC LIMIT p_exact
        ), later AS MATERIALIZED (
            (SELECT q.lane, q.source, q.state, q.note FROM rowmill.queue q
              WHERE q.state = 'scheduled' AND q.ready_at > '-infinity' LIMIT p_exact)
            UNION ALL
            (SELECT q.lane, q.source, q.state, NULL FROM rowmill.queue q
              WHERE q.state = 'held' AND q.lane > '' LIMIT p_exact)
        ), part AS (
            SELECT w.lane, w.source, 'ready'::rowmill.queue_state AS state, n.jobs, n.jobs > w.most AS more,
                   w.oldest, NULL::bigint AS over_budget
              FROM waiting w CROSS JOIN LATERAL (
                   SELECT count(*) AS jobs FROM (
                          SELECT FROM rowmill.queue q
                           WHERE q.state = 'ready' AND q.lane = w.lane AND q.source = w.source
                           LIMIT w.most + 1) few) n
            UNION ALL
            SELECT q.lane, q.source, 'claimed', count(*), false, NULL, NULL FROM rowmill.queue q
             WHERE q.state = 'claimed' AND q.worker IS NOT NULL   -- so that its index is used
             GROUP BY q.lane, q.source
            UNION ALL
            SELECT l.lane, l.source, l.state, count(*),
                   sum(count(*)) OVER (PARTITION BY l.state) >= p_exact, NULL,
                   count(*) FILTER (WHERE l.note = 'over budget')
              FROM later l GROUP BY l.lane, l.source, l.state
        ), known AS (
            SELECT lane, source, state, p.more OR p.state IS NULL AS more, p.oldest,
                   CASE WHEN p.more THEN greatest(p.jobs, s.jobs) ELSE coalesce(p.jobs, s.jobs) END AS jobs,
                   CASE WHEN p.more THEN greatest(p.over_budget, s.over_budget) ELSE p.over_budget END AS over_budget
              FROM part p FULL JOIN sampled s USING (lane, source, state)
             WHERE p.state IS NOT NULL
                OR (s.state IN ('scheduled', 'held')
                    AND EXISTS (SELECT FROM part o WHERE o.state = s.state AND o.more))
        ), lately AS (
            SELECT n.lane, n.source, count(*) FILTER (WHERE n.enqueued_at > v_minute) AS jobs
              FROM newest n GROUP BY n.lane, n.source
        ), arrived AS (
            SELECT lane, source,
                   CASE WHEN (SELECT count(*) FILTER (WHERE n.enqueued_at > v_minute) = p_exact FROM newest n)
                        THEN greatest(l.jobs, s.jobs) ELSE l.jobs END AS jobs
              FROM lately l
              FULL JOIN (SELECT s.lane, s.source, sum(s.arrived)::bigint AS jobs
                           FROM sampled s GROUP BY s.lane, s.source) s USING (lane, source)
        ), grouped AS (
            SELECT k.lane, k.source,
                   coalesce(sum(k.jobs) FILTER (WHERE k.state = 'ready'), 0)::bigint AS ready,
                   coalesce(sum(k.jobs) FILTER (WHERE k.state = 'scheduled'), 0)::bigint AS scheduled,
                   coalesce(sum(k.jobs) FILTER (WHERE k.state = 'claimed'), 0)::bigint AS running,
                   coalesce(sum(k.jobs) FILTER (WHERE k.state = 'held'), 0)::bigint AS held,
                   coalesce(sum(k.over_budget), 0)::bigint AS over_budget, min(k.oldest) AS oldest,
                   coalesce(bool_or(k.more) FILTER (WHERE k.state = 'ready'), false) AS ready_more,
                   coalesce(bool_or(k.more) FILTER (WHERE k.state = 'scheduled'), false) AS scheduled_more,
                   coalesce(bool_or(k.more) FILTER (WHERE k.state = 'held'), false) AS held_more
              FROM known k GROUP BY k.lane, k.source
        )
        SELECT g.lane, g.source, g.ready, g.scheduled, g.running, g.held, g.over_budget,
               coalesce(a.jobs, 0), g.oldest, g.ready_more, g.scheduled_more, g.held_more
          FROM grouped g LEFT JOIN arrived a USING (lane, source);
END $$;

-- A time as reports tell it: ISO 8601 in UTC, whatever the session's time zone is.
CREATE OR REPLACE FUNCTION rowmill.iso(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT replace(to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), '.000000', '')
$$;
