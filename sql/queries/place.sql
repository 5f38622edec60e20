-- How many ready jobs of the same lane are taken before this one: strict order is rank, then ready
-- time, then id, over all tables of the lane.
SELECT (SELECT count(*) FROM rowmill.queue o
         WHERE o.state = 'ready' AND o.lane = q.lane
           AND (o.rank > q.rank
                OR (o.rank = q.rank AND (o.ready_at, o.id) < (q.ready_at, q.id)))) AS ahead
  FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
 WHERE s.name = $1 AND q.row_key = $2 AND q.state = 'ready'
