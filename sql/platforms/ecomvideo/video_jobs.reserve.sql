-- A video takes the credits that its row says, at least one: of those that expire first, from as many
-- rows as it needs. The application may hold a user's rows for a moment: then they are asked again.
--
-- Whoever is the first of a user not to fit is refused; those behind are asked again without it, as
-- they may need less.
WITH asked AS MATERIALIZED (
  SELECT
    intent.row_id,
    intent.tenant::uuid AS user_id,
    intent.position,
    job.credits,
    sum(job.credits) OVER (PARTITION BY intent.tenant ORDER BY intent.position) AS upto
  FROM intent
  CROSS JOIN LATERAL (
    SELECT CASE
      WHEN lower(replace(one.job_type, '_', '')) <> 'generatevideo' THEN 0
      ELSE greatest(coalesce((
        SELECT video.generation_cost_credits
        FROM public.videos AS video
        WHERE video.id = rowmill.said_id(one.job_data, 'video_id')
        LIMIT 1
      ), 0), 1)
    END AS credits
    FROM public.background_jobs AS one
    WHERE one.id = intent.row_id
    LIMIT 1
  ) AS job
), usable AS MATERIALIZED (
  SELECT credit.id, credit.user_id
  FROM (SELECT DISTINCT asked.user_id FROM asked WHERE asked.credits > 0) AS customer
  CROSS JOIN LATERAL (
    SELECT one.id, one.user_id
    FROM public.usage_credits AS one
    WHERE one.user_id = customer.user_id
      AND one.credit_type = 'VideoGeneration'
      AND coalesce(one.is_active, true)
      AND coalesce(one.expires_at > now() AT TIME ZONE 'UTC', true)
      AND one.amount > coalesce(one.used_amount, 0)
    OFFSET 0
  ) AS credit
), locked AS MATERIALIZED (
  SELECT
    credit.id,
    credit.user_id,
    credit.expires_at,
    greatest(credit.amount - coalesce(credit.used_amount, 0), 0) AS free
  FROM public.usage_credits AS credit
  WHERE credit.id = ANY(ARRAY(SELECT usable.id FROM usable))
    -- Once more, of the row as it is once it is locked: it may just have been changed. (IS TRUE: not by
    -- the index of types, which has everyone's.)
    AND (credit.credit_type = 'VideoGeneration') IS TRUE
    AND coalesce(credit.is_active, true)
    AND coalesce(credit.expires_at > now() AT TIME ZONE 'UTC', true)
  ORDER BY credit.id
  FOR NO KEY UPDATE SKIP LOCKED
), pot AS MATERIALIZED (
  SELECT
    locked.id,
    locked.user_id,
    sum(locked.free) OVER by_expiry - locked.free AS after,
    sum(locked.free) OVER by_expiry AS upto
  FROM locked
  WINDOW by_expiry AS (PARTITION BY locked.user_id ORDER BY locked.expires_at NULLS LAST, locked.id)
), answer AS MATERIALIZED (
  SELECT
    asked.row_id,
    asked.user_id,
    asked.credits,
    asked.upto - asked.credits AS after,
    asked.upto,
    held.free,
    CASE
      WHEN asked.credits = 0 THEN 'ok'
      WHEN asked.user_id IS NULL THEN 'refused'
      WHEN held.others THEN 'busy'
      WHEN asked.upto <= held.free THEN 'ok'
      WHEN asked.upto - asked.credits <= held.free THEN 'refused'
      ELSE 'busy'
    END AS verdict
  FROM asked
  CROSS JOIN LATERAL (
    SELECT
      coalesce((SELECT max(pot.upto) FROM pot WHERE pot.user_id = asked.user_id), 0) AS free,
      EXISTS (
        SELECT FROM usable
        WHERE usable.user_id = asked.user_id
          AND usable.id NOT IN (SELECT locked.id FROM locked)
      ) AS others
  ) AS held
), part AS MATERIALIZED (
  SELECT
    answer.row_id,
    pot.id AS credit,
    least(answer.upto, pot.upto) - greatest(answer.after, pot.after) AS used
  FROM answer
  JOIN pot ON pot.user_id = answer.user_id AND pot.after < answer.upto AND pot.upto > answer.after
  WHERE answer.verdict = 'ok' AND answer.credits > 0
), spent AS (
  UPDATE public.usage_credits AS credit
  SET used_amount = coalesce(credit.used_amount, 0) + taken.used,
      updated_at = now() AT TIME ZONE 'UTC',
      updated_by = 'rowmill'
  FROM (SELECT part.credit, sum(part.used) AS used FROM part GROUP BY part.credit) AS taken
  WHERE credit.id = taken.credit
    AND credit.id = ANY(ARRAY(SELECT part.credit FROM part))
)
SELECT
  answer.row_id AS key,
  answer.verdict,
  CASE
    WHEN answer.user_id IS NULL THEN 'nobody can be charged: the payload names no video and no user'
    ELSE format(
      'not enough video credits: %s needed, %s left', answer.credits, greatest(answer.free - answer.after, 0)
    )
  END AS message,
  answer.credits AS amount,
  (
    SELECT jsonb_agg(jsonb_build_object('credit', part.credit, 'used', part.used))
    FROM part WHERE part.row_id = answer.row_id
  ) AS taken
FROM answer;
