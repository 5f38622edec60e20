-- An upload as its row describes it. Nothing here says who may name which file: that is the
-- platform's to decide when it takes the upload (see README.md).
SELECT
  file.id AS key,
  jsonb_build_object(
    'file', jsonb_build_object(
      'file_path', file.file_path,
      'file_size', file.file_size,
      'file_hash', file.file_hash,
      'mime_type', file.mime_type,
      'filename', file.filename,
      'original_filename', file.original_filename,
      'visibility', file.visibility
    )
  ) AS input
FROM public.media_files AS file
WHERE file.id = ANY(rowmill_keys);
