-- A generation needs room in the tokens that its customer's plan includes in a month (of UTC): what
-- was used, which is what usage_records say, and what is expected of those that run.
-- The plan is that of the active subscription; without one, the plan named like the customer's tier.
-- Where there is none of these, or it names no number, nothing limits tokens.
--
-- What a generation needs is estimated as its price is: a token per four characters asked, and the
-- answer as long as it may be, or of 500 tokens where nothing says.
--
-- Its cost must be below 1000 dollars, or its row can't hold it: what will be more at its model's
-- prices isn't bought.
WITH RECURSIVE asked AS MATERIALIZED (
  SELECT
    intent.row_id,
    job.user_id,
    intent.reserved,
    job.tokens_in + job.tokens_out AS tokens,
    coalesce(job.tokens_in * price.input + job.tokens_out * price.output, 0) AS dollars,
    row_number() OVER (PARTITION BY job.user_id ORDER BY intent.position) AS number
  FROM intent
  CROSS JOIN LATERAL (
    SELECT
      generation.user_id,
      generation.model_id,
      (length(generation.prompt) + coalesce(length(generation.system_prompt), 0)) / 4 AS tokens_in,
      coalesce(generation.max_tokens, 500)::bigint AS tokens_out
    FROM ai_processing.ai_generations AS generation
    WHERE generation.id = intent.row_id
    LIMIT 1
  ) AS job
  LEFT JOIN LATERAL (
    SELECT
      coalesce(model.cost_per_input_token, provider.cost_per_token) AS input,
      coalesce(model.cost_per_output_token, provider.cost_per_token) AS output
    FROM ai_processing.ai_models AS model
    JOIN ai_processing.ai_providers AS provider ON provider.id = model.provider_id
    WHERE model.id = job.model_id
  ) AS price ON true
), customer AS MATERIALIZED (
  SELECT
    limited.user_id,
    limited.plan,
    limited.included,
    CASE WHEN limited.included >= 0 THEN (
      SELECT coalesce(sum(used.quantity), 0)
      FROM billing.usage_records AS used
      WHERE used.user_id = limited.user_id
        AND used.usage_date >= date_trunc('month', now() AT TIME ZONE 'UTC')::date
        AND used.resource_type = 'ai_tokens'
    ) END AS used
  FROM (
    SELECT someone.user_id, plan.name AS plan, plan.ai_tokens_included AS included
    FROM (SELECT DISTINCT asked.user_id FROM asked) AS someone
    JOIN users.users AS account ON account.id = someone.user_id
    LEFT JOIN LATERAL (
      SELECT held.plan_id
      FROM billing.user_subscriptions AS held
      WHERE held.user_id = someone.user_id
        AND coalesce(held.status, 'active') = 'active'
        AND held.current_period_end > now()
      ORDER BY held.created_at DESC NULLS LAST, held.id DESC
      LIMIT 1
    ) AS subscription ON true
    LEFT JOIN LATERAL (
      SELECT offered.name, offered.ai_tokens_included
      FROM billing.subscription_plans AS offered
      WHERE CASE
        WHEN subscription.plan_id IS NULL
        THEN lower(offered.name) = account.tier AND coalesce(offered.status, 'active') = 'active'
        ELSE offered.id = subscription.plan_id
      END
      ORDER BY offered.created_at DESC NULLS LAST, offered.id DESC
      LIMIT 1
    ) AS plan ON true
  ) AS limited
), -- One after the other: a long one that doesn't fit leaves its room to a shorter one.
granted AS (
  SELECT asked.row_id, asked.user_id, asked.number, asked.tokens, asked.dollars, fits.yes,
    free.tokens - CASE WHEN fits.yes THEN asked.tokens ELSE 0 END AS tokens_left
  FROM asked
  JOIN customer ON customer.user_id = asked.user_id
  CROSS JOIN LATERAL (
    SELECT customer.included - customer.used - asked.reserved AS tokens
  ) AS free
  CROSS JOIN LATERAL (
    SELECT asked.dollars < 1000 AND coalesce(asked.tokens <= free.tokens, true) AS yes
  ) AS fits
  WHERE asked.number = 1
  UNION ALL
  SELECT asked.row_id, asked.user_id, asked.number, asked.tokens, asked.dollars, fits.yes,
    granted.tokens_left - CASE WHEN fits.yes THEN asked.tokens ELSE 0 END
  FROM granted
  JOIN asked ON asked.user_id = granted.user_id AND asked.number = granted.number + 1
  CROSS JOIN LATERAL (
    SELECT asked.dollars < 1000 AND coalesce(asked.tokens <= granted.tokens_left, true) AS yes
  ) AS fits
)
SELECT
  granted.row_id AS key,
  CASE WHEN granted.yes THEN 'ok' ELSE 'refused' END AS verdict,
  CASE WHEN granted.dollars < 1000 THEN format(
    'the plan''s tokens are used up: %s, %s a month; %s are left, and this needs about %s',
    customer.plan, customer.included, greatest(trim_scale(granted.tokens_left), 0), granted.tokens
  ) ELSE format(
    'it would cost about %s dollars at its model''s prices, and a generation must cost less than 1000',
    round(granted.dollars)
  ) END AS message,
  granted.tokens AS amount,
  NULL::jsonb AS taken
FROM granted
JOIN customer ON customer.user_id = granted.user_id;
