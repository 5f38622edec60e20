-- What a generation works on: its project's prompt and settings, and the photos in their order.
SELECT
  job.id AS key,
  jsonb_build_object(
    'job_type', job.job_type,
    'service', job.generation_service,
    'user_id', job.user_id,
    'project_id', job.project_id,
    'title', (
      SELECT title.value
      FROM jsonb_each_text(project.title_i18n) AS title
      WHERE title.value <> ''
      ORDER BY title.key = 'en' DESC, title.key
      LIMIT 1
    ),
    'prompt', project.ai_prompt,
    'style', project.style,
    'generation_settings', coalesce(project.generation_settings, '{}'),
    'duration_minutes', project.duration_minutes,
    'duration_seconds', CASE jsonb_typeof(project.generation_settings -> 'duration_seconds')
      WHEN 'number' THEN project.generation_settings -> 'duration_seconds'
    END,
    'aspect_ratio', coalesce(project.aspect_ratio, '16:9'),
    'resolution', coalesce(project.resolution, '1080p'),
    'photos', coalesce(photos.urls, '[]'),
    'formats', coalesce((
      SELECT setting.value
      FROM public.system_settings AS setting
      WHERE setting.key = 'supported_video_formats' AND jsonb_typeof(setting.value) = 'array'
    ), '[]')
  ) AS input
FROM public.generation_jobs AS job
JOIN public.video_projects AS project ON project.id = job.project_id
LEFT JOIN LATERAL (
  SELECT jsonb_agg(file.file_url ORDER BY placed.display_order) AS urls
  FROM public.project_media AS placed
  JOIN public.media_files AS file ON file.id = placed.media_file_id
  WHERE placed.project_id = project.id AND file.file_type = 'image'
) AS photos ON true
WHERE job.id = ANY(rowmill_keys);
