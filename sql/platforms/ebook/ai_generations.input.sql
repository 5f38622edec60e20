-- What a text generation works on, and what its model can do and costs.
-- Prices are texts, so that no reader turns them into floating-point numbers; a provider's own stands
-- in where a model has none.
SELECT
    job.id AS key,
    jsonb_build_object(
        'prompt', job.prompt,
        'system_prompt', job.system_prompt,
        'temperature', coalesce(job.temperature, 0.7),
        'max_tokens', job.max_tokens,
        'model', model.name,
        'version', model.version,
        'model_status', coalesce(model.status, 'active'),
        'provider', provider.name,
        'provider_status', coalesce(provider.status, 'active'),
        'cost_per_input_token', coalesce(model.cost_per_input_token, provider.cost_per_token)::text,
        'cost_per_output_token', coalesce(model.cost_per_output_token, provider.cost_per_token)::text,
        'capabilities', coalesce(model.capabilities, '{}'),
        'context_window', model.context_window,
        'model_max_tokens', model.max_tokens,
        'chapter_id', job.chapter_id,
        'project_id', job.project_id,
        'user_id', job.user_id,
        'user_status', coalesce(account.status, 'active'),
        -- Asked for by the job that made this one of a template, else by the book.
        'replace_content', coalesce(said.by_job, said.by_book)
    ) AS input
-- OFFSET 0 keeps the rows' keys the way in: a plan made while tables were small went by user.
FROM (
  SELECT * FROM ai_processing.ai_generations WHERE id = ANY(rowmill_keys) OFFSET 0
) AS job
JOIN ai_processing.ai_models AS model ON model.id = job.model_id
JOIN ai_processing.ai_providers AS provider ON provider.id = model.provider_id
JOIN users.users AS account ON account.id = job.user_id
LEFT JOIN content.chapters AS chapter ON chapter.id = job.chapter_id
LEFT JOIN content.projects AS book ON book.id = chapter.project_id
LEFT JOIN system.background_jobs AS asked
    ON asked.id = job.id AND asked.job_type = 'generate_from_template'
CROSS JOIN LATERAL (
    SELECT
        (
            SELECT entry.value::boolean
            FROM jsonb_each(
                CASE jsonb_typeof(asked.payload) WHEN 'object' THEN asked.payload ELSE '{}' END
            ) AS entry
            WHERE lower(replace(entry.key, '_', '')) = 'replacecontent'
                AND jsonb_typeof(entry.value) = 'boolean'
            ORDER BY strpos(entry.key, '_') DESC
            LIMIT 1
        ) AS by_job,
        CASE jsonb_typeof(book.ai_configuration -> 'replace_content')
            WHEN 'boolean' THEN (book.ai_configuration -> 'replace_content')::boolean
        END AS by_book
) AS said;
