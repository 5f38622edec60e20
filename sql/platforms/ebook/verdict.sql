-- One row per job: what became of it, and whether the tables keep what the map promises of it.
SELECT
    'ai_generations' AS source,
    job.id::text AS key,
    job.status::text AS status,
    CASE WHEN job.status IN ('completed', 'failed', 'cancelled') THEN job.status::text END
        AS finished,
    job.status = 'completed' AS metered,
    (SELECT count(*) FROM billing.usage_records AS used WHERE used.ai_generation_id = job.id)
        AS usage,
    NULL::text AS url,
    CASE job.status
        WHEN 'completed'
        THEN job.response <> '' AND job.tokens_used > 0 AND job.cost > 0
            AND job.completed_at IS NOT NULL AND job.processing_time_ms IS NOT NULL
            AND (job.chapter_id IS NULL OR EXISTS (
                SELECT FROM content.content_versions AS version
                WHERE version.chapter_id = job.chapter_id
                    AND version.change_summary = 'AI generation ' || job.id
            ))
        WHEN 'failed' THEN job.error_message IS NOT NULL
        ELSE true
    END AS consistent
FROM ai_processing.ai_generations AS job
UNION ALL
SELECT
    'background_jobs',
    job.id::text,
    job.status::text,
    CASE WHEN job.status IN ('completed', 'failed', 'cancelled') THEN job.status::text END,
    false,
    0,
    NULL,
    CASE job.status
        WHEN 'completed'
        THEN job.completed_at IS NOT NULL AND job.error_message IS NULL AND CASE job.job_type
            -- Not of embed_content: without pgvector there is no table to name.
            WHEN 'content_statistics' THEN EXISTS (
                SELECT FROM content.content_statistics AS made
                WHERE made.content_id = (job.payload ->> 'content_id')::uuid
            )
            WHEN 'generate_from_template' THEN EXISTS (
                SELECT FROM ai_processing.ai_generations AS made WHERE made.id = job.id
            )
            ELSE true
        END
        WHEN 'failed' THEN job.error_message IS NOT NULL
        ELSE true
    END
FROM system.background_jobs AS job;
