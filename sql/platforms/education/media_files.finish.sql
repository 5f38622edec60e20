-- What the file really is, and what was made of it. `visibility` is nobody's to change here, and it
-- decides at this moment: only a public file gets URLs. Of others the keys are listed, from which
-- the platform signs its own; a cdn_url that it set itself stays, and one that we gave the file while it
-- was public goes.
UPDATE public.media_files AS file
SET mime_type = coalesce(made.mime_type, file.mime_type),
    width = coalesce(made.width, file.width),
    height = coalesce(made.height, file.height),
    duration = coalesce(round(made.duration)::integer, file.duration),
    file_hash = made.file_hash,
    processed_variants = CASE file.visibility
      WHEN 'public' THEN made.public_variants
      ELSE made.variants
    END,
    cdn_url = CASE file.visibility
      WHEN 'public' THEN coalesce(made.cdn_url, file.cdn_url)
      ELSE nullif(file.cdn_url, made.cdn_url)
    END,
    cache_expires_at = CASE
      WHEN made.cdn_url IS NULL THEN file.cache_expires_at
      WHEN file.visibility = 'public' THEN now() + make_interval(days => made.cache_days)
      WHEN file.cdn_url = made.cdn_url THEN NULL
      ELSE file.cache_expires_at
    END
FROM result
CROSS JOIN LATERAL jsonb_to_record(result.data) AS made(
  mime_type text, width integer, height integer, duration numeric, file_hash text,
  variants jsonb, public_variants jsonb, cdn_url text, cache_days integer
)
WHERE file.id = result.row_id
  AND file.id = ANY(rowmill_keys);
