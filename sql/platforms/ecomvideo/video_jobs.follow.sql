-- A video shows how far its job is: which paid step has begun, and the provider's tasks as soon as
-- they are accepted. How it ended is written by the finish and fail rules; here only for a job that an
-- operator cancelled. What its user cancelled stays cancelled.
--
-- Of several jobs on one video the one that runs counts: one that an operator cancels ends it only if
-- no other has paid for something. A video that the application holds is left alone: the next change
-- comes soon. Only an operator waits for it, as nothing comes after a cancel.
WITH job AS MATERIALIZED (
  SELECT DISTINCT ON (named.video_id) named.id, named.video_id, named.status
  FROM (
    SELECT
      one.id,
      one.status,
      one.started_at,
      rowmill.said_id(one.job_data, 'video_id') AS video_id
    FROM public.background_jobs AS one
    WHERE one.id = ANY(rowmill_keys) AND lower(replace(one.job_type, '_', '')) = 'generatevideo'
    OFFSET 0
  ) AS named
  ORDER BY named.video_id, (named.status = 'Running') DESC, named.started_at DESC NULLS LAST, named.id
), held AS MATERIALIZED (
  SELECT video.id
  FROM public.videos AS video
  WHERE video.id = ANY(ARRAY(SELECT job.video_id FROM job WHERE job.status <> 'Failed'))
  ORDER BY video.id
  FOR NO KEY UPDATE SKIP LOCKED
), waited AS MATERIALIZED (
  SELECT video.id
  FROM public.videos AS video
  WHERE video.id = ANY(ARRAY(SELECT job.video_id FROM job WHERE job.status = 'Failed'))
    AND video.status NOT IN ('Completed', 'Failed', 'Cancelled')
    AND (
      SELECT other.row_key
      FROM rowmill.allowances AS other
      CROSS JOIN LATERAL (
        SELECT named.id
        FROM public.background_jobs AS named
        WHERE named.id = other.row_key::uuid
          AND named.status IN ('Pending', 'Running')
          AND rowmill.said_id(named.job_data, 'video_id') = video.id
        LIMIT 1
      ) AS rival
      WHERE other.source = (SELECT one.id FROM rowmill.sources AS one WHERE one.name = 'video_jobs')
        AND other.tenant = video.user_id::text AND other.amount > 0
      LIMIT 1
    ) IS NULL
  ORDER BY video.id
  FOR NO KEY UPDATE
), stage AS MATERIALIZED (
  SELECT
    job.video_id AS id,
    job.status = 'Failed' AS given_up,
    CASE
      WHEN job.status = 'Failed' THEN 'Cancelled'
      WHEN call.video_begun THEN 'GeneratingVideo'
      WHEN call.image_begun THEN 'GeneratingImage'
      ELSE 'Processing'
    END AS status,
    -- Each is some other video's already, or nobody's: an index says so.
    CASE WHEN (
      SELECT other.id FROM public.videos AS other
      WHERE other.freepik_image_task_id = call.image_task AND other.id <> job.video_id LIMIT 1
    ) IS NULL THEN call.image_task END AS image_task,
    CASE WHEN (
      SELECT other.id FROM public.videos AS other
      WHERE other.freepik_task_id = call.video_task AND other.id <> job.video_id LIMIT 1
    ) IS NULL THEN call.video_task END AS video_task
  FROM job
  JOIN (SELECT held.id FROM held UNION ALL SELECT waited.id FROM waited) AS mine ON mine.id = job.video_id
  LEFT JOIN LATERAL (
    SELECT waiting.run
    FROM rowmill.queue AS waiting
    WHERE waiting.source = (SELECT one.id FROM rowmill.sources AS one WHERE one.name = 'video_jobs')
      AND waiting.row_key = job.id::text
    LIMIT 1
  ) AS queue ON true
  CROSS JOIN LATERAL (
    SELECT
      bool_or(one.step = 'image' AND one.live) AS image_begun,
      bool_or(one.step = 'video' AND one.live) AS video_begun,
      (array_agg(one.task ORDER BY one.id DESC) FILTER (WHERE one.step = 'image' AND one.task <> ''))[1]
        AS image_task,
      (array_agg(one.task ORDER BY one.id DESC) FILTER (WHERE one.step = 'video' AND one.task <> ''))[1]
        AS video_task
    FROM (
      SELECT
        made.id,
        made.step,
        made.state NOT IN ('failed', 'cancelled', 'written_off') AS live,
        -- An id that doesn't fit is of no use in part.
        CASE WHEN made.provider = 'freepik' AND length(made.external_id) <= 100
          THEN made.external_id END AS task
      FROM rowmill.submissions AS made
      WHERE made.source = 'video_jobs' AND made.row_key = job.id::text AND made.run = queue.run
      OFFSET 0
    ) AS one
  ) AS call
  WHERE job.status IN ('Pending', 'Running', 'Failed')
)
UPDATE public.videos AS video
SET status = stage.status,
    freepik_image_task_id =
      CASE WHEN stage.given_up THEN video.freepik_image_task_id ELSE stage.image_task END,
    freepik_task_id = CASE WHEN stage.given_up THEN video.freepik_task_id ELSE stage.video_task END,
    error_message = CASE WHEN stage.given_up THEN 'its job was cancelled' END,
    updated_at = clock_timestamp() AT TIME ZONE 'UTC',
    updated_by = 'rowmill'
FROM stage
WHERE video.id = stage.id
  AND video.id = ANY(ARRAY(SELECT stage.id FROM stage))
  AND video.status <> 'Cancelled'
  AND (NOT stage.given_up OR video.status NOT IN ('Completed', 'Failed'))
  AND (stage.given_up
    OR (video.status, video.freepik_image_task_id, video.freepik_task_id)
      IS DISTINCT FROM (stage.status, stage.image_task, stage.video_task));
