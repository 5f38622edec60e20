-- A small, always equal set of authors, books and models for the demo, the tests and the benchmark.
-- Load it once, into a schema just created by schema.sql. It holds no jobs.
--
-- Fixed ids:
--   users          e0000000-0000-4000-8000-00000000000N   1 free, 2 basic, 3 premium, 4 enterprise
--   provider       e1000000-0000-4000-8000-000000000001   openai
--   models         e2000000-0000-4000-8000-000000000001   gpt-4o-mini
--                  e2000000-0000-4000-8000-000000000002   text-embedding-3-small
--   plans          e3000000-0000-4000-8000-00000000000N   1 basic, 2 premium, 3 enterprise
--   subscriptions  e4000000-0000-4000-8000-00000000000N   of users 2, 3 and 4
--   projects       e5000000-0000-4000-8000-000000000001   a baking guide, owned by user 2
--                  e5000000-0000-4000-8000-000000000002   a novella, owned by user 3
--   chapters       e6000000-0000-4000-8000-00000000000N   1 to 4 of project 1, 5 to 8 of project 2
--   template       e7000000-0000-4000-8000-000000000001   a passage on {{subject}}, {{tone}}; public
-- Chapters 4 and 8 are still empty, all others have text.

INSERT INTO users.users (id, email, username, email_verified, tier, created_at) VALUES
    ('e0000000-0000-4000-8000-000000000001', 'free@example.com', 'sample-free', true,
     'free', '2026-01-15 08:00+00'),
    ('e0000000-0000-4000-8000-000000000002', 'basic@example.com', 'sample-basic', true,
     'basic', '2026-01-15 08:00+00'),
    ('e0000000-0000-4000-8000-000000000003', 'premium@example.com', 'sample-premium', true,
     'premium', '2026-01-15 08:00+00'),
    ('e0000000-0000-4000-8000-000000000004', 'enterprise@example.com', 'sample-enterprise', true,
     'enterprise', '2026-01-15 08:00+00');

INSERT INTO ai_processing.ai_providers (id, name, api_endpoint, created_at) VALUES
    ('e1000000-0000-4000-8000-000000000001', 'openai', 'https://api.openai.com/v1',
     '2026-01-15 08:00+00');

INSERT INTO ai_processing.ai_models
    (id, provider_id, name, version, context_window, max_tokens,
     cost_per_input_token, cost_per_output_token, capabilities)
VALUES
    ('e2000000-0000-4000-8000-000000000001', 'e1000000-0000-4000-8000-000000000001',
     'gpt-4o-mini', '2024-07-18', 128000, 16384, 0.00000015, 0.00000060,
     '{"chat": true, "json_mode": true}'),
    ('e2000000-0000-4000-8000-000000000002', 'e1000000-0000-4000-8000-000000000001',
     'text-embedding-3-small', NULL, 8192, NULL, 0.00000002, 0,
     '{"embeddings": true, "dimensions": 1536}');

INSERT INTO ai_processing.prompt_templates
    (id, name, category, system_prompt, user_prompt_template, variables, default_model_id,
     default_parameters, created_by, created_at, is_public)
VALUES
    ('e7000000-0000-4000-8000-000000000001', 'A short passage', 'drafting',
     'You write in a {{tone}} voice.', 'Write a short passage about {{subject}}.',
     '["subject", {"name": "tone", "required": false, "default": "plain"}]',
     'e2000000-0000-4000-8000-000000000001', '{"max_tokens": 300, "temperature": 0.9}',
     'e0000000-0000-4000-8000-000000000004', '2026-02-01 08:00+00', true);

INSERT INTO billing.subscription_plans
    (id, name, price, billing_cycle, ai_tokens_included, projects_limit)
VALUES
    ('e3000000-0000-4000-8000-000000000001', 'Basic', 9.00, 'monthly', 200000, 5),
    ('e3000000-0000-4000-8000-000000000002', 'Premium', 29.00, 'monthly', 1000000, 25),
    ('e3000000-0000-4000-8000-000000000003', 'Enterprise', 199.00, 'monthly', 20000000, 1000);

INSERT INTO billing.user_subscriptions
    (id, user_id, plan_id, stripe_subscription_id, current_period_start, current_period_end,
     amount, created_at)
VALUES
    ('e4000000-0000-4000-8000-000000000002', 'e0000000-0000-4000-8000-000000000002',
     'e3000000-0000-4000-8000-000000000001', 'sub_sample_2',
     '2026-01-15 08:00+00', '2099-01-15 08:00+00', 9.00, '2026-01-15 08:00+00'),
    ('e4000000-0000-4000-8000-000000000003', 'e0000000-0000-4000-8000-000000000003',
     'e3000000-0000-4000-8000-000000000002', 'sub_sample_3',
     '2026-01-15 08:00+00', '2099-01-15 08:00+00', 29.00, '2026-01-15 08:00+00'),
    ('e4000000-0000-4000-8000-000000000004', 'e0000000-0000-4000-8000-000000000004',
     'e3000000-0000-4000-8000-000000000003', 'sub_sample_4',
     '2026-01-15 08:00+00', '2099-01-15 08:00+00', 199.00, '2026-01-15 08:00+00');

INSERT INTO content.projects
    (id, title, description, genre, target_audience, target_word_count, owner_id, status,
     created_at)
