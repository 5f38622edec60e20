-- One row per job: what became of it, and whether the tables keep what the map promises of it: the
-- file with its true measures, the marks of its status, and its project, which is as its latest video.
SELECT
  'generation_jobs' AS source,
  job.id::text AS key,
  job.status::text AS status,
  CASE WHEN job.status IN ('completed', 'failed', 'cancelled') THEN job.status::text END AS finished,
  job.status = 'completed' AS metered,
  (SELECT count(*) FROM public.usage_records AS used WHERE used.generation_job_id = job.id) AS usage,
  file.file_url AS url,
  CASE job.status
    WHEN 'completed'
    THEN file.id IS NOT NULL AND file.user_id = job.user_id AND file.content_hash <> ''
      AND (file.file_type = 'audio' OR (file.width > 0 AND file.height > 0))
      AND job.completed_at IS NOT NULL AND job.progress_percentage = 100
      AND job.started_at <= job.completed_at
      AND job.error_message IS NULL
    WHEN 'failed' THEN job.failed_at IS NOT NULL AND job.error_message IS NOT NULL
    ELSE true
  END
  AND (
    job.job_type <> 'video'
    OR job.status NOT IN ('completed', 'failed')
    OR project.status::text IN (job.status::text, 'deleted')
    OR EXISTS (
      SELECT FROM public.generation_jobs AS newer
      WHERE newer.project_id = job.project_id
        AND newer.job_type = 'video'
        AND (newer.queued_at, newer.id) > (job.queued_at, job.id)
    )
  ) AS consistent
FROM public.generation_jobs AS job
JOIN public.video_projects AS project ON project.id = job.project_id
LEFT JOIN public.media_files AS file ON file.id = job.output_file_id;
