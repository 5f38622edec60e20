-- priority_support: a customer whose plan has it comes before others of the same priority, and never
-- before the next higher one (priorities lie two ranks apart). Whose plan is whose: as in reserve.sql.
SELECT job.id AS key, 1 AS bonus
FROM public.generation_jobs AS job
LEFT JOIN public.user_subscriptions AS subscription
  ON subscription.user_id = job.user_id
  AND subscription.status = 'active'
  AND subscription.current_period_end > now()
JOIN public.subscription_plans AS plan ON plan.id = coalesce(subscription.plan_id, 'free')
WHERE job.id = ANY(rowmill_keys)
  AND plan.features @> '["priority_support"]';
