-- A project follows its latest video job. Thumbnails, previews, audio and older videos never move
-- it, and a project its owner deleted stays deleted.
-- A queued job seen here is one that was handed back or waits for its next try, so its project is
-- still processing.
--
-- Newer jobs are looked for newest first and one is enough. The plain "latest per project" would
-- read all jobs of a project for each batch.
UPDATE public.video_projects AS project
SET status = latest.status,
    progress_percentage = latest.progress,
    started_at = coalesce(latest.started_at, project.started_at),
    completed_at = latest.completed_at,
    updated_at = now()
FROM (
  SELECT
    job.project_id,
    CASE job.status
      WHEN 'queued' THEN 'processing'
      ELSE job.status::text
    END::public.project_status AS status,
    CASE job.status WHEN 'completed' THEN 100 ELSE coalesce(job.progress_percentage, 0) END
      AS progress,
    job.started_at,
    CASE job.status WHEN 'completed' THEN job.completed_at END AS completed_at
  FROM public.generation_jobs AS job
  WHERE job.id = ANY(rowmill_keys)
    AND job.job_type = 'video'
    AND (
      SELECT newer.id
      FROM public.generation_jobs AS newer
      WHERE newer.project_id = job.project_id
        AND newer.job_type = 'video'
        AND (newer.queued_at, newer.id) > (job.queued_at, job.id)
      ORDER BY newer.created_at DESC
      LIMIT 1
    ) IS NULL
) AS latest
WHERE project.id = latest.project_id
  AND project.status <> 'deleted'
  AND (project.status, project.progress_percentage, project.started_at, project.completed_at)
      IS DISTINCT FROM
      (latest.status, latest.progress, coalesce(latest.started_at, project.started_at),
       latest.completed_at);
