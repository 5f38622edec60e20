-- The customer's library: one media_items row per main output. A file's thumbnail follows it in the
-- list. The table has no key of its own for a file, so the id is made from the storage key: a
-- repeat of the same work finds its own row again.
--
-- Each row changes its owner's total_storage_bytes. Two batches take the owners in the same order,
-- so that neither waits for the other in a circle.
INSERT INTO public.media_items AS stored (
  id, user_id, file_url, thumbnail_url, original_filename,
  file_type, file_size_bytes, mime_type, width, height, metadata
)
SELECT
  (output.file ->> 'media_id')::uuid,
  project.user_id,
  output.file ->> 'url',
  CASE next.file ->> 'role' WHEN 'thumbnail' THEN next.file ->> 'url' END,
  left(output.file ->> 'filename', 255),
  output.file ->> 'file_type',
  (output.file ->> 'size')::bigint,
  output.file ->> 'mime_type',
  (output.file ->> 'width')::integer,
  (output.file ->> 'height')::integer,
  jsonb_strip_nulls(jsonb_build_object(
    'generated_video_id', video.id,
    'file_key', output.file ->> 'key',
    'sha256', output.file ->> 'sha256',
    'duration_seconds', output.file -> 'duration_seconds',
    'provider', result.provider,
    'model', result.model,
    'external_id', result.external_id
  ))
FROM result
JOIN public.generated_videos AS video ON video.id = result.row_id AND video.id = ANY(rowmill_keys)
JOIN public.video_projects AS project ON project.id = video.project_id
CROSS JOIN LATERAL jsonb_array_elements(result.outputs) WITH ORDINALITY AS output(file, position)
CROSS JOIN LATERAL (SELECT result.outputs -> output.position::integer) AS next(file)
WHERE output.file ->> 'role' = 'main'
ORDER BY project.user_id
ON CONFLICT (id) DO UPDATE SET
  file_url = excluded.file_url,
  thumbnail_url = excluded.thumbnail_url,
  file_type = excluded.file_type,
  file_size_bytes = excluded.file_size_bytes,
  mime_type = excluded.mime_type,
  width = excluded.width,
  height = excluded.height,
  metadata = excluded.metadata
WHERE stored.user_id = excluded.user_id;

-- The video's own measures. Its length in whole seconds: at least one, or nothing where the file
-- doesn't tell.
UPDATE public.generated_videos AS video
SET file_size_bytes = (main.file ->> 'size')::bigint,
    duration_seconds = CASE
      WHEN (main.file ->> 'duration_seconds')::numeric > 0
      THEN greatest(1, round((main.file ->> 'duration_seconds')::numeric))::integer
    END
FROM result
CROSS JOIN LATERAL (SELECT result.outputs -> 0) AS main(file)
WHERE video.id = result.row_id AND video.id = ANY(rowmill_keys);
