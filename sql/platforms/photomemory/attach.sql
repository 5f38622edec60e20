-- What in a live database of the platform the map can't work with. Functions are judged by their text:
-- those of the platform's first design are recognised by what was wrong with them.
WITH function AS (
  SELECT
    proc.proname AS name,
    proc.prosrc AS body,
    proc.prosecdef AS as_owner,
    coalesce(array_to_string(proc.proconfig, ' '), '') ~ 'search_path=' AS pinned
  FROM pg_catalog.pg_proc AS proc
  JOIN pg_catalog.pg_class AS jobs ON jobs.relnamespace = proc.pronamespace
  WHERE jobs.oid = to_regclass('public.generation_jobs')
)
SELECT
  'refuse' AS severity,
  'public.check_user_limit selects four columns into two variables, so it fails, and every INSERT '
  'into media_files and video_projects with it: no result could be stored. Replace it; '
  'sql/platforms/photomemory/schema.sql has one that picks its limit by type' AS message
FROM function
WHERE name = 'check_user_limit'
  AND body ~* 'max_storage_gb\s*,\s*is_active\s+INTO\s+user_limit\s*,\s*subscription_active'
UNION ALL
SELECT
  'refuse',
  'there is no function public.create_monthly_partition(text, date), which the map has make the '
  'months of usage_records and audit_logs: take it from sql/platforms/photomemory/schema.sql'
WHERE to_regprocedure('public.create_monthly_partition(text, date)') IS NULL
UNION ALL
SELECT
  'refuse',
  'public.create_monthly_partition fails for a month that is there: it is called each hour for each '
  'month ahead, and must then do nothing; sql/platforms/photomemory/schema.sql has one that does'
FROM function
WHERE name = 'create_monthly_partition'
  AND body ~* 'CREATE\s+TABLE'
  AND body !~* 'IF\s+NOT\s+EXISTS|to_regclass|pg_class|pg_inherits|pg_tables|duplicate_table'
UNION ALL
SELECT
  'warn',
  'public.create_monthly_partition says PARTITION OF: that takes an exclusive lock on the table, '
  'and everyone waits behind it for the longest transaction. Build the table beside, then ATTACH it'
FROM function
WHERE name = 'create_monthly_partition' AND body ~* 'PARTITION\s+OF'
UNION ALL
SELECT
  'warn',
  'public.create_monthly_partition runs with its caller''s rights: make it SECURITY DEFINER with a '
  'search_path of its own, or the worker''s role has to own usage_records and audit_logs'
FROM function
WHERE name = 'create_monthly_partition' AND NOT as_owner
UNION ALL
SELECT
  'warn',
  'public.create_monthly_partition is SECURITY DEFINER without SET search_path: who may create '
  'objects can have it run their own as its owner'
FROM function
WHERE name = 'create_monthly_partition' AND as_owner AND NOT pinned
UNION ALL
SELECT
  'refuse',
  parent.name || ' is not partitioned; take its [[partitions]] out of a map of your own'
FROM (VALUES ('public.usage_records'), ('public.audit_logs')) AS parent(name)
JOIN pg_catalog.pg_class AS stored ON stored.oid = to_regclass(parent.name)
WHERE stored.relkind <> 'p'
UNION ALL
SELECT
  'warn',
  'public.user_analytics_summary has no unique index, so a refresh keeps its readers waiting: '
  'CREATE UNIQUE INDEX ON public.user_analytics_summary (user_id)'
FROM pg_catalog.pg_class AS stored
WHERE stored.oid = to_regclass('public.user_analytics_summary')
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index AS indexed
    WHERE indexed.indrelid = stored.oid
      AND indexed.indisunique AND indexed.indisvalid AND indexed.indpred IS NULL
      AND 0 <> ALL (indexed.indkey::smallint[])
  )
UNION ALL
SELECT
  'refuse',
  'the enum project_status lacks ''deleted'', with which projects are compared: '
  'ALTER TYPE public.project_status ADD VALUE ''deleted'''
FROM pg_catalog.pg_type AS kind
WHERE kind.oid = to_regtype('public.project_status')
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_enum AS word
    WHERE word.enumtypid = kind.oid AND word.enumlabel = 'deleted'
  )
UNION ALL
SELECT
  'refuse',
  'public.generation_jobs has no column created_at, by which a project''s latest video is found: '
  'ALTER TABLE public.generation_jobs ADD created_at timestamptz NOT NULL DEFAULT now()'
FROM pg_catalog.pg_class AS stored
WHERE stored.oid = to_regclass('public.generation_jobs')
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute AS named
    WHERE named.attrelid = stored.oid AND named.attname = 'created_at' AND NOT named.attisdropped
  );
