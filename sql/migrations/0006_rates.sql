-- Rates, and platforms that say which of their providers may be used.
--
--     requests_per_minute, tokens_per_minute   what the whole fleet may send to a lane's provider;
--                             the operator's, and beside them what the platform's tables say
--     slow_until              the rate is used up: nothing is claimed before then
--     platform_paused_why     the platform's tables say that this lane is not to be used
ALTER TABLE rowmill.lanes
    ADD COLUMN requests_per_minute          integer CHECK (requests_per_minute > 0),
    ADD COLUMN tokens_per_minute            integer CHECK (tokens_per_minute > 0),
    ADD COLUMN platform_requests_per_minute integer CHECK (platform_requests_per_minute > 0),
    ADD COLUMN platform_tokens_per_minute   integer CHECK (platform_tokens_per_minute > 0),
    ADD COLUMN slow_until                   timestamptz,
    ADD COLUMN platform_paused_why          text;

-- As before, and told by the view of what waits.
CREATE OR REPLACE VIEW rowmill.waiting AS
SELECT q.id, s.name AS source, q.row_key, q.lane, q.state, q.rank, q.ready_at, q.enqueued_at,
       CASE WHEN q.state = 'ready' THEN o.message END AS obstacle,
       CASE q.state
       WHEN 'held' THEN 'held for a person: ' || coalesce(q.note, 'no reason was noted')
       WHEN 'scheduled' THEN
           'waits until ' || to_char(q.ready_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS" UTC"')
           || CASE WHEN q.note IS NULL THEN '' ELSE ', after: ' || q.note END
       WHEN 'claimed' THEN
           CASE WHEN w.id IS NULL OR w.stopped_at IS NOT NULL
                THEN 'its worker is gone: another one takes it back within seconds'
                WHEN w.heartbeat_at < statement_timestamp() - w.lease
                THEN 'its worker ' || w.name || ' is silent for longer than its lease: '
                     'another one takes it back'
                ELSE 'running on ' || w.name END
       ELSE coalesce(o.message, 'ready: waits its turn') END AS why
  FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
  LEFT JOIN rowmill.workers w ON w.id = q.worker
  LEFT JOIN LATERAL (
       SELECT CASE WHEN gate.paused IS NOT NULL THEN gate.paused
                   WHEN gate.closed IS NOT NULL THEN gate.closed
                   WHEN gate.broken IS NOT NULL THEN gate.broken
                   WHEN own.unserved ? q.lane
                   THEN 'no worker can do ' || q.lane || ' on this database: ' || (own.unserved ->> q.lane)
                   WHEN NOT live.any_worker THEN 'no worker is running'
                   WHEN NOT live.serving THEN 'no live worker serves lane ' || q.lane
                   WHEN gate.slow IS NOT NULL THEN gate.slow
                   WHEN gate.full_ IS NOT NULL THEN gate.full_ END AS message
         FROM rowmill.sources own,
              LATERAL (SELECT count(*) > 0 AS any_worker, coalesce(bool_or(q.lane = ANY (v.lanes)), false) AS serving
                 FROM rowmill.workers v
                WHERE v.stopped_at IS NULL AND NOT v.draining
                  AND v.heartbeat_at > statement_timestamp() - v.lease) live,
              LATERAL (SELECT min(g.subject || ' is paused' || coalesce(' by ' || g.paused_by, '') || coalesce(': ' || g.pause_reason, ''))
                          FILTER (WHERE g.paused_at IS NOT NULL) AS paused,
                      min(g.subject || ' is closed by its platform: ' || g.platform_paused_why) AS closed,
                      min(g.subject || ' has used up its rate until '
                          || to_char(g.slow_until AT TIME ZONE 'UTC', 'HH24:MI:SS" UTC"'))
                          FILTER (WHERE g.slow_until > statement_timestamp()) AS slow,
                      min(g.subject || ' is left alone until '
                          || to_char(g.broken_until AT TIME ZONE 'UTC', 'HH24:MI:SS" UTC"') || ': ' || g.broken_why)
                          FILTER (WHERE g.broken_until > statement_timestamp()) AS broken,
                      min(g.subject || ' is full: ' || g.running || ' of ' || g.most || ' run')
                          FILTER (WHERE g.running >= g.most) AS full_
                 FROM (SELECT l.paused_at, l.paused_by, l.pause_reason, l.broken_until, l.broken_why,
                              l.slow_until, l.platform_paused_why,
                              least(l.max_running, l.platform_max_running,
                                    CASE WHEN l.broken_until IS NOT NULL THEN 1 END) AS most,
                              CASE WHEN l.lane = '*' AND l.source = '*' THEN 'everything'
                                   WHEN l.source = '*' THEN 'lane ' || l.lane
                                   WHEN l.lane = '*' THEN 'source ' || l.source
                                   ELSE 'lane ' || l.lane || ' of ' || l.source END AS subject,
                              CASE WHEN least(l.max_running, l.platform_max_running) IS NOT NULL OR l.broken_until IS NOT NULL THEN
                                  (SELECT count(*) FROM rowmill.queue c
                                     JOIN rowmill.sources cs ON cs.id = c.source
                                    WHERE c.state = 'claimed' AND l.lane IN ('*', c.lane)
                                      AND l.source IN ('*', cs.name)) END AS running
                         FROM rowmill.lanes l
                        WHERE l.lane IN ('*', q.lane) AND l.source IN ('*', own.name)) g) gate
        WHERE own.id = q.source
       OFFSET 0   -- keeps it one subquery, which the planner can remember
       ) o ON q.state = 'ready';
