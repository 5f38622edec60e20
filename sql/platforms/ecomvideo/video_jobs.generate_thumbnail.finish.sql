-- The picture that a job made of a video. An address that doesn't fit is left out.
WITH made AS MATERIALIZED (
  SELECT DISTINCT ON (job.video_id) job.video_id, result.outputs -> 0 ->> 'url' AS url
  FROM result
  JOIN (
    SELECT named.id, named.created_at, rowmill.said_id(named.job_data, 'video_id') AS video_id
    FROM public.background_jobs AS named
    WHERE named.id = ANY(rowmill_keys)
    OFFSET 0
  ) AS job ON job.id = result.row_id
  WHERE length(result.outputs -> 0 ->> 'url') <= 500
  ORDER BY job.video_id, job.created_at DESC, job.id DESC
), held AS MATERIALIZED (
  SELECT video.id
  FROM public.videos AS video
  WHERE video.id = ANY(ARRAY(SELECT made.video_id FROM made))
  ORDER BY video.id
  FOR NO KEY UPDATE
)
UPDATE public.videos AS video
SET thumbnail_url = made.url,
    updated_at = now() AT TIME ZONE 'UTC',
    updated_by = 'rowmill'
FROM made
JOIN held ON held.id = made.video_id
WHERE video.id = made.video_id AND video.id = ANY(ARRAY(SELECT held.id FROM held));
