-- How much waits in each lane that a living worker serves, per source; all other lanes as one, ''.
-- $1: how far anything is counted, so that a million waiting rows cost no more than that many.
-- Every part reads an index in its order. The other lanes are looked for one by one, and only so far.
WITH RECURSIVE known AS MATERIALIZED (
    SELECT DISTINCT lane
      FROM rowmill.workers w, unnest(w.lanes) AS lane
     WHERE w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease
     ORDER BY lane
     LIMIT 200
), sources AS MATERIALIZED (
    SELECT id, name FROM rowmill.sources
), lanes AS (
    (SELECT q.lane FROM rowmill.queue q WHERE q.state = 'ready' ORDER BY q.lane LIMIT 1)
    UNION ALL
    SELECT (SELECT q.lane FROM rowmill.queue q
             WHERE q.state = 'ready' AND q.lane > l.lane ORDER BY q.lane LIMIT 1)
      FROM lanes l WHERE l.lane IS NOT NULL
), others AS MATERIALIZED (
    SELECT l.lane FROM (SELECT lane FROM lanes WHERE lane IS NOT NULL LIMIT 500) l
     WHERE l.lane NOT IN (SELECT k.lane FROM known k)
), counted AS (
    SELECT k.lane, s.id AS source, 'ready' AS state, n.count, o.oldest
      FROM known k
     CROSS JOIN sources s
     CROSS JOIN LATERAL (
           SELECT count(*) AS count
             FROM (SELECT FROM rowmill.queue q
                    WHERE q.state = 'ready' AND q.lane = k.lane AND q.source = s.id LIMIT $1) part
           ) n
     CROSS JOIN LATERAL (
           SELECT min((SELECT q.ready_at FROM rowmill.queue q
                        WHERE q.state = 'ready' AND q.lane = k.lane AND q.source = s.id
                          AND q.rank = r.rank
                        ORDER BY q.ready_at LIMIT 1)) AS oldest
             FROM generate_series(1, 20) AS r (rank) WHERE n.count > 0
           ) o
    UNION ALL
    SELECT '', part.source, 'ready', count(*), min(part.ready_at)
      FROM (SELECT q.source, q.ready_at FROM others o
             CROSS JOIN LATERAL (
                   SELECT q.source, q.ready_at FROM rowmill.queue q
                    WHERE q.state = 'ready' AND q.lane = o.lane
                    ORDER BY q.lane, q.source, q.rank, q.ready_at LIMIT $1) q
             LIMIT $1) part
     GROUP BY part.source
    UNION ALL
    SELECT coalesce(k.lane, ''), part.source, 'scheduled', count(*), NULL
      FROM (SELECT q.lane, q.source FROM rowmill.queue q
             WHERE q.state = 'scheduled' ORDER BY q.ready_at LIMIT $1) part
      LEFT JOIN known k USING (lane)
     GROUP BY 1, 2
    UNION ALL
    SELECT coalesce(k.lane, ''), part.source, 'running', count(*), NULL
      FROM (SELECT q.lane, q.source FROM rowmill.queue q
             WHERE q.state = 'claimed' ORDER BY q.worker LIMIT $1) part
      LEFT JOIN known k USING (lane)
     GROUP BY 1, 2
    UNION ALL
    SELECT coalesce(k.lane, ''), part.source, 'held', count(*), NULL
      FROM (SELECT q.lane, q.source FROM rowmill.queue q
             WHERE q.state = 'held' ORDER BY q.lane LIMIT $1) part
      LEFT JOIN known k USING (lane)
     GROUP BY 1, 2
)
SELECT c.lane, s.name AS source, c.state, c.count,
       extract(epoch FROM clock_timestamp() - c.oldest)::double precision AS oldest_wait_s
  FROM counted c JOIN sources s ON s.id = c.source
 WHERE c.count > 0
