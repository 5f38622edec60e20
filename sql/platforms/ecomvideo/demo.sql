-- What EcomVideo's services would insert in a busy minute: about :jobs jobs, half of them videos (each
-- brings a notice, and most a thumbnail, by their users' settings). Every video has a prompt with its
-- job's mark, for the provider's bill. There is no mail server to write to: mail is off.

INSERT INTO public.notification_settings (user_id, email_enabled)
SELECT ('f0000000-0000-4000-8000-00000000000' || n)::uuid, false FROM generate_series(1, 5) AS n
ON CONFLICT (user_id) DO UPDATE SET email_enabled = false;

CREATE TEMPORARY TABLE wanted ON COMMIT DROP AS
SELECT
  n,
  gen_random_uuid() AS video,
  gen_random_uuid() AS job,
  -- Two of five are of user 2, the others of 3, 1 and 5.
  ('f0000000-0000-4000-8000-00000000000' || (ARRAY[2, 3, 2, 1, 5])[1 + n % 5])::uuid AS owner,
  n % 5 AS turn,
  -- Of a page that has to be read first.
  n % 10 = 7 AS unread
FROM generate_series(1, greatest(1, (:jobs + 2) / 3)) AS n;

INSERT INTO public.videos
  (id, user_id, template_id, product_data_id, title, text_prompt, input_type, status, resolution, aspect_ratio,
   duration_seconds, image_url, ai_provider, generation_cost_credits, created_at)
SELECT
  video, owner,
  CASE WHEN turn = 2 THEN 'f5000000-0000-4000-8000-000000000001'::uuid END,
  CASE WHEN turn = 2 AND NOT unread THEN 'f4000000-0000-4000-8000-000000000001'::uuid END,
  'Demo ' || n,
  'A lamp at dusk, number ' || n || ' [job:video_jobs/' || job || ']',
  CASE turn WHEN 0 THEN 'Image' WHEN 2 THEN 'Url' ELSE 'Text' END,
  'Pending', '720x1280', '9:16', 5,
  CASE turn WHEN 0 THEN 'https://shop.example.com/images/lamp.jpg' END,
  CASE WHEN turn = 1 AND n % 2 = 0 THEN 'StabilityAI' END,
  CASE turn WHEN 3 THEN 3 ELSE 0 END,
  now() AT TIME ZONE 'UTC'
FROM wanted;

INSERT INTO public.background_jobs (id, job_type, job_data, priority, scheduled_at, created_at)
SELECT
  job,
  CASE n % 2 WHEN 0 THEN 'GenerateVideo' ELSE 'generate_video' END,
  jsonb_build_object((ARRAY['videoId', 'video_id', 'VideoId'])[1 + n % 3], video)
    || CASE WHEN unread THEN jsonb_build_object('ProductUrl', ':sandbox/shop/products/' || n) ELSE '{}' END,
  n % 9,
  now() AT TIME ZONE 'UTC',
  now() AT TIME ZONE 'UTC'
FROM wanted;
