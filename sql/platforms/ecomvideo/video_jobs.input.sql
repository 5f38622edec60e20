-- What a job is about, as far as its payload names it: the same shape for all kinds, null where there
-- is nothing. A payload may be anything: what is no object names nothing, what is no UUID is null, and
-- the handler says so.
SELECT
  job.id AS key,
  jsonb_build_object(
    'payload', job.job_data,
    'user', account.is,
    'preferences', coalesce(preferences.are, '{}'),
    'notifications', coalesce(notifications.are, '{}'),
    'plan', plan.is,
    'video', video.is,
    'video_url', coalesce(rowmill.said(job.job_data, 'video_url'), video.is ->> 'video_url'),
    'template', template.is,
    'product', product.is,
    'rule', rule.is,
    'signature', 'Your EcomVideo team',
    -- What was begun goes on, whatever the plan says by now, and with whom it was begun.
    'made_by', coalesce(paid.made_by, '{}'),
    -- It had failed, and runs again for what its provider finished late: nothing more is bought for a
    -- video that another job has completed meanwhile. (Its status says already that this one runs.)
    'overtaken', ended.id IS NOT NULL AND NOT coalesce(paid.made_by ? 'video', false)
      AND video.is ->> 'video_url' IS NOT NULL AND coalesce(video.completed_at >= job.created_at, false)
  ) AS input
FROM (
  SELECT
    named.id,
    named.job_data,
    named.created_at,
    rowmill.said_id(named.job_data, 'video_id') AS video_id,
    rowmill.said_id(named.job_data, 'product_data_id') AS product_id,
    rowmill.said_id(named.job_data, 'user_id') AS user_id,
    coalesce(
      nullif(rowmill.said(named.job_data, 'url'), ''), rowmill.said(named.job_data, 'product_url')
    ) AS url
  FROM public.background_jobs AS named
  WHERE named.id = ANY(rowmill_keys)
  OFFSET 0
) AS job
LEFT JOIN LATERAL (
  SELECT one.user_id, one.template_id, one.product_data_id, one.completed_at, to_jsonb(one) AS is
  FROM public.videos AS one
  WHERE one.id = job.video_id
  LIMIT 1
) AS video ON true
LEFT JOIN LATERAL (
  SELECT
    one.user_id,
    one.original_url,
    to_jsonb(one) || jsonb_build_object('images', coalesce((
      SELECT jsonb_agg(
        jsonb_build_object(
          'url', image.url, 'alt_text', image.alt_text, 'is_primary', coalesce(image.is_primary, false)
        )
        ORDER BY image.sort_order, image.created_at, image.id
      )
      FROM public.product_images AS image
      WHERE image.product_data_id = one.id
    ), '[]')) AS is
  FROM public.product_data AS one
  WHERE one.id = coalesce(job.product_id, video.product_data_id)
  LIMIT 1
) AS product ON true
LEFT JOIN LATERAL (
  SELECT
    one.id,
    jsonb_build_object(
      'id', one.id,
      'email', one.email,
      'first_name', one.first_name,
      'is_active', coalesce(one.is_active, true)
    ) AS is
  FROM public.users AS one
  WHERE one.id = coalesce(video.user_id, product.user_id, job.user_id)
  LIMIT 1
) AS account ON true
LEFT JOIN LATERAL (
  SELECT to_jsonb(one) AS are
  FROM public.user_preferences AS one
  WHERE one.user_id = account.id
  LIMIT 1
) AS preferences ON true
LEFT JOIN LATERAL (
  SELECT to_jsonb(one) AS are
  FROM public.notification_settings AS one
  WHERE one.user_id = account.id
  LIMIT 1
) AS notifications ON true
LEFT JOIN LATERAL (
  SELECT jsonb_build_object(
    'name', chosen.name,
    'max_video_duration', chosen.max_video_duration,
    'max_resolution', chosen.max_resolution,
    'ai_providers', chosen.ai_providers,
    'features', chosen.features
  ) AS is
  FROM public.user_subscriptions AS subscription
  CROSS JOIN LATERAL (
    SELECT * FROM public.subscription_plans AS one
    WHERE one.id = subscription.subscription_plan_id
    LIMIT 1
  ) AS chosen
  WHERE subscription.user_id = account.id
    AND subscription.status IN ('Active', 'Trial')
    AND subscription.ends_at > now() AT TIME ZONE 'UTC'
    AND (subscription.status = 'Active' OR subscription.trial_ends_at IS NULL
      OR subscription.trial_ends_at > now() AT TIME ZONE 'UTC')
  ORDER BY subscription.ends_at DESC
  LIMIT 1
) AS plan ON true
LEFT JOIN LATERAL (
  SELECT to_jsonb(one) AS is FROM public.video_templates AS one
  WHERE one.id = video.template_id
  LIMIT 1
) AS template ON true
-- The longest domain that the address is at or below: shop.example.com goes by example.com's rule
-- where it has none of its own. A dot at the end names the same host. What is longer than a host may
-- be is none, and would have too many parts to look them all up.
LEFT JOIN LATERAL (
  SELECT CASE WHEN length(named.host) <= 253 THEN string_to_array(named.host, '.') END AS labels
  FROM (
    SELECT rtrim(lower(substring(
      coalesce(nullif(job.url, ''), product.original_url)
      from '^\s*[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:@]+)'
    )), '.') AS host
  ) AS named
) AS host ON true
LEFT JOIN LATERAL (
  SELECT jsonb_build_object(
    'domain', one.domain,
    'platform', one.platform,
    'selectors', one.selectors,
    'headers', one.headers,
    'delay_ms', one.delay_ms,
    'is_active', coalesce(one.is_active, true)
  ) AS is
  FROM public.scraping_rules AS one
  WHERE one.domain = ANY(ARRAY(
    SELECT array_to_string(host.labels[part:], '.')
    FROM generate_subscripts(host.labels, 1) AS part
  ))
  ORDER BY length(one.domain) DESC
  LIMIT 1
) AS rule ON true
LEFT JOIN LATERAL (
  SELECT waiting.run
  FROM rowmill.queue AS waiting
  WHERE waiting.source = (SELECT one.id FROM rowmill.sources AS one WHERE one.name = 'video_jobs')
    AND waiting.row_key = job.id::text
  LIMIT 1
) AS claim ON true
LEFT JOIN LATERAL (
  SELECT one.id
  FROM rowmill.failures AS one
  WHERE one.source = 'video_jobs' AND one.row_key = job.id::text AND one.run = claim.run AND one.final
  LIMIT 1
) AS ended ON true
LEFT JOIN LATERAL (
  SELECT jsonb_object_agg(one.step, one.provider) AS made_by
  FROM (
    SELECT made.step, made.provider
    FROM rowmill.submissions AS made
    WHERE made.source = 'video_jobs' AND made.row_key = job.id::text AND made.run = claim.run
      AND made.state NOT IN ('failed', 'cancelled', 'written_off')
    OFFSET 0
  ) AS one
) AS paid ON true;
