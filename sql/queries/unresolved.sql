-- Calls that may have been paid and that no job looks after any more. Their worker had a lease's
-- time to say what became of them; a worker that was cleaned up is long gone.
SELECT u.source || '/' || u.row_key AS job, u.provider, u.step, u.state::text AS state,
       u.estimate_cents::text AS estimate_cents, u.intended_at
  FROM rowmill.submissions u
  LEFT JOIN rowmill.workers w ON w.id = u.worker
 WHERE u.state IN ('intent', 'unknown')
   AND u.intended_at < clock_timestamp() - coalesce(w.lease, interval '1 minute')
   AND NOT EXISTS (SELECT FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source
                    WHERE s.name = u.source AND q.row_key = u.row_key)
 ORDER BY u.intended_at
