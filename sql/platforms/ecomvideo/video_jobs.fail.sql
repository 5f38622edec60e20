-- A video whose job failed or was cancelled, for good; and the notice of a failure, where its user
-- wants it. What the user cancelled stays cancelled, and what another job of the same video completed
-- meanwhile stays complete (for a job that never began: at any time): then nothing is told. No `kind`
-- is asked for: an operator's word has none.
WITH ended AS MATERIALIZED (
  SELECT
    job.id,
    job.video_id,
    job.job_data,
    job.priority,
    job.created_at,
    job.started_at,
    result.verb,
    left(result.error, 2000) AS error
  FROM result
  JOIN (
    SELECT
      named.id,
      named.job_data,
      named.priority,
      named.created_at,
      named.started_at,
      rowmill.said_id(named.job_data, 'video_id') AS video_id
    FROM public.background_jobs AS named
    WHERE named.id = ANY(rowmill_keys)
      AND lower(replace(named.job_type, '_', '')) = 'generatevideo'
    OFFSET 0
  ) AS job ON job.id = result.row_id
), video AS MATERIALIZED (
  SELECT one.id, one.user_id, one.title, one.status, one.video_url, one.completed_at
  FROM public.videos AS one
  WHERE one.id = ANY(ARRAY(SELECT ended.video_id FROM ended))
  ORDER BY one.id
  FOR NO KEY UPDATE
), outcome AS MATERIALIZED (
  SELECT
    ended.*,
    video.user_id,
    video.title,
    CASE
      WHEN video.status = 'Cancelled' THEN 'Cancelled'
      WHEN video.video_url IS NOT NULL AND (
        video.completed_at >= ended.created_at
        OR (ended.started_at IS NULL AND video.status = 'Completed')
      ) THEN 'Completed'
      WHEN ended.verb = 'cancel' THEN 'Cancelled'
      ELSE 'Failed'
    END AS status
  FROM ended
  JOIN video ON video.id = ended.video_id
), written AS (
  UPDATE public.videos AS stored
  SET status = last.status,
      error_message = CASE last.status WHEN 'Completed' THEN NULL ELSE last.error END,
      updated_at = clock_timestamp() AT TIME ZONE 'UTC',
      updated_by = 'rowmill'
  FROM (
    SELECT DISTINCT ON (outcome.video_id) outcome.*
    FROM outcome
    ORDER BY outcome.video_id, outcome.started_at DESC NULLS LAST, outcome.id
  ) AS last
  WHERE stored.id = last.video_id
    AND stored.id = ANY(ARRAY(SELECT video.id FROM video))
    AND stored.status <> 'Cancelled'
)
INSERT INTO public.background_jobs (job_type, job_data, status, priority, scheduled_at, created_at)
SELECT
  'send_notification',
  jsonb_strip_nulls(jsonb_build_object(
    'type', 'VideoFailed',
    'video_id', outcome.video_id,
    'user_id', outcome.user_id,
    'webhook_url', nullif(rowmill.said(outcome.job_data, 'webhook_url'), ''),
    'webhook_secret', nullif(rowmill.said(outcome.job_data, 'webhook_secret'), ''),
    'data', jsonb_build_object(
      'video_id', outcome.video_id, 'status', 'Failed', 'title', outcome.title, 'error', outcome.error
    )
  )),
  'Pending',
  coalesce(outcome.priority, 0),
  now() AT TIME ZONE 'UTC',
  now() AT TIME ZONE 'UTC'
FROM outcome
WHERE outcome.status = 'Failed'
  AND coalesce((
    SELECT one.video_failed
    FROM public.notification_settings AS one WHERE one.user_id = outcome.user_id LIMIT 1
  ), true)
  -- Who may not use the service isn't written to, either.
  AND (
    SELECT coalesce(one.is_active, true) FROM public.users AS one WHERE one.id = outcome.user_id LIMIT 1
  );

-- A shop's page that couldn't be read.
WITH ended AS MATERIALIZED (
  SELECT DISTINCT ON (job.product_id) job.product_id, left(result.error, 1000) AS error
  FROM result
  JOIN (
    SELECT
      named.id,
      named.created_at,
      coalesce(
        rowmill.said_id(named.job_data, 'product_data_id'),
        (
          SELECT video.product_data_id
          FROM public.videos AS video
          WHERE video.id = rowmill.said_id(named.job_data, 'video_id')
          LIMIT 1
        )
      ) AS product_id
    FROM public.background_jobs AS named
    WHERE named.id = ANY(rowmill_keys)
      AND lower(replace(named.job_type, '_', '')) = 'scrapeproduct'
    OFFSET 0
  ) AS job ON job.id = result.row_id
  WHERE result.verb = 'fail'
  ORDER BY job.product_id, job.created_at DESC, job.id DESC
), held AS MATERIALIZED (
  SELECT product.id
  FROM public.product_data AS product
  WHERE product.id = ANY(ARRAY(SELECT ended.product_id FROM ended))
  ORDER BY product.id
  FOR NO KEY UPDATE
)
UPDATE public.product_data AS product
SET scraping_status = 'Failed',
    error_message = ended.error,
    updated_at = now() AT TIME ZONE 'UTC',
    updated_by = 'rowmill'
FROM ended
JOIN held ON held.id = ended.product_id
WHERE product.id = ended.product_id AND product.id = ANY(ARRAY(SELECT held.id FROM held));
