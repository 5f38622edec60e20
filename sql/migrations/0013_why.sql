-- Why a job isn't done yet, for programs too; its place in the order, and when it may start.
--
--     reason          one word of a closed list:
--                       running, worker_silent, worker_gone     a worker has it, or had it
--                       held                                    for a person
--                       scheduled                               its row names a time
--                       retry, budget, locked                   it came back, until a time: after a
--                                                               failure; for money; for its own row
--                       paused, closed, unserved, no_worker     someone has to do something first
--                       breaker, rate                           its provider is left alone, or was
--                                                               asked as often as it may be
--                       full                                    as many run as may
--                       turn                                    nothing but those before it
--     subject         what the reason is about, in words: a gate, a lane, a worker, the fleet
--     gate_lane, gate_source   the gate (rowmill.lanes) or the lane of the budget, where it is one
--     may_start_at    when it may start at the earliest; null where nobody knows
--     ahead           how many ready jobs of its lane are taken before it, of all tables of the lane
--                     that are open; 10000 is that many or more; null unless it is ready
--     estimated_start_at   an estimate, from what its lane got done in the last quarter of an hour
--
-- What stops a job is the same for its whole lane and source, so it is found once for each (a lateral
-- subquery whose results the planner remembers by q.lane and q.source, of which it has statistics),
-- however many rows are read. The last two columns cost something for each row, and nothing where
-- they aren't selected. Only rowmill's tables are read.
CREATE OR REPLACE VIEW rowmill.waiting AS
SELECT q.id, s.name AS source, q.row_key, q.lane, q.state, q.rank, q.ready_at, q.enqueued_at,
       CASE WHEN q.state = 'ready' THEN o.message END AS obstacle,
       CASE q.state
       WHEN 'held' THEN 'held for a person: ' || coalesce(q.note, 'no reason was noted')
       WHEN 'scheduled' THEN
           'waits until ' || to_char(q.ready_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS" UTC"')
           || CASE WHEN r.reason = 'budget' THEN ', over budget' || coalesce(': ' || o.budget, '')
                   WHEN q.note IS NULL THEN '' ELSE ', after: ' || q.note END
           || CASE WHEN e.by_then THEN '' ELSE '; then: ' || o.message END
       WHEN 'claimed' THEN
           CASE r.reason
           WHEN 'worker_gone' THEN 'its worker is gone: another one takes it back within seconds'
           WHEN 'worker_silent' THEN 'its worker ' || w.name || ' is silent for longer than its lease: '
                                     'another one takes it back'
           ELSE 'running on ' || w.name END
       ELSE coalesce(o.message, 'ready: waits its turn') END AS why,
       r.reason,
       CASE r.reason
       WHEN 'running' THEN 'worker ' || w.name
       WHEN 'worker_silent' THEN 'worker ' || w.name
       WHEN 'budget' THEN CASE o.budget_lane WHEN '*' THEN 'everything' ELSE 'lane ' || o.budget_lane END
       WHEN 'turn' THEN 'lane ' || q.lane
       ELSE CASE q.state WHEN 'ready' THEN o.subject
                         WHEN 'scheduled' THEN CASE r.reason WHEN 'paused' THEN 'everything' END END
       END AS subject,
       CASE r.reason WHEN 'budget' THEN o.budget_lane
                     ELSE CASE q.state WHEN 'ready' THEN o.gate_lane
                                       WHEN 'scheduled' THEN CASE r.reason WHEN 'paused' THEN '*' END END
       END AS gate_lane,
       CASE r.reason WHEN 'budget' THEN CASE WHEN o.budget_lane IS NOT NULL THEN '*' END
                     ELSE CASE q.state WHEN 'ready' THEN o.gate_source
                                       WHEN 'scheduled' THEN CASE r.reason WHEN 'paused' THEN '*' END END
       END AS gate_source,
       e.may_start_at,
       p.ahead,
       CASE WHEN q.state = 'ready' AND r.reason IN ('turn', 'full', 'rate', 'breaker') THEN
           greatest(statement_timestamp(), e.may_start_at) + make_interval(
               secs => (p.ahead + (r.reason = 'full')::integer) / (
                   SELECT nullif(sum(d.succeeded + d.failed), 0)::double precision
                          / greatest(60, extract(epoch FROM statement_timestamp() - min(d.at)))::double precision
                     FROM rowmill.pulses d
                    WHERE d.at > statement_timestamp() - interval '15 minutes' AND d.lane = q.lane))
       END AS estimated_start_at
  FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
  LEFT JOIN rowmill.workers w ON w.id = q.worker
  LEFT JOIN LATERAL (
       SELECT b.reason, b.gate_lane, b.gate_source, b.subject, b.until, b.nth, b.message,
              m.lane AS budget_lane, m.message AS budget
         FROM rowmill.sources own
         LEFT JOIN LATERAL (
              -- The obstacle that lasts longest, as far as that is known.
              SELECT v.nth, v.reason, g.lane AS gate_lane, g.source AS gate_source, g.subject, v.until,
                     g.subject || v.words AS message
                FROM (SELECT l.*, least(l.max_running, l.platform_max_running) AS most,
                             CASE WHEN l.lane = '*' AND l.source = '*' THEN 'everything'
                                  WHEN l.source = '*' THEN 'lane ' || l.lane
                                  WHEN l.lane = '*' THEN 'source ' || l.source
                                  ELSE 'lane ' || l.lane || ' of ' || l.source END AS subject,
                             CASE WHEN num_nonnulls(l.max_running, l.platform_max_running, l.broken_until) > 0 THEN
                                 (SELECT count(*)
                                    FROM (SELECT a.lane, a.source FROM rowmill.queue a
                                           WHERE a.state = 'claimed' AND a.worker IS NOT NULL   -- so that its index is used
                                          OFFSET 0) c
                                    JOIN rowmill.sources cs ON cs.id = c.source
                                   WHERE l.lane IN ('*', c.lane) AND l.source IN ('*', cs.name)) END AS running
                        FROM rowmill.lanes l
                       WHERE l.lane IN ('*', q.lane) AND l.source IN ('*', own.name)
                      OFFSET 0) g
               CROSS JOIN LATERAL (VALUES
                     (1, 'paused', g.paused_at IS NOT NULL, NULL::timestamptz,
                      ' is paused' || coalesce(' by ' || g.paused_by, '') || coalesce(': ' || g.pause_reason, '')),
                     (2, 'closed', g.platform_paused_why IS NOT NULL, NULL,
                      ' is closed by its platform: ' || g.platform_paused_why),
                     (6, 'breaker', g.broken_until > statement_timestamp(), g.broken_until,
                      ' is left alone until ' || to_char(g.broken_until AT TIME ZONE 'UTC', 'HH24:MI:SS" UTC"')
                      || ': ' || g.broken_why),
                     (6, 'rate', g.slow_until > statement_timestamp(), g.slow_until,
                      ' has used up its rate until ' || to_char(g.slow_until AT TIME ZONE 'UTC', 'HH24:MI:SS" UTC"')),
                     (7, 'breaker', g.broken_until <= statement_timestamp() AND g.running > 0, NULL,
                      ' is tried again, by one job at a time: ' || g.broken_why),
                     (8, 'full', g.running >= g.most, NULL,
                      ' is full: ' || g.running || ' of ' || g.most || ' run')
                     ) AS v (nth, reason, holds, until, words)
               WHERE v.holds
              UNION ALL
              SELECT v.nth, v.reason, NULL, NULL, v.subject, NULL, v.message
                FROM (SELECT count(*) > 0 AS any_worker, coalesce(bool_or(q.lane = ANY (a.lanes)), false) AS serving
                        FROM rowmill.workers a
                       WHERE a.stopped_at IS NULL AND NOT a.draining
                         AND a.heartbeat_at > statement_timestamp() - a.lease) live
               CROSS JOIN LATERAL (VALUES
                     (3, 'unserved', own.unserved ? q.lane, 'lane ' || q.lane,
                      'no worker can do ' || q.lane || ' on this database: ' || (own.unserved ->> q.lane)),
                     (4, 'no_worker', NOT live.any_worker, 'fleet', 'no worker is running'),
                     (5, 'unserved', NOT live.serving, 'lane ' || q.lane, 'no live worker serves lane ' || q.lane)
                     ) AS v (nth, reason, holds, subject, message)
               WHERE v.holds
               ORDER BY nth, until DESC NULLS LAST, subject LIMIT 1) b ON true
         LEFT JOIN LATERAL (
              -- If any budget is too small for a call, then the one with the least left is.
              SELECT u.lane, 'the budget of ' || CASE u.lane WHEN '*' THEN 'everything' ELSE 'lane ' || u.lane END
                             || ' has used ' || used.cents || ' of ' || u.limit_cents || ' cents a ' || u.period AS message
                FROM rowmill.budgets u
               CROSS JOIN LATERAL (SELECT CASE
                     WHEN u.window_start = date_trunc(u.period, statement_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
                     THEN u.used_cents ELSE 0 END AS cents) used
               WHERE u.lane IN ('*', q.lane)
               ORDER BY u.limit_cents - used.cents, u.lane, u.period LIMIT 1) m ON true
        WHERE own.id = q.source
       OFFSET 0   -- keeps it one subquery, which the planner can remember
       ) o ON q.state IN ('ready', 'scheduled')
 CROSS JOIN LATERAL (
       -- A job that came back says by its note what for.
       SELECT CASE q.state
              WHEN 'held' THEN 'held'
              WHEN 'claimed' THEN
                  CASE WHEN w.id IS NULL OR w.stopped_at IS NOT NULL THEN 'worker_gone'
                       WHEN w.heartbeat_at < statement_timestamp() - w.lease THEN 'worker_silent'
                       ELSE 'running' END
              WHEN 'scheduled' THEN
                  CASE WHEN q.note IS NULL THEN 'scheduled'
                       WHEN q.note = 'over budget' THEN 'budget'
                       WHEN q.note = 'everything is paused' THEN 'paused'
                       WHEN q.note = 'its row was locked' THEN 'locked'
                       WHEN q.note LIKE '% has used up its rate' OR q.note LIKE 'it is not yet its turn at %'
                            OR q.note LIKE 'it missed its turns at %' THEN 'rate'
                       ELSE 'retry' END
              ELSE coalesce(o.reason, 'turn') END AS reason) r
 CROSS JOIN LATERAL (
       -- Whether what stops its lane is over when its own time comes: a full lane may have room by then.
       SELECT CASE WHEN q.state = 'scheduled'
                   THEN o.nth IS NULL OR o.nth > 6 OR (o.nth = 6 AND o.until <= q.ready_at) END AS by_then,
              CASE WHEN q.state = 'scheduled' AND (o.nth IS NULL OR o.nth >= 6) THEN greatest(q.ready_at, o.until)
                   WHEN q.state = 'ready' AND o.nth IS NULL THEN q.ready_at
                   WHEN q.state = 'ready' THEN o.until END AS may_start_at) e
 CROSS JOIN LATERAL (
       SELECT CASE WHEN q.state = 'ready' THEN (
              SELECT count(*)::integer
                FROM (SELECT 1
                        FROM rowmill.sources t
                       CROSS JOIN LATERAL (   -- in the index's order, so that no plan reads more than so many
                             (SELECT 1 FROM rowmill.queue a
                               WHERE a.state = 'ready' AND a.lane = q.lane AND a.source = t.id AND a.rank > q.rank
                               ORDER BY a.rank, a.ready_at, a.id LIMIT 10000)
                             UNION ALL
                             (SELECT 1 FROM rowmill.queue a
                               WHERE a.state = 'ready' AND a.lane = q.lane AND a.source = t.id AND a.rank = q.rank
                                 AND (a.ready_at, a.id) < (q.ready_at, q.id)
                               ORDER BY a.ready_at, a.id LIMIT 10000)) a
                       WHERE t.id = q.source
                          OR (NOT t.unserved ? q.lane
                              AND NOT EXISTS (
                                  SELECT FROM rowmill.lanes l
                                   WHERE l.source = t.name AND l.lane IN ('*', q.lane)
                                     AND (l.paused_at IS NOT NULL OR l.platform_paused_why IS NOT NULL
                                          OR greatest(l.broken_until, l.slow_until) > statement_timestamp())))
                       LIMIT 10000) before) END AS ahead
       OFFSET 0   -- so that it is counted once
       ) p;
