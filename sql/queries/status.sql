-- The parts of the report on the fleet. worker/store/reports.py selects those it wants, as JSON, in one
-- statement; a part that isn't asked for isn't read.
--
-- The last hour is cut into {windows}. Histograms are summed element by element, which is written into
-- {waits} and {runs}: unnesting an hour of them costs ten times as much.
WITH hour AS MATERIALIZED (
    SELECT p.lane, p.source,
           greatest(0, {windows} - 1 - floor(extract(epoch FROM statement_timestamp() - p.at) * {windows} / 3600))::integer AS nth,
           sum(p.started)::bigint AS started, sum(p.succeeded)::bigint AS succeeded, sum(p.failed)::bigint AS failed,
           {waits} AS waits, {runs} AS runs,
           coalesce(sum(p.succeeded + p.failed)
               FILTER (WHERE p.at > statement_timestamp() - interval '1 minute'), 0)::bigint AS gone,
           -- Those of them that had also come within this minute.
           coalesce(sum(p.arrived[30 - ceil(extract(epoch FROM statement_timestamp() - p.at) / 2)::integer])
               FILTER (WHERE p.at > statement_timestamp() - interval '1 minute'), 0)::bigint AS arrived
      FROM rowmill.pulses p
     WHERE p.at > statement_timestamp() - interval '1 hour'
     GROUP BY 1, 2, 3
), done AS (
    SELECT p.lane, p.source, sum(p.gone)::bigint AS gone, sum(p.arrived)::bigint AS arrived,
           json_object_agg(p.nth, p.succeeded + p.failed) AS out_history, {waits} AS waits, {runs} AS runs
      FROM hour p GROUP BY p.lane, p.source
), history AS (
    SELECT p.nth, sum(p.started)::bigint AS started, sum(p.succeeded)::bigint AS succeeded,
           sum(p.failed)::bigint AS failed, {waits} AS waits
      FROM hour p GROUP BY p.nth
), failed AS MATERIALIZED (
    SELECT f.lane, f.source, f.provider, count(*) AS tries, count(*) FILTER (WHERE f.final) AS jobs
      FROM rowmill.failures f
     WHERE f.at > statement_timestamp() - interval '1 hour'
     GROUP BY f.lane, f.source, f.provider
), summed_up AS MATERIALIZED (
    SELECT * FROM rowmill.spending
     WHERE since = date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
       AND until <= now()   -- or a clock was put back: calls of now are not in it
), spent AS MATERIALIZED (
    SELECT t.lane, t.source, t.provider, sum(t.cents) AS cents
      FROM (SELECT r.lane, r.source, r.provider, r.cents
              FROM summed_up, jsonb_to_recordset(sums) AS r (lane text, source text, provider text, cents numeric)
            UNION ALL
            SELECT u.lane, u.source, u.provider, u.cost_cents FROM rowmill.submissions u
             WHERE u.id IN (SELECT unnest(pending) FROM summed_up)
            UNION ALL
            -- The day's start stands here as well, for the planner: it knows how much is behind it.
            SELECT u.lane, u.source, u.provider, u.cost_cents FROM rowmill.submissions u
             WHERE u.intended_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
               AND u.intended_at >= coalesce((SELECT until FROM summed_up), '-infinity')) t
     GROUP BY t.lane, t.source, t.provider
), counted AS MATERIALIZED (
    SELECT c.lane, s.name AS source, c.ready, c.scheduled, c.running, c.held, c.over_budget, c.arrived,
           c.oldest, c.ready_estimated, c.scheduled_estimated, c.held_estimated
      FROM rowmill.counted() c JOIN rowmill.sources s ON s.id = c.source
), lanes AS (
    SELECT lane, source, coalesce(c.ready, 0) AS ready, coalesce(c.scheduled, 0) AS scheduled,
           coalesce(c.running, 0) AS running, coalesce(c.held, 0) AS held,
           coalesce(c.ready_estimated, false) AS ready_estimated,
           coalesce(c.scheduled_estimated, false) AS scheduled_estimated,
           coalesce(c.held_estimated, false) AS held_estimated,
           coalesce(f.jobs, 0) AS failed_last_hour,
           CASE WHEN c.oldest IS NOT NULL   -- greatest() takes no notice of a null
                THEN extract(epoch FROM greatest(statement_timestamp() - c.oldest, interval '0'))::double precision
                END AS oldest_wait_s,
           coalesce(c.arrived, 0) + coalesce(d.arrived, 0) AS per_minute_in,
           coalesce(d.gone, 0) AS per_minute_out, d.out_history, d.waits, d.runs,
           coalesce(s.cents, 0)::text AS spend_cents_today
      FROM counted c
      FULL JOIN done d USING (lane, source)
      FULL JOIN (SELECT n.lane, n.source, sum(n.jobs)::bigint AS jobs
                   FROM failed n WHERE n.jobs > 0 GROUP BY n.lane, n.source) f USING (lane, source)
      FULL JOIN (SELECT n.lane, n.source, sum(n.cents) AS cents
                   FROM spent n GROUP BY n.lane, n.source) s USING (lane, source)
     ORDER BY lane, source
), gates AS (
    SELECT lane, source, paused_at IS NOT NULL AS paused, paused_by, pause_reason,
           platform_paused_why AS closed_why, least(max_running, platform_max_running) AS most,
           least(requests_per_minute, platform_requests_per_minute) AS requests_per_minute,
           least(tokens_per_minute, platform_tokens_per_minute) AS tokens_per_minute,
           rowmill.iso(broken_until) AS broken_until, broken_why,
           broken_until > statement_timestamp() AS broken,
           rowmill.iso(CASE WHEN slow_until > statement_timestamp() THEN slow_until END) AS slow_until
      FROM rowmill.lanes ORDER BY lane, source
), missing_triggers AS MATERIALIZED (
    SELECT m.source, m.trigger FROM rowmill.missing_triggers() m
), sources AS (
    SELECT s.name AS source, s.platform, s.relation, s.unserved, to_regclass(s.relation) IS NULL AS gone,
           ARRAY(SELECT DISTINCT t.trigger::text FROM missing_triggers t
                  WHERE t.source = s.name ORDER BY 1) AS missing
      FROM rowmill.sources s ORDER BY s.id
), claims AS MATERIALIZED (
    SELECT q.worker, count(*) AS jobs FROM rowmill.queue q
     WHERE q.state = 'claimed' AND q.worker IS NOT NULL GROUP BY q.worker
), workers AS (   -- one that is gone is told of while it holds claims
    SELECT coalesce(w.id, c.worker)::text AS id, coalesce(w.name, 'unknown') AS name, w.host,
           coalesce(w.state, 'stopped') AS state, coalesce(w.version, '') AS version, coalesce(w.slots, 0) AS slots, coalesce(w.running, 0) AS running,
           coalesce(c.jobs, 0) AS claims, rowmill.iso(w.started_at) AS started_at,
           extract(epoch FROM statement_timestamp() - w.heartbeat_at)::double precision AS heartbeat_age_s,
           coalesce(w.stopped_at IS NULL AND w.heartbeat_at > statement_timestamp() - w.lease, false) AS alive,
           coalesce(w.draining, false) AS draining, coalesce(w.lanes, '{}') AS lanes
      FROM (SELECT n.*, rowmill.state_of(n) AS state FROM rowmill.workers n
             WHERE n.stopped_at IS NULL OR n.id IN (SELECT d.worker FROM claims d)) w
      FULL JOIN claims c ON c.worker = w.id
     ORDER BY w.started_at
), ledger AS (
    SELECT provider, coalesce(s.cents, 0)::text AS spend_cents_today, coalesce(o.calls, 0) AS open_calls,
           coalesce(f.tries, 0) AS failed_last_hour
      FROM (SELECT n.provider, sum(n.cents) AS cents FROM spent n GROUP BY n.provider) s
      FULL JOIN (SELECT u.provider, count(*) AS calls FROM rowmill.submissions u
                  WHERE u.state IN ('intent', 'accepted', 'unknown') GROUP BY u.provider) o USING (provider)
      FULL JOIN (SELECT n.provider, sum(n.tries)::bigint AS tries FROM failed n
                  WHERE n.provider IS NOT NULL GROUP BY n.provider) f USING (provider)
), ended AS (
    {ended}
), budgets AS (
    SELECT b.lane, b.period, b.limit_cents::text AS limit_cents,
           (CASE WHEN b.window_start = rowmill.window_of(b.period) THEN b.used_cents
                 ELSE rowmill.used_in(b.lane, rowmill.window_of(b.period)) END)::text AS used_cents,
           rowmill.iso(rowmill.window_of(b.period) + ('1 ' || b.period)::interval) AS renewed_at,
           coalesce((SELECT sum(c.over_budget) FROM counted c WHERE b.lane IN ('*', c.lane)), 0)::bigint AS waiting
      FROM rowmill.budgets b ORDER BY b.lane, b.period
), some_held AS MATERIALIZED (
    SELECT s.name || '/' || q.row_key AS job, q.row_key, q.enqueued_at,
           coalesce(q.note, 'no reason was noted') AS why
      FROM (SELECT * FROM rowmill.queue n WHERE n.state = 'held' AND n.lane > '' LIMIT 200) q
      JOIN rowmill.sources s ON s.id = q.source
), held AS (
    SELECT h.job, 'held for a person: ' || h.why AS why FROM some_held h ORDER BY h.enqueued_at LIMIT {most}
), held_for AS (
    -- Notes name their job in the commands that end it: told once for all that share a reason.
    SELECT e.why FROM (SELECT replace(h.why, h.row_key, 'ID') AS why FROM some_held h) e
     GROUP BY e.why ORDER BY count(*) DESC, e.why LIMIT {most}
), unresolved AS (
    SELECT u.*, count(*) OVER () AS total FROM (
{unresolved}    ) u ORDER BY u.intended_at LIMIT {most}
), database AS (
    SELECT rowmill.iso(statement_timestamp()) AS at, current_database() AS name,
           current_setting('server_version') AS server_version,
           (SELECT extract(epoch FROM clock_timestamp() - min(a.xact_start))::double precision
              FROM pg_stat_activity a
             WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()) AS oldest_transaction_s
)
