-- The platform's own setting bounds how many generations run at once, over all providers. Whatever
-- is stored there that is not a positive integer, as a number or as text, is no limit.
SELECT
  '*'::text AS lane,
  'generation_jobs'::text AS source,
  setting.max_running
FROM (
  SELECT substring(value #>> '{}' from '^ *([0-9]{1,9}) *$')::integer AS max_running
  FROM public.system_settings
  WHERE key = 'generation_queue_max_concurrent'
) AS setting
WHERE setting.max_running > 0;
