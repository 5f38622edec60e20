-- Six in ten are texts, a tenth of them by a template; the rest is other background work. Every prompt
-- carries its job's id, by which the sandbox ascribes what it bills. The customers are those of the
-- two largest plans.
INSERT INTO ai_processing.ai_generations (
    id, user_id, project_id, chapter_id, model_id, prompt, system_prompt, max_tokens
)
SELECT
    id,
    ('e0000000-0000-4000-8000-00000000000' || 3 + n % 2)::uuid,
    ('e5000000-0000-4000-8000-00000000000' || 1 + n % 2)::uuid,
    CASE
        WHEN n % 3 = 0
        THEN ('e6000000-0000-4000-8000-00000000000' || CASE n % 2 WHEN 0 THEN 4 ELSE 8 END)::uuid
    END,
    'e2000000-0000-4000-8000-000000000001',
    'Write a paragraph about the smell of bread [job:ai_generations/' || id || ']',
    'You are a patient editor.',
    200
FROM (
    SELECT n, gen_random_uuid() AS id FROM generate_series(1, :jobs - :jobs * 2 / 5 - 2 * (:jobs / 10)) AS n
) AS planned;

WITH planned AS (
    SELECT
        n,
        gen_random_uuid() AS job,
        gen_random_uuid() AS chapter,
        -- Without pgvector embeddings would wait for their table.
        CASE
            WHEN n % 2 = 0 AND to_regclass('content.content_embeddings') IS NOT NULL
            THEN 'embed_content'
            ELSE 'content_statistics'
        END AS kind
    FROM generate_series(1, :jobs * 2 / 5) AS n
), chapters AS (
    INSERT INTO content.chapters (id, project_id, title, position, content)
    SELECT
        chapter,
        'e5000000-0000-4000-8000-000000000001',
        'Demo ' || n,
        n + (SELECT max(c.position) FROM content.chapters c
              WHERE c.project_id = 'e5000000-0000-4000-8000-000000000001'),
        'The oven must be hot before the dough goes in. Patience is the first ingredient. '
            || '[job:background_jobs/' || job || ']'
    FROM planned
    RETURNING id
)
INSERT INTO system.background_jobs (id, job_type, payload, priority)
SELECT
    planned.job,
    planned.kind,
    jsonb_build_object('content_type', 'chapter', 'content_id', planned.chapter),
    planned.n % 5 - 2
FROM planned
JOIN chapters ON chapters.id = planned.chapter;

-- A template's job and the text it asks for have one id.
INSERT INTO system.background_jobs (id, job_type, payload, priority)
SELECT
    id,
    'generate_from_template',
    jsonb_build_object(
        'template_id', 'e7000000-0000-4000-8000-000000000001',
        'user_id', 'e0000000-0000-4000-8000-000000000004',
        'chapter_id', 'e6000000-0000-4000-8000-000000000004',
        'variables', jsonb_build_object(
            'subject', 'a loaf that did not rise [job:ai_generations/' || id || ']'
        )
    ),
    n % 3
FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, :jobs / 10) AS n) AS planned;
