-- A generation for a chapter becomes the chapter's next version. The engine holds the chapters'
-- locks, so nobody else of the fleet numbers a version meanwhile. Jobs of one batch on one chapter
-- are numbered in the order they were asked for.
INSERT INTO content.content_versions (
    chapter_id, version_number, content, title, change_summary, changed_by, change_type, word_count
)
SELECT
    job.chapter_id,
    coalesce(newest.version_number, 0)
        + row_number() OVER (PARTITION BY job.chapter_id ORDER BY job.created_at, job.id),
    result.text,
    chapter.title,
    'AI generation ' || job.id,
    job.user_id,
    'ai_generation',
    (SELECT count(*) FROM regexp_matches(result.text, '\S+', 'g'))
FROM result
JOIN ai_processing.ai_generations AS job
    ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
JOIN content.chapters AS chapter ON chapter.id = job.chapter_id
LEFT JOIN LATERAL (
    SELECT version.version_number
    FROM content.content_versions AS version
    WHERE version.chapter_id = job.chapter_id
    ORDER BY version.version_number DESC
    LIMIT 1
) AS newest ON true
WHERE result.text IS NOT NULL;

-- The chapter names its latest generation. Its text is replaced only if it has none or the job
-- asked for it. Of several jobs of one batch the last such one wins, but one that asked before one
-- that only found the chapter empty.
UPDATE content.chapters AS chapter
SET ai_generated = true,
    ai_model = latest.model,
    ai_prompt_used = latest.prompt,
    ai_generation_timestamp = now(),
    content = CASE WHEN latest.replaces THEN latest.text ELSE chapter.content END,
    word_count = CASE
        WHEN latest.replaces
        THEN (SELECT count(*) FROM regexp_matches(latest.text, '\S+', 'g'))
        ELSE chapter.word_count
    END,
    character_count = CASE
        WHEN latest.replaces THEN length(latest.text) ELSE chapter.character_count
    END,
    updated_at = now()
FROM (
    SELECT DISTINCT ON (done.chapter_id)
        done.chapter_id,
        first_value(done.model) OVER by_age AS model,
        first_value(done.prompt) OVER by_age AS prompt,
        first_value(done.text) OVER by_claim AS text,
        first_value(done.asked OR done.was_empty) OVER by_claim AS replaces
    FROM (
        SELECT
            job.id,
            job.chapter_id,
            job.created_at,
            job.prompt,
            left(coalesce(result.model, model.name), 100) AS model,
            result.text,
            coalesce(result.data ->> 'replace_content' = 'true', false) AS asked,
            coalesce(target.content, '') !~ '\S' AS was_empty
        FROM result
        JOIN ai_processing.ai_generations AS job
            ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
        JOIN ai_processing.ai_models AS model ON model.id = job.model_id
        JOIN content.chapters AS target ON target.id = job.chapter_id
        WHERE result.text IS NOT NULL
    ) AS done
    WINDOW
        by_age AS (
            PARTITION BY done.chapter_id ORDER BY done.created_at DESC NULLS LAST, done.id DESC
        ),
        by_claim AS (
            PARTITION BY done.chapter_id
            ORDER BY done.asked DESC, done.created_at DESC NULLS LAST, done.id DESC
        )
    ORDER BY done.chapter_id
) AS latest
WHERE chapter.id = latest.chapter_id;