VALUES
    ('e5000000-0000-4000-8000-000000000001', 'Bread on a Weekday',
     'A short guide to baking good bread without giving up a working life.',
     'Cooking', 'Home bakers', 20000, 'e0000000-0000-4000-8000-000000000002', 'in_progress',
     '2026-02-01 08:00+00'),
    ('e5000000-0000-4000-8000-000000000002', 'The Keeper of Small Lights',
     'A novella about a lighthouse that nobody needs any more, and the one who stays.',
     'Literary fiction', 'Adults', 30000, 'e0000000-0000-4000-8000-000000000003', 'in_progress',
     '2026-02-01 08:00+00');

INSERT INTO content.chapters (id, project_id, title, position, content, summary, created_at) VALUES
    ('e6000000-0000-4000-8000-000000000001', 'e5000000-0000-4000-8000-000000000001',
     'Flour, Water, Time', 1,
$$Bread asks for less than people think. Flour, water, salt and a little yeast are enough, and three of the four keep for months in a cupboard. What the recipe books do not sell is the fifth ingredient, which is time, and the good news is that most of it passes without you.

A dough left overnight in a cool kitchen does the work that an hour of kneading would do. The flour drinks the water, the proteins find each other, and the yeast turns a part of the starch into flavour. When you come back in the morning, the bowl holds something that was not there the evening before.

So the first lesson of this book is to stop hurrying. Mix the dough after supper, cover it, and go to bed.$$,
     'Why patience replaces kneading.', '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000002', 'e5000000-0000-4000-8000-000000000001',
     'Reading the Dough', 2,
$$A clock can only tell you how long you have waited. The dough tells you whether it is ready. In July it may rise in six hours, in January it may need fourteen, and no table of times knows how warm your kitchen is.

Look at the surface first. It should be domed and show a few bubbles just below the skin. Then wet a finger and press. If the dent springs back at once, the dough wants more time. If it comes back slowly and leaves a shallow mark, it is time to shape. If it does not come back at all, bake at once and expect a flatter, sourer loaf, which is still better than what the shop sells.$$,
     'Judging a rise by eye and finger.', '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000003', 'e5000000-0000-4000-8000-000000000001',
     'A Hot Pot', 3,
$$The crust of a baker's loaf comes from steam. A home oven lets its steam out through the door, and so the dough dries before it has finished rising. A heavy pot with a lid solves this for the price of a pot: the loaf makes its own steam, and the lid keeps it in.

Heat the pot in the oven for half an hour. Lower the dough into it on a sheet of paper, because bare hands and hot iron do not forgive each other. Bake for twenty-five minutes with the lid on and for another fifteen without it. Then comes the hardest part. Let the loaf cool for an hour before you cut it.$$,
     'Steam, crust and a heavy pot.', '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000004', 'e5000000-0000-4000-8000-000000000001',
     'When Things Go Wrong', 4, NULL, NULL, '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000005', 'e5000000-0000-4000-8000-000000000002',
     'The Last Ship', 1,
$$The letter from the harbour office was polite. It thanked the station for a hundred and forty years and regretted that ships now found their way by other means. The lamp could be put out on the last day of September.

The keeper read it twice, folded it, and put it under the clock, where the bills were. Then it was evening, and the lamp had to be lit.

Far out a freighter went by, a row of small lights on the edge of the dark. It did not need the tower. It did not know that there was one. The keeper watched until the last light sank, and wrote the hour into the book, in ink, as on every other night.$$,
     'A letter ends the service of the lighthouse.', '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000006', 'e5000000-0000-4000-8000-000000000002',
     'Oil and Brass', 2,
$$There were thirty-one brass fittings between the door and the lantern room, and they were polished on Tuesdays. Nobody had asked for it in years. The inspectors had stopped coming when the road was washed out, and the supply boat only looked at the crates it brought.

But brass that is not polished goes green, and a stair with green brass is a stair in a house where nobody lives. So on Tuesdays there was the smell of oil and lemon, and by noon the handrail shone all the way up like a thread of light that someone had pulled through the tower.$$,
     'A day of work that nobody asked for.', '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000007', 'e5000000-0000-4000-8000-000000000002',
     'Fog', 3,
$$It came in October, a month after the lamp should have been dark. First the rocks went, then the jetty, then the sea itself. Only its sound was left, close and slow, like an animal asleep beside the wall.

The keeper lit the lamp because the fog was there. That was the whole of the reason. And when, some time after two, a voice called from the water, thin and not at all surprised, it said only: we had hoped that somebody would still be up.$$,
     'The lamp is lit against orders, and somebody sees it.', '2026-02-01 08:00+00'),
    ('e6000000-0000-4000-8000-000000000008', 'e5000000-0000-4000-8000-000000000002',
     'What the Sea Gives Back', 4, '', NULL, '2026-02-01 08:00+00');

UPDATE content.chapters
SET word_count = (SELECT count(*) FROM regexp_matches(content, '\S+', 'g')),
    character_count = length(content)
WHERE content IS NOT NULL;

-- Table statistics that match the rows, or the first jobs are planned for empty tables.
ANALYZE users.users, content.projects, content.chapters, ai_processing.ai_models,
    ai_processing.ai_providers, billing.user_subscriptions;
