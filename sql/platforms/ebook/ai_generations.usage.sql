-- What the customer used: tokens. What they will be charged for them is the platform's to say, so
-- the costs are our own, in dollars, rounded half to even.
INSERT INTO billing.usage_records (
    user_id, subscription_id, resource_type, quantity, unit_cost, total_cost,
    project_id, ai_generation_id, usage_date
)
SELECT
    job.user_id,
    subscription.id,
    'ai_tokens',
    coalesce(result.tokens, 0),
    CASE
        WHEN per_token.micros % 1 = 0.5 THEN trunc(per_token.micros) + trunc(per_token.micros) % 2
        ELSE round(per_token.micros)
    END / 1000000,
    CASE
        WHEN cost.cents % 1 = 0.5 THEN trunc(cost.cents) + trunc(cost.cents) % 2
        ELSE round(cost.cents)
    END / 100,
    job.project_id,
    job.id,
    (now() AT TIME ZONE 'UTC')::date
FROM result
JOIN ai_processing.ai_generations AS job
    ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
CROSS JOIN LATERAL (SELECT coalesce(result.cost_cents, 0)) AS cost(cents)
CROSS JOIN LATERAL (SELECT cost.cents * 10000 / nullif(result.tokens, 0)) AS per_token(micros)
LEFT JOIN LATERAL (
    SELECT held.id
    FROM billing.user_subscriptions AS held
    WHERE held.user_id = job.user_id
        AND coalesce(held.status, 'active') = 'active'
        AND held.current_period_end > now()
    ORDER BY held.created_at DESC NULLS LAST, held.id DESC
    LIMIT 1
) AS subscription ON true;
