-- A finished video: what was made, what it is, what it cost its user; and the jobs that follow it, by
-- the user's own settings (the columns' defaults where there is no row). Its address is the one thing
-- that can't be clipped: one that doesn't fit holds the job, with what it made.
--
-- A thumbnail that was there before any video is the user's, and stays. Otherwise, where thumbnails are
-- wanted, the small one that comes with the file is shown until a job has made a proper one.
WITH made AS MATERIALIZED (
  SELECT
    job.id,
    job.video_id,
    job.job_data,
    job.priority,
    job.started_at,
    result.outputs -> 0 AS file,
    result.data,
    result.run,
    result.provider,
    result.external_id,
    (
      SELECT other.file ->> 'url'
      FROM jsonb_array_elements(result.outputs) AS other(file)
      WHERE other.file ->> 'role' = 'thumbnail' AND length(other.file ->> 'url') <= 500
      LIMIT 1
    ) AS small_url
  FROM result
  JOIN (
    SELECT
      named.id,
      named.job_data,
      named.priority,
      named.started_at,
      rowmill.said_id(named.job_data, 'video_id') AS video_id
    FROM public.background_jobs AS named
    WHERE named.id = ANY(rowmill_keys)
    OFFSET 0
  ) AS job ON job.id = result.row_id
), video AS MATERIALIZED (
  SELECT
    one.id,
    one.user_id,
    one.title,
    one.video_url IS NULL AND one.thumbnail_url IS NOT NULL AS own_thumbnail
  FROM public.videos AS one
  WHERE one.id = ANY(ARRAY(SELECT made.video_id FROM made))
  ORDER BY one.id
  FOR NO KEY UPDATE
), wish AS MATERIALIZED (
  SELECT
    video.*,
    NOT video.own_thumbnail AND coalesce((
      SELECT one.auto_generate_thumbnails
      FROM public.user_preferences AS one WHERE one.user_id = video.user_id LIMIT 1
    ), true) AS thumbnail,
    coalesce((
      SELECT one.video_completed
      FROM public.notification_settings AS one WHERE one.user_id = video.user_id LIMIT 1
    ), true) AS notice
  FROM video
), written AS (
  UPDATE public.videos AS stored
  SET status = CASE stored.status WHEN 'Cancelled' THEN 'Cancelled' ELSE 'Completed' END,
      video_url = last.file ->> 'url',
      thumbnail_url = CASE WHEN wish.thumbnail THEN last.small_url ELSE stored.thumbnail_url END,
      image_url = coalesce(
        stored.image_url,
        CASE WHEN length(last.data ->> 'image_url') <= 500 THEN last.data ->> 'image_url' END
      ),
      file_size_bytes = (last.file ->> 'size')::bigint,
      duration_seconds = coalesce(
        greatest(round((last.file ->> 'duration_seconds')::numeric), 1)::integer,
        stored.duration_seconds
      ),
      metadata =
        CASE jsonb_typeof(stored.metadata) WHEN 'object' THEN stored.metadata ELSE '{}' END
        || jsonb_strip_nulls(jsonb_build_object(
          'width', last.file -> 'width',
          'height', last.file -> 'height',
          'frameRate', last.file -> 'frame_rate',
          'format', substring(last.file ->> 'key' from '[^./]+$'),
          'codec', last.file -> 'codec',
          'bitrate', last.file -> 'bit_rate',
          'duration', last.file -> 'duration_seconds',
          'fileSize', last.file -> 'size'
        )),
      ai_provider = coalesce(stored.ai_provider, left(last.data ->> 'ai_provider', 50)),
      generation_cost_credits = coalesce(held.credits, greatest(stored.generation_cost_credits, 1)),
      freepik_task_id = CASE
        WHEN last.provider = 'freepik' AND length(last.external_id) <= 100 AND (
          SELECT other.id FROM public.videos AS other
          WHERE other.freepik_task_id = last.external_id AND other.id <> last.video_id LIMIT 1
        ) IS NULL THEN last.external_id
      END,
      freepik_image_task_id = image.task,
      error_message = NULL,
      completed_at = clock_timestamp() AT TIME ZONE 'UTC',
      updated_at = clock_timestamp() AT TIME ZONE 'UTC',
      updated_by = 'rowmill'
  FROM (
    SELECT DISTINCT ON (made.video_id) made.*
    FROM made
    ORDER BY made.video_id, made.started_at DESC NULLS LAST, made.id
  ) AS last
  JOIN wish ON wish.id = last.video_id
  LEFT JOIN LATERAL (
    SELECT one.amount::integer AS credits
    FROM rowmill.allowances AS one
    WHERE one.source = (SELECT source.id FROM rowmill.sources AS source WHERE source.name = 'video_jobs')
      AND one.row_key = last.id::text AND one.run = last.run
    LIMIT 1
  ) AS held ON true
  LEFT JOIN LATERAL (
    SELECT one.external_id AS task
    FROM rowmill.submissions AS one
    WHERE one.source = 'video_jobs' AND one.row_key = last.id::text AND one.run = last.run
      AND one.step = 'image' AND one.provider = 'freepik' AND length(one.external_id) <= 100
      AND (
        SELECT other.id FROM public.videos AS other
        WHERE other.freepik_image_task_id = one.external_id AND other.id <> last.video_id LIMIT 1
      ) IS NULL
    ORDER BY one.id DESC
    LIMIT 1
  ) AS image ON true
  WHERE stored.id = last.video_id AND stored.id = ANY(ARRAY(SELECT video.id FROM video))
)
INSERT INTO public.background_jobs (job_type, job_data, status, priority, scheduled_at, created_at)
SELECT
  next.job_type,
  next.job_data,
  'Pending',
  coalesce(made.priority, 0),
  now() AT TIME ZONE 'UTC',
  now() AT TIME ZONE 'UTC'
