-- One content_embeddings row per piece of content and model. A repeat replaces it, and of several
-- jobs of one batch on one piece the last wins.
-- In a file of its own because a database without pgvector has no such table: this statement may
-- only be executed when the batch holds an embedding.
-- Nothing here names the vector type, which may live in any schema: the column's assignment cast
-- makes the vector.
INSERT INTO content.content_embeddings AS stored (content_id, content_type, model, embedding)
SELECT DISTINCT ON (made.content_id, made.content_type, made.model)
    made.content_id,
    made.content_type,
    made.model,
    made.embedding
FROM result
JOIN system.background_jobs AS job ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
CROSS JOIN LATERAL jsonb_to_record(
    CASE job.job_type WHEN 'embed_content' THEN result.data END
) AS made(content_id uuid, content_type text, model text, embedding real[])
WHERE job.job_type = 'embed_content'
ORDER BY made.content_id, made.content_type, made.model,
    job.created_at DESC NULLS LAST, job.id DESC
ON CONFLICT (content_id, content_type, model) DO UPDATE SET
    embedding = excluded.embedding,
    created_at = now();
