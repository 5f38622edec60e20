-- What in a live database this map can't keep its promises with. Asks the catalogue alone, so that
-- what is missing is told and not stumbled over.
SELECT problem.severity, problem.message
FROM (
  SELECT
    'warn' AS severity,
    'public.lesson_progress isn''t partitioned, so no months are made ahead; '
      'sql/platforms/education/schema.sql shows how it can be' AS message
  WHERE EXISTS (
    SELECT FROM pg_catalog.pg_class AS found
    WHERE found.oid = to_regclass('public.lesson_progress') AND found.relkind = 'r'
  )
  UNION ALL
  SELECT
    'warn',
    'public.create_monthly_partition(text, date) is missing, so no months are made ahead'
  WHERE to_regprocedure('public.create_monthly_partition(text, date)') IS NULL
  UNION ALL
  SELECT
    'warn',
    'public.course_statistics has no unique index: every refresh locks its readers out; '
      'CREATE UNIQUE INDEX ON public.course_statistics (id)'
  WHERE to_regclass('public.course_statistics') IS NOT NULL
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_index AS index
      WHERE index.indrelid = to_regclass('public.course_statistics') AND index.indisunique
    )
  UNION ALL
  SELECT
    'refuse',
    'public.media_files has no column ' || needed.name || ', which is written when a file is done'
  FROM unnest(ARRAY[
    'processed_variants', 'cdn_url', 'cache_expires_at', 'file_hash', 'width', 'height', 'duration',
    'visibility'
  ]) AS needed(name)
  WHERE to_regclass('public.media_files') IS NOT NULL
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_attribute AS attribute
      WHERE attribute.attrelid = to_regclass('public.media_files')
        AND attribute.attname = needed.name
        AND NOT attribute.attisdropped
    )
) AS problem;
