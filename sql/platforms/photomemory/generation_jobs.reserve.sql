-- A video needs room in its customer's plan (max_videos_per_month): what was made this month, which
-- is what usage_records say, and what is being made. Thumbnails, previews and audio need none.
-- As in check_user_limit: without an active subscription it is the free plan, whose number the
-- setting free_plan_limits has, if it has one; -1 and NULL are unlimited; months are UTC's.
WITH asked AS MATERIALIZED (
  SELECT
    intent.row_id,
    job.user_id,
    intent.reserved,
    (job.job_type = 'video')::integer AS videos,
    -- Each takes one, so those that find no room are the last of their customer.
    sum((job.job_type = 'video')::integer)
      OVER (PARTITION BY job.user_id ORDER BY intent.position) AS number
  FROM intent
  CROSS JOIN LATERAL (
    SELECT video.user_id, video.job_type
    FROM public.generation_jobs AS video
    WHERE video.id = intent.row_id
    LIMIT 1
  ) AS job
), customer AS MATERIALIZED (
  SELECT
    limited.user_id,
    limited.plan,
    limited.most,
    CASE WHEN limited.most >= 0 THEN (
      SELECT coalesce(sum(used.quantity), 0)
      FROM public.usage_records AS used
      WHERE used.user_id = limited.user_id
        AND used.billing_period = date_trunc('month', now() AT TIME ZONE 'UTC')::date
        AND used.resource_type = 'video_generation'
        AND used.resource_subtype = 'video_generation.video'
    ) END AS made
  FROM (
    SELECT
      someone.user_id,
      coalesce(plan.name, 'without a plan') AS plan,
      coalesce(
        CASE WHEN coalesce(subscription.plan_id, 'free') = 'free' THEN setting.videos END,
        CASE WHEN plan.id IS NULL THEN 0 ELSE coalesce(plan.max_videos_per_month, -1) END
      ) AS most
    FROM (SELECT DISTINCT asked.user_id FROM asked WHERE asked.videos > 0) AS someone
    LEFT JOIN public.user_subscriptions AS subscription
      ON subscription.user_id = someone.user_id
      AND subscription.status = 'active'
      AND subscription.current_period_end > now()
    LEFT JOIN public.subscription_plans AS plan ON plan.id = coalesce(subscription.plan_id, 'free')
    LEFT JOIN (
      SELECT (value ->> 'videos_per_month')::numeric AS videos
      FROM public.system_settings
      WHERE key = 'free_plan_limits' AND jsonb_typeof(value -> 'videos_per_month') = 'number'
    ) AS setting ON true
  ) AS limited
)
SELECT
  asked.row_id AS key,
  CASE
    WHEN asked.videos = 0 OR customer.most = -1
      OR customer.made + asked.reserved + asked.number <= customer.most
    THEN 'ok'
    ELSE 'refused'
  END AS verdict,
  format(
    'the plan''s limit is reached: %s, %s videos a month; %s made, %s being made',
    customer.plan, trim_scale(customer.most), trim_scale(customer.made), trim_scale(asked.reserved)
  ) AS message,
  asked.videos AS amount,
  NULL::jsonb AS taken
FROM asked
LEFT JOIN customer ON customer.user_id = asked.user_id;
