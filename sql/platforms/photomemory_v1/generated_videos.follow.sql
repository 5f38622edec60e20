-- When a video is likely to be there, from how long the last twenty of its service took: their
-- median, counted from its start; then, as soon as its provider tells how far it is, the rest of it
-- from now. Nothing where the service has made none yet, and nothing while it waits again.
-- The recent ones are read by index, however many there are; and no more than a hundred, however many
-- of them don't tell when they began (an import's, say).
WITH ours AS MATERIALIZED (
  SELECT
    video.id,
    video.generation_service AS service,
    video.status = 'processing' AS running,
    coalesce(video.progress_percentage, 0) AS progress,
    video.estimated_completion_at AS estimate
  FROM public.generated_videos AS video
  WHERE video.id = ANY(rowmill_keys) AND video.status IN ('queued', 'processing')
), usual AS MATERIALIZED (
  SELECT
    asked.service,
    (
      SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY recent.took)
      FROM (
        SELECT made.completed_at - made.started_at AS took
        FROM (
          SELECT latest.started_at, latest.completed_at
          FROM public.generated_videos AS latest
          WHERE latest.generation_service = asked.service
            AND latest.status = 'completed'
            AND latest.completed_at IS NOT NULL
          ORDER BY latest.completed_at DESC
          LIMIT 100
        ) AS made
        WHERE made.started_at < made.completed_at
        ORDER BY made.completed_at DESC
        LIMIT 20
      ) AS recent
    ) AS time
  FROM (SELECT DISTINCT ours.service FROM ours WHERE ours.running) AS asked
)
UPDATE public.generated_videos AS video
SET estimated_completion_at = likely.at
FROM (
  SELECT
    ours.id,
    CASE
      WHEN NOT ours.running THEN NULL
      WHEN ours.estimate IS NULL THEN now() + usual.time
      WHEN ours.progress = 0 THEN greatest(ours.estimate, now())
      ELSE now() + usual.time * ((100 - ours.progress) / 100.0)
    END AS at
  FROM ours
  LEFT JOIN usual ON usual.service = ours.service
) AS likely
WHERE video.id = likely.id
  AND video.id = ANY(rowmill_keys)
  AND video.estimated_completion_at IS DISTINCT FROM likely.at;

-- A project follows its latest video; older ones never move it.
-- A queued video seen here is one that was handed back or waits for its next try, so its project is
-- still processing.
--
-- Newer videos are looked for newest first and one is enough. The plain "latest per project" would
-- read all videos of a project for each batch.
UPDATE public.video_projects AS project
SET status = latest.status
FROM (
  SELECT
    video.project_id,
    CASE video.status
      WHEN 'queued' THEN 'processing'
      ELSE video.status::text
    END::public.project_status AS status
  FROM public.generated_videos AS video
  WHERE video.id = ANY(rowmill_keys)
    AND (
      SELECT newer.id
      FROM public.generated_videos AS newer
      WHERE newer.project_id = video.project_id
        AND (newer.created_at, newer.id) > (video.created_at, video.id)
      ORDER BY newer.created_at DESC
      LIMIT 1
    ) IS NULL
) AS latest
WHERE project.id = latest.project_id
  AND project.status <> latest.status;
