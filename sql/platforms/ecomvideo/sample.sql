-- A few rows to try EcomVideo with. Every id is fixed, so that tests and demos can name them:
--
--   users          f0000000-0000-4000-8000-00000000000N   1 without a subscription, 2 Starter, 3 Studio,
--                                                         4 inactive, 5 on trial of Studio
--   plans          f1000000-0000-4000-8000-00000000000N   1 Starter (Freepik; 10 s, 1080p),
--                                                         2 Studio (all providers; 60 s, 4k, templates)
--   credits        f3000000-0000-4000-8000-00000000000N   one row of each user
--   products       f4000000-0000-4000-8000-00000000000N   1 read already, of user 2; 2 not yet, of user 3
--   templates      f5000000-0000-4000-8000-00000000000N   1 for all, 2 premium, 3 not active
--   videos         f6000000-0000-4000-8000-00000000000N   of user N: 1 to 3 Text, 4 Text, 5 Image
--
-- Users 1 to 3 and 5 have credits for any demo.

INSERT INTO public.users (id, email, password_hash, first_name, is_active, created_at)
SELECT ('f0000000-0000-4000-8000-00000000000' || n)::uuid, 'shop' || n || '@example.com', '-', 'Shop ' || n, n <> 4,
       '2026-01-10 08:00'
FROM generate_series(1, 5) AS n;

INSERT INTO public.user_preferences (user_id, preferred_ai_provider, auto_generate_thumbnails, created_at) VALUES
    ('f0000000-0000-4000-8000-000000000002', 'Freepik', true, '2026-01-10 08:00'),
    ('f0000000-0000-4000-8000-000000000003', 'RunwayML', true, '2026-01-10 08:00'),
    ('f0000000-0000-4000-8000-000000000005', 'Freepik', false, '2026-01-10 08:00');

INSERT INTO public.notification_settings (user_id, video_completed, video_failed, created_at) VALUES
    ('f0000000-0000-4000-8000-000000000002', true, true, '2026-01-10 08:00'),
    ('f0000000-0000-4000-8000-000000000005', false, false, '2026-01-10 08:00');

INSERT INTO public.subscription_plans
    (id, name, price_monthly, video_credits_monthly, max_video_duration, max_resolution, ai_providers, features, created_at)
VALUES
    ('f1000000-0000-4000-8000-000000000001', 'Starter', 19.00, 30, 10, '1080p', ARRAY['Freepik'],
     '["HD Video Generation"]', '2026-01-10 08:00'),
    ('f1000000-0000-4000-8000-000000000002', 'Studio', 99.00, 300, 60, '4k', ARRAY['Freepik', 'RunwayML', 'StabilityAI'],
     '["HD Video Generation", "Premium Templates", "Priority Processing"]', '2026-01-10 08:00');

INSERT INTO public.user_subscriptions
    (id, user_id, subscription_plan_id, status, billing_cycle, price_paid, started_at, ends_at, trial_ends_at, created_at)
VALUES
    ('f2000000-0000-4000-8000-000000000002', 'f0000000-0000-4000-8000-000000000002',
     'f1000000-0000-4000-8000-000000000001', 'Active', 'Monthly', 19.00, '2026-01-10', '2099-01-10', NULL, '2026-01-10 08:00'),
    ('f2000000-0000-4000-8000-000000000003', 'f0000000-0000-4000-8000-000000000003',
     'f1000000-0000-4000-8000-000000000002', 'Active', 'Monthly', 99.00, '2026-01-10', '2099-01-10', NULL, '2026-01-10 08:00'),
    ('f2000000-0000-4000-8000-000000000004', 'f0000000-0000-4000-8000-000000000004',
     'f1000000-0000-4000-8000-000000000002', 'Active', 'Monthly', 99.00, '2026-01-10', '2099-01-10', NULL, '2026-01-10 08:00'),
    ('f2000000-0000-4000-8000-000000000005', 'f0000000-0000-4000-8000-000000000005',
     'f1000000-0000-4000-8000-000000000002', 'Trial', 'Monthly', 0, '2026-01-10', '2099-01-10', '2099-01-10', '2026-01-10 08:00');

