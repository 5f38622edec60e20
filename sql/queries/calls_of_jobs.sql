-- What the ledger has of jobs of one table ($1) by their keys ($2): of each one's latest run, and which
-- calls are in doubt, of any run. Jobs without calls aren't told. An aggregate for each job stays a
-- probe of the ledger's index, in every plan.
SELECT j.key, l.*, d.doubts, d.doubt_steps, d.doubt_providers, d.doubt_cents
  FROM unnest($2::text[]) AS j (key)
 CROSS JOIN LATERAL (
    SELECT u.run,
           array_agg(u.step) FILTER (WHERE u.state NOT IN ('failed', 'cancelled', 'written_off')) AS steps,
           count(*) FILTER (WHERE u.state IN ('intent', 'unknown')) AS in_doubt,
           coalesce(sum(u.estimate_cents) FILTER (WHERE u.state IN ('intent', 'unknown')), 0) AS in_doubt_cents,
           count(*) FILTER (WHERE u.state = 'accepted') AS open,
           coalesce(sum(u.estimate_cents) FILTER (WHERE u.state = 'accepted'), 0) AS open_cents,
           count(*) FILTER (WHERE u.state = 'finished' AND u.delivered_at IS NULL) AS undelivered,
           coalesce(sum(coalesce(u.cost_cents, u.estimate_cents))
                    FILTER (WHERE u.state = 'finished' AND u.delivered_at IS NULL), 0) AS undelivered_cents
      FROM rowmill.submissions u
     WHERE u.source = $1 AND u.row_key = j.key
     GROUP BY u.run ORDER BY u.run DESC LIMIT 1) l
 CROSS JOIN LATERAL (
    SELECT array_agg(u.id::text ORDER BY u.id) AS doubts,
           array_agg(u.step) AS doubt_steps, array_agg(u.provider) AS doubt_providers,
           coalesce(sum(u.estimate_cents), 0) AS doubt_cents
      FROM rowmill.submissions u
     WHERE u.source = $1 AND u.row_key = j.key
       AND (u.state IN ('intent', 'unknown') OR (u.state = 'accepted' AND u.ref IS NULL))) d
