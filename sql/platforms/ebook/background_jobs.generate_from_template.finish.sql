-- One generation per job, under the job's own id: whoever waits for it knows where it will be, and a
-- repeat finds it there. Its INSERT's trigger queues it in the same commit. A use of the template is
-- counted where a generation came of it; templates are locked in key order, as everything is.
WITH made AS (
    INSERT INTO ai_processing.ai_generations (
        id, user_id, project_id, chapter_id, model_id, prompt, system_prompt, temperature, max_tokens
    )
    SELECT
        job.id, asked.user_id, asked.project_id, asked.chapter_id, asked.model_id, asked.prompt,
        asked.system_prompt, asked.temperature, asked.max_tokens
    FROM result
    JOIN system.background_jobs AS job ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
    CROSS JOIN LATERAL jsonb_to_record(
        CASE job.job_type WHEN 'generate_from_template' THEN result.data END
    ) AS asked(
        user_id uuid, project_id uuid, chapter_id uuid, model_id uuid, prompt text,
        system_prompt text, temperature numeric, max_tokens integer
    )
    WHERE job.job_type = 'generate_from_template'
    ORDER BY job.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), uses AS (
    SELECT (result.data ->> 'template_id')::uuid AS template_id, count(*) AS times
    FROM result
    JOIN made ON made.id = result.row_id
    GROUP BY 1
), locked AS MATERIALIZED (
    SELECT template.id
    FROM ai_processing.prompt_templates AS template
    WHERE template.id IN (SELECT uses.template_id FROM uses)
    ORDER BY template.id
    FOR NO KEY UPDATE
)
UPDATE ai_processing.prompt_templates AS template
SET usage_count = coalesce(template.usage_count, 0) + uses.times
FROM uses
JOIN locked ON locked.id = uses.template_id
WHERE template.id = uses.template_id;
