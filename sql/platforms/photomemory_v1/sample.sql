-- A small, always equal set of customers and projects for the demo and the tests. Load it once, into
-- a schema just created by schema.sql. It holds no generated_videos.
--
-- Fixed ids (NN is 01 to 10, two decimal digits), none of them PhotoMemory's:
--   user NN          a1000000-0000-4000-8000-0000000000NN   v1-userNN@example.com
--   project NN       b1000000-0000-4000-8000-0000000000NN   owned by user NN
--   subscription NN  c1000000-0000-4000-8000-0000000000NN   of user NN, 04 to 10
--   photo P of NN    d1000000-0000-4000-8000-00000000NN0P   P from 1, in upload order
--
-- Plans: 01 to 03 free, 04 to 07 pro, 08 to 10 enterprise; no plan limits videos. Project NN has
-- 2 + (NN mod 4) photos, inserted last photo first, so that only upload_order tells their order.
-- Project 09 leaves its length to the provider, all others ask for two seconds.

INSERT INTO auth.users (id, email)
SELECT ('a1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       'v1-user' || lpad(n::text, 2, '0') || '@example.com'
FROM generate_series(1, 10) AS n;

INSERT INTO public.users (id, email, display_name, language, subscription_plan, created_at)
SELECT ('a1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       'v1-user' || lpad(n::text, 2, '0') || '@example.com',
       'Sample user ' || lpad(n::text, 2, '0'),
       (ARRAY['en', 'ko', 'ja', 'es', 'de'])[1 + n % 5],
       CASE WHEN n < 4 THEN 'free' WHEN n < 8 THEN 'pro' ELSE 'enterprise' END,
       '2026-01-10 08:00+00'::timestamptz + make_interval(days => n / 4)
FROM generate_series(1, 10) AS n;

INSERT INTO public.subscriptions
  (id, user_id, plan_id, stripe_subscription_id, current_period_start, current_period_end)
SELECT ('c1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       ('a1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       CASE WHEN n < 8 THEN 'pro' ELSE 'enterprise' END,
       'sub_v1_sample_' || lpad(n::text, 2, '0'),
       '2026-01-15 08:00+00', '2099-01-15 08:00+00'
FROM generate_series(4, 10) AS n;

INSERT INTO public.video_projects (id, user_id, title_i18n, style, ai_prompt, metadata, created_at)
SELECT ('b1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       ('a1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       jsonb_build_object('en', 'Memory ' || lpad(n::text, 2, '0'), 'de', 'Erinnerung'),
       (ARRAY['classic', 'modern', 'cinematic', 'vintage'])[1 + n % 4]::public.video_style,
       'A family album comes alive, page by page',
       CASE n WHEN 9 THEN '{}' ELSE '{"duration_seconds": 2, "aspect_ratio": "16:9"}' END::jsonb,
       '2026-02-01 08:00+00'
FROM generate_series(1, 10) AS n;

INSERT INTO public.photos
  (id, project_id, file_url, thumbnail_url, original_filename, file_size_bytes, mime_type,
   width, height, upload_order, created_at)
SELECT ('d1000000-0000-4000-8000-00000000' || lpad(n::text, 2, '0') || lpad(p::text, 2, '0'))::uuid,
       ('b1000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       format('https://photos.example.com/v1/%s/photo-%s.jpg', lpad(n::text, 2, '0'), p),
       format('https://photos.example.com/v1/%s/photo-%s-small.jpg', lpad(n::text, 2, '0'), p),
       'photo-' || p || '.jpg', 240000 + 1000 * n + p, 'image/jpeg', 1600, 1200, p,
       '2026-02-01 09:00+00'
FROM generate_series(1, 10) AS n, LATERAL generate_series(2 + n % 4, 1, -1) AS p;

-- Table statistics that match the rows, or the first jobs are planned for empty tables.
ANALYZE public.users, public.subscriptions, public.video_projects, public.photos;
