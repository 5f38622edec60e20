-- One media_files row per main output. A file's thumbnail follows it in the list.
-- A repeat of the same work writes the same file key, and so finds its own row again. Its id, made
-- from the key, is the one the job refers to.
INSERT INTO public.media_files AS stored (
  id, user_id, original_filename, file_key, file_url, thumbnail_url,
  file_type, mime_type, file_size_bytes, width, height, duration_seconds,
  processing_status, content_hash, folder_path, metadata
)
SELECT
  CASE output.position WHEN 1 THEN result.media_id ELSE (output.file ->> 'media_id')::uuid END,
  job.user_id,
  left(output.file ->> 'filename', 255),
  output.file ->> 'key',
  output.file ->> 'url',
  CASE next.file ->> 'role' WHEN 'thumbnail' THEN next.file ->> 'url' END,
  output.file ->> 'file_type',
  output.file ->> 'mime_type',
  (output.file ->> 'size')::bigint,
  (output.file ->> 'width')::integer,
  (output.file ->> 'height')::integer,
  round((output.file ->> 'duration_seconds')::numeric)::integer,
  'completed',
  output.file ->> 'sha256',
  '/generated',
  jsonb_strip_nulls(jsonb_build_object(
    'generation_job_id', job.id,
    'provider', result.provider,
    'model', result.model,
    'external_id', result.external_id
  ))
FROM result
JOIN public.generation_jobs AS job ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
CROSS JOIN LATERAL jsonb_array_elements(result.outputs) WITH ORDINALITY AS output(file, position)
CROSS JOIN LATERAL (SELECT result.outputs -> output.position::integer) AS next(file)
WHERE output.file ->> 'role' = 'main'
ON CONFLICT (file_key) DO UPDATE SET
  file_url = excluded.file_url,
  thumbnail_url = excluded.thumbnail_url,
  file_type = excluded.file_type,
  mime_type = excluded.mime_type,
  file_size_bytes = excluded.file_size_bytes,
  width = excluded.width,
  height = excluded.height,
  duration_seconds = excluded.duration_seconds,
  content_hash = excluded.content_hash,
  metadata = excluded.metadata,
  updated_at = now()
WHERE stored.user_id = excluded.user_id;
