-- How often each completed job is in the usage records: its customer has to be charged for it.
SELECT job.id AS key, count(used.generation_job_id) AS records
FROM public.generation_jobs AS job
LEFT JOIN public.usage_records AS used
  ON used.generation_job_id = job.id AND used.resource_type = 'video_generation'
WHERE job.id = ANY(rowmill_keys) AND job.status = 'completed'
GROUP BY job.id;
