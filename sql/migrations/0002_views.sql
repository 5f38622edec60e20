-- Views for operators and other tools: what waits and why, what runs, what it costs.
--
--     rowmill.backlog      per lane and source: how much waits, runs, is held, and for how long
--     rowmill.waiting      per unfinished job: why it isn't done yet
--     rowmill.throughput   per lane and source: what was done in the last minute and hour
--     rowmill.spend        per day and provider: what was paid

-- Today's spend must not read a ledger of years. Rows are added in order of time, which is all a
-- BRIN index needs, and it costs the hot path next to nothing.
CREATE INDEX submissions_at ON rowmill.submissions USING brin (intended_at)
    WITH (pages_per_range = 32, autosummarize = on);

-- Ready rows come from queue_order alone; they are counted apart from the few others, so that a
-- million of them is one scan of an index.
CREATE VIEW rowmill.backlog AS
WITH counted AS (
    SELECT q.lane, q.source, count(*) AS ready, 0::bigint AS scheduled, 0::bigint AS running,
           0::bigint AS held, min(q.ready_at) AS oldest
      FROM rowmill.queue q WHERE q.state = 'ready' GROUP BY q.lane, q.source
    UNION ALL
    SELECT q.lane, q.source, 0, count(*), 0, 0, NULL
      FROM rowmill.queue q WHERE q.state = 'scheduled' GROUP BY q.lane, q.source
    UNION ALL
    SELECT q.lane, q.source, 0, 0, count(*), 0, NULL
      FROM rowmill.queue q WHERE q.state = 'claimed' GROUP BY q.lane, q.source
    UNION ALL
    SELECT q.lane, q.source, 0, 0, 0, count(*), NULL
      FROM rowmill.queue q WHERE q.state = 'held' GROUP BY q.lane, q.source
)
SELECT c.lane, s.name AS source, sum(c.ready)::bigint AS ready, sum(c.scheduled)::bigint AS scheduled,
       sum(c.running)::bigint AS running, sum(c.held)::bigint AS held,
       statement_timestamp() - min(c.oldest) AS oldest_wait
  FROM counted c JOIN rowmill.sources s ON s.id = c.source
 GROUP BY c.lane, s.name;

-- What stops a ready job is the same for its whole lane and source, so it is found once for each
-- (a lateral subquery whose results the planner remembers by q.lane and q.source, of which it has
-- statistics), however many rows are read.
CREATE VIEW rowmill.waiting AS
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
                   WHEN own.unserved ? q.lane
                   THEN 'no worker can do ' || q.lane || ' on this database: ' || (own.unserved ->> q.lane)
                   WHEN NOT live.any_worker THEN 'no worker is running'
                   WHEN NOT live.serving THEN 'no live worker serves lane ' || q.lane
                   WHEN gate.full_ IS NOT NULL THEN gate.full_ END AS message
         FROM rowmill.sources own,
              LATERAL (SELECT count(*) > 0 AS any_worker, coalesce(bool_or(q.lane = ANY (v.lanes)), false) AS serving
                 FROM rowmill.workers v
                WHERE v.stopped_at IS NULL AND NOT v.draining
                  AND v.heartbeat_at > statement_timestamp() - v.lease) live,
              LATERAL (SELECT min(g.subject || ' is paused' || coalesce(' by ' || g.paused_by, '') || coalesce(': ' || g.pause_reason, ''))
                          FILTER (WHERE g.paused_at IS NOT NULL) AS paused,
                      min(g.subject || ' is full: ' || g.running || ' of ' || g.most || ' run')
                          FILTER (WHERE g.running >= g.most) AS full_
                 FROM (SELECT l.paused_at, l.paused_by, l.pause_reason,
                              least(l.max_running, l.platform_max_running) AS most,
                              CASE WHEN l.lane = '*' AND l.source = '*' THEN 'everything'
                                   WHEN l.source = '*' THEN 'lane ' || l.lane
                                   WHEN l.lane = '*' THEN 'source ' || l.source
                                   ELSE 'lane ' || l.lane || ' of ' || l.source END AS subject,
                              CASE WHEN least(l.max_running, l.platform_max_running) IS NOT NULL THEN
                                  (SELECT count(*) FROM rowmill.queue c
                                     JOIN rowmill.sources cs ON cs.id = c.source
                                    WHERE c.state = 'claimed' AND l.lane IN ('*', c.lane)
                                      AND l.source IN ('*', cs.name)) END AS running
                         FROM rowmill.lanes l
                        WHERE l.lane IN ('*', q.lane) AND l.source IN ('*', own.name)) g) gate
        WHERE own.id = q.source
       OFFSET 0   -- keeps it one subquery, which the planner can remember
       ) o ON q.state = 'ready';

CREATE VIEW rowmill.throughput AS
SELECT p.lane, p.source,
       coalesce(sum(p.started)   FILTER (WHERE p.at > statement_timestamp() - interval '1 minute'), 0) AS started_last_minute,
       coalesce(sum(p.succeeded) FILTER (WHERE p.at > statement_timestamp() - interval '1 minute'), 0) AS succeeded_last_minute,
       coalesce(sum(p.failed)    FILTER (WHERE p.at > statement_timestamp() - interval '1 minute'), 0) AS failed_last_minute,
       sum(p.started) AS started_last_hour, sum(p.succeeded) AS succeeded_last_hour,
       sum(p.failed) AS failed_last_hour, sum(p.retried) AS retried_last_hour,
       sum(p.yielded) AS yielded_last_hour
  FROM rowmill.pulses p
 WHERE p.at > statement_timestamp() - interval '1 hour'
 GROUP BY p.lane, p.source;

-- Days are UTC's. `open_cents` is what calls that haven't ended yet are expected to cost.
CREATE VIEW rowmill.spend AS
SELECT (u.intended_at AT TIME ZONE 'UTC')::date AS day, u.provider, count(*) AS calls,
       coalesce(sum(u.cost_cents), 0) AS cost_cents,
       coalesce(sum(u.estimate_cents) FILTER (WHERE u.state IN ('intent', 'accepted', 'unknown')), 0)
           AS open_cents
  FROM rowmill.submissions u
 GROUP BY 1, 2;