INSERT INTO public.usage_credits (id, user_id, credit_type, amount, source, expires_at, created_at)
SELECT ('f3000000-0000-4000-8000-00000000000' || n)::uuid, ('f0000000-0000-4000-8000-00000000000' || n)::uuid,
       'VideoGeneration', 100000, CASE n WHEN 1 THEN 'Purchase' ELSE 'Subscription' END,
       CASE n WHEN 1 THEN NULL ELSE '2099-01-10'::timestamp END, '2026-01-10 08:00'
FROM generate_series(1, 5) AS n;

INSERT INTO public.scraping_rules (domain, platform, selectors, headers, delay_ms, created_at) VALUES
    ('shop.example.com', 'Shopify', '{"name": "h1", "price": ".price", "image": ".gallery img"}',
     '{"Accept-Language": "en"}', 1000, '2026-01-10 08:00'),
    ('closed.example.com', 'Custom', '{"name": "h1"}', NULL, 1000, '2026-01-10 08:00');
UPDATE public.scraping_rules SET is_active = false WHERE domain = 'closed.example.com';

INSERT INTO public.product_data
    (id, user_id, original_url, domain, platform, name, description, price, brand, main_image_url, scraping_status, scraped_at,
     created_at)
VALUES
    ('f4000000-0000-4000-8000-000000000001', 'f0000000-0000-4000-8000-000000000002',
     'https://shop.example.com/products/lamp', 'shop.example.com', 'Shopify', 'Reading Lamp', 'A lamp for long evenings.', 49.90,
     'Nordlys', 'https://shop.example.com/images/lamp.jpg', 'Success', '2026-01-11 08:00', '2026-01-11 08:00'),
    ('f4000000-0000-4000-8000-000000000002', 'f0000000-0000-4000-8000-000000000003',
     'https://shop.example.com/products/chair', 'shop.example.com', NULL, 'Chair', NULL, NULL, NULL, NULL, 'Pending', NULL,
     '2026-01-11 08:00');

INSERT INTO public.video_templates
    (id, name, prompt_template, style_settings, default_duration, aspect_ratio, resolution, is_premium, is_active, created_at)
VALUES
    ('f5000000-0000-4000-8000-000000000001', 'Turntable', 'A slow turn around {product_name} by {brand}. {text_prompt}',
     '{"style": "studio", "lighting": "soft"}', 5, '9:16', '1080x1920', false, true, '2026-01-10 08:00'),
    ('f5000000-0000-4000-8000-000000000002', 'Runway walk', 'A catwalk for {title}. {text_prompt}', NULL, 5, '9:16', '1080x1920',
     true, true, '2026-01-10 08:00'),
    ('f5000000-0000-4000-8000-000000000003', 'Retired', '{text_prompt}', NULL, 5, '9:16', '1080x1920', false, false,
     '2026-01-10 08:00');

INSERT INTO public.videos
    (id, user_id, title, text_prompt, input_type, status, resolution, aspect_ratio, duration_seconds, image_url, created_at)
SELECT ('f6000000-0000-4000-8000-00000000000' || n)::uuid, ('f0000000-0000-4000-8000-00000000000' || n)::uuid, 'Video ' || n,
       'A reading lamp on a desk at dusk', CASE n WHEN 5 THEN 'Image' ELSE 'Text' END, 'Pending', '1080x1920', '9:16', 5,
       CASE n WHEN 5 THEN 'https://shop.example.com/images/lamp.jpg' END, '2026-01-12 08:00'
FROM generate_series(1, 5) AS n;

-- Table statistics that match the rows, or the first jobs are planned for empty tables.
ANALYZE public.users, public.user_preferences, public.notification_settings, public.subscription_plans,
    public.user_subscriptions, public.usage_credits, public.scraping_rules, public.product_data,
    public.product_images, public.video_templates, public.videos, public.background_jobs;
