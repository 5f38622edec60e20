-- A small, always equal set of customers and projects for the demo, the tests and the benchmark.
-- Load it once, into a schema just created by schema.sql. It holds no generation_jobs.
--
-- Fixed ids (NN is 01 to 10, two decimal digits):
--   user NN          a0000000-0000-4000-8000-0000000000NN   userNN@example.com
--   project NN       b0000000-0000-4000-8000-0000000000NN   owned by user NN
--   subscription NN  c0000000-0000-4000-8000-0000000000NN   of user NN, 03 to 10
--   photo P of NN    d0000000-0000-4000-8000-00000000NN0P   P from 1, in display order
--
-- Plans: 01 and 02 have no subscription (so the free plan), 03 has a free one, 04 to 07 pro,
-- 08 to 10 enterprise. Project NN has 2 + (NN mod 4) photos, inserted last photo first, so that
-- only display_order tells their order. All photos of a user together are below 2 MB.
-- Project 09 leaves its length to the provider, all others ask for two seconds.

INSERT INTO auth.users (id, email)
SELECT ('a0000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       'user' || lpad(n::text, 2, '0') || '@example.com'
FROM generate_series(1, 10) AS n
ON CONFLICT (id) DO NOTHING;

INSERT INTO public.users
  (id, email, display_name, language, onboarding_completed, last_activity_at, created_at)
SELECT id, email, 'Sample user ' || substring(email from '[0-9]+'),
       (ARRAY['en', 'ko', 'ja', 'es', 'de'])[1 + row_number() OVER (ORDER BY id) % 5],
       true, '2026-10-01 08:00+00', '2026-01-15 08:00+00'
FROM auth.users
WHERE id::text LIKE 'a0000000-0000-4000-8000-0000000000__';

INSERT INTO public.user_subscriptions
  (id, user_id, plan_id, current_period_start, current_period_end,
   stripe_subscription_id, created_at)
SELECT ('c0000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       ('a0000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       CASE WHEN n = 3 THEN 'free' WHEN n < 8 THEN 'pro' ELSE 'enterprise' END,
       '2026-01-15 08:00+00', '2099-01-15 08:00+00',
       CASE WHEN n > 3 THEN 'sub_sample_' || lpad(n::text, 2, '0') END,
       '2026-01-15 08:00+00'
FROM generate_series(3, 10) AS n;

INSERT INTO public.video_projects
  (id, user_id, title_i18n, style, aspect_ratio, resolution,
   ai_prompt, generation_settings, created_at)
SELECT ('b0000000-0000-4000-8000-0000000000' || number)::uuid,
       ('a0000000-0000-4000-8000-0000000000' || number)::uuid,
       title, style::public.video_style, aspect_ratio, resolution, prompt, settings,
       '2026-02-01 08:00+00'
FROM (VALUES
  ('01', '{"en": "A summer by the lake"}'::jsonb, 'classic', '16:9', '720p',
   'Sunlight on a quiet lake, children jumping from a wooden jetty, slow camera pan to the hills',
   '{"duration_seconds": 2}'::jsonb),
  ('02', '{"en": "First steps", "ko": "첫걸음"}', 'modern', '9:16', '720p',
   'A toddler takes first steps across a bright living room, soft morning light, gentle zoom',
   '{"duration_seconds": 2}'),
  ('03', '{"ja": "春の庭", "en": "The garden in spring"}', 'vintage', '4:3', '720p',
   'Cherry blossoms drift over a small garden, faded film colours, a cat asleep on the stones',
   '{"duration_seconds": 2}'),
  ('04', '{"es": "Boda en el campo"}', 'cinematic', '16:9', '1080p',
   'A country wedding at dusk, lanterns in the olive trees, guests dancing, wide slow dolly shot',
   '{"duration_seconds": 2}'),
  ('05', '{"en": "Grandmother''s kitchen"}', 'classic', '1:1', '720p',
   'Hands knead dough on a floured table, steam at the window, warm tones, close-up',
   '{"duration_seconds": 2}'),
  ('06', '{"de": "Wanderung im Schnee", "en": "A walk in the snow"}', 'modern', '16:9', '1080p',
   'Two hikers cross a snowy ridge, breath in the cold air, the camera rises above the valley',
   '{"duration_seconds": 2}'),
  ('07', '{"en": "The old sailing boat"}', 'vintage', '16:9', '720p',
   'A wooden sailing boat leaves the harbour, gulls, grain and light leaks as on old film',
   '{"duration_seconds": 2}'),
  ('08', '{"en": "Graduation day"}', 'cinematic', '9:16', '1080p',
   'Caps fly into the air in front of a brick hall, slow motion, confetti, laughing faces',
   '{"duration_seconds": 2}'),
  ('09', '{"en": "City at night"}', 'modern', '16:9', '720p',
   'Neon reflections on wet streets, a tram passes, the skyline glitters, smooth tracking shot',
   '{}'),
  ('10', '{"en": "Four generations"}', 'classic', '16:9', '1080p',
   'A family of four generations on a garden bench, portraits blend into one another',
   '{"duration_seconds": 2}')
) AS sample(number, title, style, aspect_ratio, resolution, prompt, settings);

INSERT INTO public.media_files
  (id, user_id, original_filename, file_key, file_url, thumbnail_url, file_type, mime_type,
   file_size_bytes, width, height, folder_path, created_at)
SELECT ('d0000000-0000-4000-8000-00000000' || lpad(n::text, 2, '0') || lpad(p::text, 2, '0'))::uuid,
       ('a0000000-0000-4000-8000-0000000000' || lpad(n::text, 2, '0'))::uuid,
       'photo-' || p || '.jpg',
       format('uploads/%s/photo-%s.jpg', lpad(n::text, 2, '0'), p),
       format('https://photos.example.com/%s/photo-%s.jpg', lpad(n::text, 2, '0'), p),
       format('https://photos.example.com/%s/photo-%s-small.jpg', lpad(n::text, 2, '0'), p),
       'image', 'image/jpeg', 240000 + 1000 * n + p, 1600, 1200, '/photos', '2026-02-01 09:00+00'
FROM generate_series(1, 10) AS n, LATERAL generate_series(2 + n % 4, 1, -1) AS p;

INSERT INTO public.project_media (project_id, media_file_id, display_order, duration_seconds)
SELECT project.id, file.id, substring(file.original_filename from '[0-9]+')::integer, 3.5
FROM public.media_files AS file
JOIN public.video_projects AS project ON project.user_id = file.user_id
ORDER BY file.id DESC;

UPDATE public.video_projects AS project
SET photo_count = photos.count, total_file_size_bytes = photos.bytes
FROM (
  SELECT user_id, count(*) AS count, sum(file_size_bytes) AS bytes
  FROM public.media_files
  GROUP BY user_id
) AS photos
WHERE photos.user_id = project.user_id;

-- Table statistics that match the rows, or the first jobs are planned for empty tables.
ANALYZE public.users, public.user_subscriptions, public.media_files, public.video_projects,
  public.project_media;
