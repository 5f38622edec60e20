-- Whose job it is: the video's owner, else the product's, else whoever the payload names. The table
-- has no column for it, so the engine asks at each start; credits are locked and counted by it.
SELECT
  job.id AS key,
  coalesce(video.user_id, product.user_id, job.user_id)::text AS tenant
FROM (
  SELECT
    named.id,
    rowmill.said_id(named.job_data, 'video_id') AS video_id,
    rowmill.said_id(named.job_data, 'product_data_id') AS product_id,
    rowmill.said_id(named.job_data, 'user_id') AS user_id
  FROM public.background_jobs AS named
  WHERE named.id = ANY(rowmill_keys)
  OFFSET 0
) AS job
LEFT JOIN LATERAL (
  SELECT one.user_id FROM public.videos AS one WHERE one.id = job.video_id LIMIT 1
) AS video ON true
LEFT JOIN LATERAL (
  SELECT one.user_id FROM public.product_data AS one WHERE one.id = job.product_id LIMIT 1
) AS product ON true;
