-- What a video is made of: its own prompt, its project's style and settings, the photos in order.
-- A project's metadata may hold anything. Read of it are `generation_settings` (an object), and
-- `aspect_ratio`, `resolution` and `duration_seconds` where they have the right type.
SELECT
  video.id AS key,
  jsonb_build_object(
    'service', video.generation_service,
    'user_id', project.user_id,
    'project_id', video.project_id,
    'title', (
      SELECT title.value
      FROM jsonb_each_text(project.title_i18n) AS title
      WHERE title.value <> ''
      ORDER BY title.key = 'en' DESC, title.key
      LIMIT 1
    ),
    'prompt', video.ai_prompt,
    'style', project.style,
    'duration_minutes', project.duration_minutes,
    'metadata', coalesce(project.metadata, '{}'),
    'generation_settings', CASE jsonb_typeof(project.metadata -> 'generation_settings')
      WHEN 'object' THEN project.metadata -> 'generation_settings'
      ELSE '{}'
    END,
    'duration_seconds', CASE jsonb_typeof(project.metadata -> 'duration_seconds')
      WHEN 'number' THEN project.metadata -> 'duration_seconds'
    END,
    'aspect_ratio', CASE jsonb_typeof(project.metadata -> 'aspect_ratio')
      WHEN 'string' THEN project.metadata -> 'aspect_ratio'
    END,
    'resolution', CASE jsonb_typeof(project.metadata -> 'resolution')
      WHEN 'string' THEN project.metadata -> 'resolution'
    END,
    'photos', coalesce(photos.urls, '[]')
  ) AS input
FROM public.generated_videos AS video
JOIN public.video_projects AS project ON project.id = video.project_id
LEFT JOIN LATERAL (
  SELECT jsonb_agg(photo.file_url ORDER BY photo.upload_order, photo.created_at, photo.id) AS urls
  FROM public.photos AS photo
  WHERE photo.project_id = project.id
) AS photos ON true
WHERE video.id = ANY(rowmill_keys);
