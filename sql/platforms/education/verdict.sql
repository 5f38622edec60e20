-- What became of each upload. Consistent: a finished one has a hash, variants of its own kind and,
-- if it is public, a URL that may be kept for a while; one that isn't public has no URL anywhere.
SELECT
  'media_files'::text AS source,
  file.id::text AS key,
  file.processing_status AS status,
  CASE
    WHEN file.processing_status IN ('completed', 'failed') THEN file.processing_status
  END AS finished,
  false AS metered,
  0::bigint AS usage,
  -- What a producer named by its address, and nothing was made of, is no file of ours.
  CASE WHEN file.cdn_url <> file.file_path THEN file.cdn_url END AS url,
  CASE file.processing_status
    WHEN 'completed' THEN
      file.file_hash ~ '^[0-9a-f]{64}$'
      AND CASE split_part(file.mime_type, '/', 1)
        WHEN 'image' THEN file.width > 0 AND file.height > 0
          AND (file.processed_variants ? 'image' OR file.mime_type LIKE 'image/svg%')
        WHEN 'video' THEN file.width > 0 AND file.height > 0 AND file.duration >= 0
          AND file.processed_variants ?& ARRAY['video', 'thumbnail', 'poster']
        WHEN 'audio' THEN file.duration >= 0 AND file.processed_variants = '{}'
        ELSE file.processed_variants = '{}'
      END
      AND CASE file.visibility
        WHEN 'public' THEN file.cdn_url IS NOT NULL AND file.cache_expires_at > file.created_at
        ELSE NOT jsonb_path_exists(file.processed_variants, '$.**.url ? (@ != null)')
      END
    ELSE file.visibility = 'public' OR NOT jsonb_path_exists(
      file.processed_variants, '$.**.url ? (@ != null)'
    )
  END AS consistent
FROM public.media_files AS file;
