-- One row per job, and whether all that the rules promise of it holds. Customers pay in credits, which
-- are no usage records: they have to add up instead, for the owner of each video. A completed video is
-- told of once for each job that made it.
WITH job AS MATERIALIZED (
  SELECT
    one.*,
    lower(replace(one.job_type, '_', '')) AS kind,
    rowmill.said_id(one.job_data, 'video_id') AS video_id
  FROM public.background_jobs AS one
), told AS MATERIALIZED (
  SELECT
    job.video_id,
    count(*) FILTER (WHERE job.kind = 'generatevideo' AND job.status = 'Completed') AS made,
    count(*) FILTER (
      WHERE job.kind = 'sendnotification' AND rowmill.said(job.job_data, 'type') = 'VideoCompleted'
    ) AS notices
  FROM job
  GROUP BY job.video_id
)
SELECT
  'video_jobs' AS source,
  job.id::text AS key,
  job.status,
  CASE
    WHEN job.status = 'Completed' THEN 'completed'
    WHEN job.status = 'Failed' AND video.status = 'Cancelled' THEN 'cancelled'
    WHEN job.status = 'Failed' THEN 'failed'
  END AS finished,
  false AS metered,
  0::bigint AS usage,
  CASE job.kind
    WHEN 'generatevideo' THEN video.video_url
    WHEN 'generatethumbnail' THEN video.thumbnail_url
  END AS url,
  coalesce(CASE
    WHEN job.kind = 'generatevideo' AND job.status = 'Completed' THEN
      video.status = 'Completed' AND video.video_url <> '' AND video.file_size_bytes > 0
      AND video.metadata ? 'duration' AND video.completed_at IS NOT NULL AND video.error_message IS NULL
      AND video.generation_cost_credits > 0 AND video.ai_provider <> '' AND video.updated_by = 'rowmill'
      AND job.error_message IS NULL AND job.completed_at >= job.started_at
      AND credit.used = credit.due
      AND told.notices = CASE WHEN wanted.news THEN told.made ELSE 0 END
    WHEN job.kind = 'generatevideo' AND job.status = 'Failed' THEN
      (video.id IS NULL OR video.status IN ('Failed', 'Cancelled') OR video.completed_at >= job.created_at)
      AND job.error_message <> '' AND coalesce(credit.used = credit.due, true)
    WHEN job.status = 'Failed' THEN job.error_message <> ''
    WHEN job.kind = 'generatethumbnail' AND job.status = 'Completed' THEN video.thumbnail_url <> ''
    ELSE true
  END, false) AND coalesce(job.attempts, 0) <= coalesce(job.max_attempts, 3) AS consistent
FROM job
LEFT JOIN public.videos AS video ON video.id = job.video_id
LEFT JOIN LATERAL (
  SELECT
    (
      SELECT coalesce(sum(pot.used_amount), 0)
      FROM public.usage_credits AS pot
      WHERE pot.user_id = video.user_id AND pot.credit_type = 'VideoGeneration'
    ) AS used,
    (
      SELECT coalesce(sum(made.generation_cost_credits), 0)
      FROM public.videos AS made
      WHERE made.user_id = video.user_id AND made.status = 'Completed' AND made.video_url IS NOT NULL
    ) + (
      SELECT coalesce(sum(held.amount), 0)
      FROM rowmill.allowances AS held
      JOIN rowmill.sources AS source ON source.id = held.source
      WHERE source.name = 'video_jobs' AND held.tenant = video.user_id::text
    ) AS due
  WHERE job.kind = 'generatevideo'
) AS credit ON true
LEFT JOIN told ON told.video_id = job.video_id
LEFT JOIN LATERAL (
  SELECT coalesce((
    SELECT setting.video_completed FROM public.notification_settings AS setting
    WHERE setting.user_id = video.user_id
  ), true) AS news
) AS wanted ON true;
