-- A background job's payload and, for the kinds that work on content, that content's text: null
-- when the payload names none or it is gone. A payload is anything its producer wrote: what is not
-- a UUID becomes null before it is cast, so no payload fails the batch.
SELECT
    job.id AS key,
    jsonb_build_object(
        'job_type', job.job_type,
        'payload', job.payload,
        'content_id', named.id,
        'content_type', named.type,
        'content_title', coalesce(chapter.title, book.title),
        'content_text', CASE named.type
            WHEN 'chapter' THEN chapter.text
            WHEN 'summary' THEN chapter.summary
            WHEN 'project' THEN book.text
        END
    ) AS input
FROM system.background_jobs AS job
LEFT JOIN LATERAL (
    SELECT
        substring(
            job.payload ->> 'content_id'
            from '^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'
        )::uuid AS id,
        job.payload ->> 'content_type' AS type
    WHERE job.job_type IN ('embed_content', 'content_statistics')
) AS named ON true
LEFT JOIN LATERAL (
    SELECT found.title, coalesce(found.content, '') AS text, coalesce(found.summary, '') AS summary
    FROM content.chapters AS found
    WHERE found.id = named.id AND named.type IN ('chapter', 'summary')
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
    WHERE project.id = named.id AND named.type = 'project'
) AS book ON true
WHERE job.id = ANY(rowmill_keys);
