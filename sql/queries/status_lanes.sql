-- One row per lane and source that has work, or had some lately.
-- The histograms are summed element by element: worker/store/reports.py writes {waits} and {runs}.
WITH done AS (
    SELECT p.lane, p.source,
           coalesce(sum(p.succeeded + p.failed)
               FILTER (WHERE p.at > clock_timestamp() - interval '1 minute'), 0)::bigint AS per_minute_out,
           {waits} AS waits,
           {runs} AS runs
      FROM rowmill.pulses p
     WHERE p.at > clock_timestamp() - interval '1 hour'
     GROUP BY p.lane, p.source
), failed AS (
    SELECT f.lane, f.source, count(*) AS failed
      FROM rowmill.failures f
     WHERE f.final AND f.at > clock_timestamp() - interval '1 hour'
     GROUP BY f.lane, f.source
), spent AS (
    SELECT u.lane, u.source, sum(u.cost_cents) AS cents
      FROM rowmill.submissions u
     WHERE u.intended_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
     GROUP BY u.lane, u.source
), backlog AS (
    SELECT * FROM rowmill.backlog
)
SELECT lane, source, coalesce(b.ready, 0) AS ready, coalesce(b.scheduled, 0) AS scheduled,
       coalesce(b.running, 0) AS running, coalesce(b.held, 0) AS held,
       coalesce(f.failed, 0) AS failed_last_hour,
       extract(epoch FROM greatest(b.oldest_wait, interval '0'))::double precision AS oldest_wait_s,
       coalesce(d.per_minute_out, 0) AS per_minute_out, d.waits, d.runs,
       coalesce(s.cents, 0)::text AS spend_cents_today
  FROM backlog b
  FULL JOIN done d USING (lane, source)
  FULL JOIN failed f USING (lane, source)
  FULL JOIN spent s USING (lane, source)
 ORDER BY lane, source
