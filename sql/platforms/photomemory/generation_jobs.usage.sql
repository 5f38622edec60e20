-- What the customer used: one generation. What they will be charged for it is the platform's to
-- say, so cost_cents is our own cost, rounded half to even.
INSERT INTO public.usage_records (
  user_id, subscription_id, resource_type, resource_subtype, quantity, unit, cost_cents,
  billing_period, project_id, generation_job_id, metadata
)
SELECT
  job.user_id,
  subscription.id,
  'video_generation',
  'video_generation.' || job.job_type,
  1,
  'count',
  CASE
    WHEN cost.cents % 1 = 0.5 THEN trunc(cost.cents) + trunc(cost.cents) % 2
    ELSE round(cost.cents)
  END,
  date_trunc('month', now() AT TIME ZONE 'UTC')::date,
  job.project_id,
  job.id,
  jsonb_strip_nulls(jsonb_build_object(
    'provider', result.provider,
    'model', result.model,
    'run', result.run
  ))
FROM result
JOIN public.generation_jobs AS job ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
CROSS JOIN LATERAL (SELECT coalesce(result.cost_cents, 0)) AS cost(cents)
LEFT JOIN public.user_subscriptions AS subscription
  ON subscription.user_id = job.user_id
  AND subscription.status = 'active'
  AND subscription.current_period_end > now();
