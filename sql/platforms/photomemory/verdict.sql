-- One row per job: what became of it, and whether the tables keep what the map promises of it.
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
    THEN file.id IS NOT NULL AND job.completed_at IS NOT NULL
      AND job.progress_percentage = 100 AND job.started_at <= job.completed_at
    WHEN 'failed' THEN job.failed_at IS NOT NULL AND job.error_message IS NOT NULL
    ELSE true
  END AS consistent
FROM public.generation_jobs AS job
LEFT JOIN public.media_files AS file ON file.id = job.output_file_id;
