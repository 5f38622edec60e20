-- What in this database the rules can't work with. Catalogs only: it runs where anything may be missing.
SELECT 'refuse' AS severity, format('%s has no column %s, which the rules read or write', need.relation, lacks.field) AS message
FROM (
  VALUES
    ('public.background_jobs', 'job_type job_data status priority scheduled_at created_at started_at'),
    ('public.videos', 'user_id template_id product_data_id title status video_url thumbnail_url image_url'),
    ('public.videos', 'freepik_task_id freepik_image_task_id completed_at error_message file_size_bytes'),
    ('public.videos', 'duration_seconds metadata ai_provider generation_cost_credits updated_at updated_by'),
    ('public.video_templates', 'usage_count'),
    ('public.users', 'email first_name is_active'),
    ('public.user_preferences', 'user_id auto_generate_thumbnails'),
    ('public.notification_settings', 'user_id video_completed video_failed'),
    ('public.user_subscriptions', 'user_id subscription_plan_id status ends_at trial_ends_at'),
    ('public.subscription_plans', 'name max_video_duration max_resolution ai_providers features'),
    ('public.usage_credits', 'user_id credit_type amount used_amount expires_at is_active updated_at updated_by'),
    ('public.product_data', 'user_id original_url name main_image_url scraping_status scraped_at error_message'),
    ('public.product_images', 'product_data_id url alt_text is_primary sort_order'),
    ('public.scraping_rules', 'domain platform selectors headers delay_ms is_active')
) AS need(relation, fields)
CROSS JOIN LATERAL string_to_table(need.fields, ' ') AS lacks(field)
WHERE NOT EXISTS (
  SELECT FROM pg_catalog.pg_attribute AS live
  WHERE live.attrelid = to_regclass(need.relation)
    AND live.attname = lacks.field AND live.attnum > 0 AND NOT live.attisdropped
)
UNION ALL
SELECT 'refuse', format('%s.%s is %s: the rules need jsonb (ALTER TABLE … ALTER COLUMN … TYPE jsonb)',
  need.relation, need.field, format_type(live.atttypid, NULL))
FROM (
  VALUES ('public.background_jobs', 'job_data'), ('public.videos', 'metadata')
) AS need(relation, field)
JOIN pg_catalog.pg_attribute AS live
  ON live.attrelid = to_regclass(need.relation) AND live.attname = need.field
WHERE live.atttypid <> 'jsonb'::regtype
UNION ALL
-- The rules look rows up by these, for each job: without an index they read whole tables.
SELECT 'warn', format('%s has no index that begins with %s: every job reads the whole table. CREATE INDEX CONCURRENTLY ON %s (%s)',
  need.relation, need.field, need.relation, need.field)
FROM (
  VALUES
    ('public.usage_credits', 'user_id'),
    ('public.user_subscriptions', 'user_id'),
    ('public.user_preferences', 'user_id'),
    ('public.notification_settings', 'user_id'),
    ('public.product_images', 'product_data_id'),
    ('public.product_data', 'original_url'),
    ('public.scraping_rules', 'domain'),
    ('public.videos', 'freepik_task_id'),
    ('public.videos', 'freepik_image_task_id')
) AS need(relation, field)
WHERE to_regclass(need.relation) IS NOT NULL
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index AS live
    JOIN pg_catalog.pg_attribute AS part
      ON part.attrelid = live.indrelid AND part.attnum = live.indkey[0]
    WHERE live.indrelid = to_regclass(need.relation) AND part.attname = need.field AND live.indisvalid
  );
