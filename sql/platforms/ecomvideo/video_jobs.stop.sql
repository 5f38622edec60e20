-- A video that was set to Cancelled cancels its job, waiting or running; so does one that is deleted
-- while its job runs: nobody would see what is paid for. The jobs of a user who is inactive, or isn't
-- there any more, don't begin.
SELECT
  job.id AS key,
  CASE WHEN job.cancelled THEN 'cancel' ELSE 'refuse' END AS verdict,
  CASE
    WHEN job.cancelled THEN CASE WHEN job.deleted THEN 'its video was deleted' ELSE 'its video was cancelled' END
    WHEN account.is_active IS NULL THEN format('there is no user %s (any more)', job.owner)
    ELSE format('the account of user %s is not active', job.owner)
  END AS message
FROM (
  SELECT
    named.id,
    video.id IS NULL AS deleted,
    named.makes_video AND CASE
      WHEN video.id IS NULL THEN named.running AND named.video_id IS NOT NULL
      ELSE video.status = 'Cancelled'
    END AS cancelled,
    coalesce(video.user_id, product.user_id, named.user_id) AS owner
  FROM (
    SELECT
      one.id,
      lower(replace(one.job_type, '_', '')) = 'generatevideo' AS makes_video,
      one.status = 'Running' AS running,
      rowmill.said_id(one.job_data, 'video_id') AS video_id,
      rowmill.said_id(one.job_data, 'product_data_id') AS product_id,
      rowmill.said_id(one.job_data, 'user_id') AS user_id
    FROM public.background_jobs AS one
    WHERE one.id = ANY(rowmill_keys)
    OFFSET 0
  ) AS named
  LEFT JOIN LATERAL (
    SELECT one.id, one.user_id, one.status FROM public.videos AS one WHERE one.id = named.video_id LIMIT 1
  ) AS video ON true
  LEFT JOIN LATERAL (
    SELECT one.user_id FROM public.product_data AS one WHERE one.id = named.product_id LIMIT 1
  ) AS product ON true
) AS job
LEFT JOIN LATERAL (
  SELECT coalesce(one.is_active, true) AS is_active
  FROM public.users AS one
  WHERE one.id = job.owner
  LIMIT 1
) AS account ON true
WHERE job.cancelled OR (job.owner IS NOT NULL AND account.is_active IS NOT TRUE);
