-- A background job's payload and what it names: for the kinds that work on content, that content's
-- text; for a template, the template, the model and whose and where the text is to be. What is gone,
-- or named by nothing, is null. A payload is anything its producer wrote, its keys in any spelling:
-- what is not a UUID becomes null before it is cast, so no payload fails the batch.
SELECT
    job.id AS key,
    jsonb_build_object(
        'job_type', job.job_type,
        'payload', job.payload,
        'content_id', named.content_id,
        'content_type', named.content_type,
        'content_title', coalesce(chapter.title, book.title),
        'content_text', CASE named.content_type
            WHEN 'chapter' THEN chapter.text
            WHEN 'summary' THEN chapter.summary
            WHEN 'project' THEN book.text
        END,
        'template', template.row,
        'model_id', model.id,
        'user_status', account.status,
        'project_id', place.project_id,
        'chapter_id', place.chapter_id
    ) AS input
FROM (
    SELECT * FROM system.background_jobs WHERE id = ANY(rowmill_keys) OFFSET 0
) AS job
CROSS JOIN LATERAL (
    SELECT
        max(word.text) FILTER (WHERE word.name = 'contenttype') AS content_type,
        max(word.id::text) FILTER (WHERE word.name = 'contentid')::uuid AS content_id,
        max(word.id::text) FILTER (WHERE word.name = 'templateid')::uuid AS template_id,
        max(word.id::text) FILTER (WHERE word.name = 'modelid')::uuid AS model_id,
        max(word.id::text) FILTER (WHERE word.name = 'userid')::uuid AS user_id,
        max(word.id::text) FILTER (WHERE word.name = 'projectid')::uuid AS project_id,
        max(word.id::text) FILTER (WHERE word.name = 'chapterid')::uuid AS chapter_id
    FROM (
        -- Of several spellings the one with the underscore, which is the handlers', too.
        SELECT DISTINCT ON (lower(replace(entry.key, '_', '')))
            lower(replace(entry.key, '_', '')) AS name,
            entry.value AS text,
            substring(
                entry.value from '^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'
            )::uuid AS id
        FROM jsonb_each_text(
            CASE jsonb_typeof(job.payload) WHEN 'object' THEN job.payload ELSE '{}' END
        ) AS entry
        ORDER BY lower(replace(entry.key, '_', '')), strpos(entry.key, '_') DESC
    ) AS word
    WHERE job.job_type IN ('embed_content', 'content_statistics', 'generate_from_template')
) AS named
LEFT JOIN LATERAL (
    SELECT found.title, coalesce(found.content, '') AS text, coalesce(found.summary, '') AS summary
    FROM content.chapters AS found
    WHERE found.id = named.content_id AND named.content_type IN ('chapter', 'summary')
) AS chapter ON true
LEFT JOIN LATERAL (
    SELECT
        project.title,
        coalesce((
            SELECT string_agg(part.content, E'\n\n' ORDER BY part.position)
            FROM content.chapters AS part
            WHERE part.project_id = project.id
        ), '') AS text
    FROM content.projects AS project
    WHERE project.id = named.content_id AND named.content_type = 'project'
) AS book ON true
LEFT JOIN LATERAL (
    SELECT
        found.default_model_id,
        jsonb_build_object(
            'id', found.id,
            'system_prompt', found.system_prompt,
            'user_prompt_template', found.user_prompt_template,
            'variables', found.variables,
            'default_parameters', found.default_parameters
        ) AS row
    FROM ai_processing.prompt_templates AS found
    WHERE found.id = named.template_id AND (found.is_public OR found.created_by = named.user_id)
) AS template ON true
LEFT JOIN ai_processing.ai_models AS model
    ON model.id = coalesce(named.model_id, template.default_model_id)
LEFT JOIN LATERAL (
    SELECT coalesce(found.status, 'active') AS status
    FROM users.users AS found
    WHERE found.id = named.user_id
) AS account ON true
LEFT JOIN LATERAL (
    -- A chapter's project is its own, whatever else the payload says.
    SELECT found.id AS chapter_id, found.project_id
    FROM content.chapters AS found
    WHERE found.id = named.chapter_id
    UNION ALL
    SELECT NULL, found.id
    FROM content.projects AS found
    WHERE found.id = named.project_id AND named.chapter_id IS NULL
) AS place ON true;
