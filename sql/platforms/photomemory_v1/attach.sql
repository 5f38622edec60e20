-- What the platform's own design gets wrong in a live database, so that results would be held or
-- each start would read the whole table; with the statement that mends it.
WITH amount AS (
  SELECT
    attrelid,
    attnum,
    format_type(atttypid, atttypmod) AS type,
    (((atttypmod - 4) >> 16) & 65535) - ((atttypmod - 4) & 2047) AS digits
  FROM pg_catalog.pg_attribute
  WHERE attrelid = to_regclass('public.usage_records')
    AND attname = 'amount' AND atttypid = 'pg_catalog.numeric'::regtype AND atttypmod > 0
), reader AS (
  -- A column that a view reads can't be altered: such a view is made again.
  SELECT DISTINCT rewrite.ev_class::regclass AS view
  FROM amount
  JOIN pg_catalog.pg_depend AS depends
    ON depends.refclassid = 'pg_catalog.pg_class'::regclass
    AND depends.refobjid = amount.attrelid AND depends.refobjsubid = amount.attnum
    AND depends.classid = 'pg_catalog.pg_rewrite'::regclass
  JOIN pg_catalog.pg_rewrite AS rewrite ON rewrite.oid = depends.objid
  JOIN pg_catalog.pg_class AS relation ON relation.oid = rewrite.ev_class
  WHERE relation.relkind = 'v'
)
SELECT
  'refuse' AS severity,
  format(
    'public.usage_records.amount is %s: the storage of a file of 100 MB doesn''t fit. Mend it with:'
    ' BEGIN; %sALTER TABLE public.usage_records ALTER COLUMN amount TYPE numeric(20,2); %sCOMMIT;'
    ' (what was granted on a view that is made again has to be granted again)',
    amount.type,
    (SELECT string_agg(format('DROP VIEW %s; ', view), '' ORDER BY view::text) FROM reader),
    (SELECT string_agg(format('CREATE VIEW %s AS %s ', view, pg_get_viewdef(view)), ''
                       ORDER BY view::text)
     FROM reader)
  ) AS message
FROM amount
WHERE amount.digits < 13
UNION ALL
SELECT
  'refuse',
  'public.generated_videos has no index for how long its last videos took, and every start asks.'
  ' Mend it with: CREATE INDEX CONCURRENTLY idx_generated_videos_recent'
  ' ON public.generated_videos (generation_service, completed_at DESC) WHERE status = ''completed'';'
WHERE to_regclass('public.generated_videos') IS NOT NULL
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index AS index
    WHERE index.indrelid = to_regclass('public.generated_videos')
      AND index.indisvalid
      AND (index.indpred IS NULL
           OR pg_get_expr(index.indpred, index.indrelid) ~ '^\(status = ''completed''')
      AND ARRAY[index.indkey[0], index.indkey[1]] = ARRAY(
        SELECT attribute.attnum
        FROM pg_catalog.pg_attribute AS attribute
        JOIN (VALUES (1, 'generation_service'), (2, 'completed_at')) AS wanted(place, name)
          ON attribute.attname = wanted.name
        WHERE attribute.attrelid = index.indrelid
        ORDER BY wanted.place
      )
  )
UNION ALL
SELECT
  'warn',
  'public.media_items has no trigger: users.total_storage_bytes will not count generated videos'
WHERE to_regclass('public.media_items') IS NOT NULL
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger
    WHERE tgrelid = to_regclass('public.media_items') AND NOT tgisinternal AND tgenabled <> 'D'
      AND tgname <> 'update_media_updated_at'
  );
