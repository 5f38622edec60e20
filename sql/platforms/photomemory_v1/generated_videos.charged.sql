-- How often each completed video is in the usage records, which name it in their metadata.
SELECT video.id AS key, count(used.user_id) AS records
FROM public.generated_videos AS video
JOIN public.video_projects AS project ON project.id = video.project_id
LEFT JOIN public.usage_records AS used
  ON used.user_id = project.user_id
  AND used.metadata ->> 'generated_video_id' = video.id::text
  AND used.resource_type = 'video_generation'
WHERE video.id = ANY(rowmill_keys) AND video.status = 'completed'
GROUP BY video.id;
