-- What jobs of one table ($1) and lane ($2) cost that were delivered lately: each step of the latest jobs,
-- at most 200 of them, among the ledger's latest 20,000 calls. Jobs whose cost isn't known are left out.
WITH recent AS MATERIALIZED (
    SELECT u.row_key, u.run, u.step, u.state, u.cost_cents, u.delivered_at, u.id
      FROM rowmill.submissions u
     WHERE u.id > (SELECT max(m.id) FROM rowmill.submissions m) - 20000
       AND u.source = $1 AND u.lane = $2
), job AS (
    SELECT r.row_key, r.run
      FROM recent r
     GROUP BY r.row_key, r.run
    HAVING bool_or(r.state = 'finished' AND r.delivered_at IS NOT NULL)
       AND bool_and(r.cost_cents IS NOT NULL OR r.state NOT IN ('finished', 'accepted', 'intent', 'unknown'))
     ORDER BY max(r.id) DESC LIMIT 200
)
SELECT r.row_key AS key, r.run, r.step, coalesce(sum(r.cost_cents), 0) AS cents
  FROM job JOIN recent r USING (row_key, run)
 GROUP BY r.row_key, r.run, r.step