FROM made
JOIN wish ON wish.id = made.video_id
CROSS JOIN LATERAL (
  VALUES
    (wish.thumbnail, 'generate_thumbnail', jsonb_build_object(
      'video_id', wish.id, 'user_id', wish.user_id, 'video_url', made.file ->> 'url'
    )),
    (wish.notice, 'send_notification', jsonb_strip_nulls(jsonb_build_object(
      'type', 'VideoCompleted',
      'video_id', wish.id,
      'user_id', wish.user_id,
      'webhook_url', nullif(rowmill.said(made.job_data, 'webhook_url'), ''),
      'webhook_secret', nullif(rowmill.said(made.job_data, 'webhook_secret'), ''),
      'data', jsonb_build_object(
        'video_id', wish.id, 'status', 'Completed', 'title', wish.title, 'video_url', made.file ->> 'url'
      )
    )))
) AS next(wanted, job_type, job_data)
WHERE next.wanted;

-- Templates are shared: counted once for each video, and locked in order.
WITH used AS MATERIALIZED (
  SELECT video.template_id AS id, count(*) AS times
  FROM result
  JOIN (
    SELECT named.id, rowmill.said_id(named.job_data, 'video_id') AS video_id
    FROM public.background_jobs AS named
    WHERE named.id = ANY(rowmill_keys)
    OFFSET 0
  ) AS job ON job.id = result.row_id
  CROSS JOIN LATERAL (
    SELECT one.template_id FROM public.videos AS one WHERE one.id = job.video_id LIMIT 1
  ) AS video
  WHERE video.template_id IS NOT NULL
  GROUP BY video.template_id
), held AS MATERIALIZED (
  SELECT template.id
  FROM public.video_templates AS template
  WHERE template.id = ANY(ARRAY(SELECT used.id FROM used))
  ORDER BY template.id
  FOR NO KEY UPDATE
)
UPDATE public.video_templates AS template
SET usage_count = coalesce(template.usage_count, 0) + used.times
FROM used
JOIN held ON held.id = used.id
WHERE template.id = used.id AND template.id = ANY(ARRAY(SELECT held.id FROM held));
