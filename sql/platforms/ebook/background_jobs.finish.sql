-- One content_statistics row per piece of content. A repeat replaces it, and of several jobs of
-- one batch on one piece the last wins. Rows are written in key order, as everywhere, so that two
-- batches never wait for each other in a circle.
INSERT INTO content.content_statistics AS stored (
    content_id, content_type, word_count, character_count, sentence_count, paragraph_count,
    flesch_reading_ease, flesch_kincaid_grade, ai_confidence_score, sentiment_score, topics
)
SELECT DISTINCT ON (counted.content_id, counted.content_type)
    counted.content_id,
    counted.content_type,
    counted.word_count,
    counted.character_count,
    counted.sentence_count,
    counted.paragraph_count,
    counted.flesch_reading_ease,
    counted.flesch_kincaid_grade,
    counted.ai_confidence_score,
    counted.sentiment_score,
    coalesce(counted.topics, '[]')
FROM result
JOIN system.background_jobs AS job ON job.id = result.row_id AND job.id = ANY(rowmill_keys)
CROSS JOIN LATERAL jsonb_to_record(
    CASE job.job_type WHEN 'content_statistics' THEN result.data END
) AS counted(
    content_id uuid, content_type text, word_count integer, character_count integer,
    sentence_count integer, paragraph_count integer, flesch_reading_ease numeric,
    flesch_kincaid_grade numeric, ai_confidence_score numeric, sentiment_score numeric,
    topics jsonb
)
WHERE job.job_type = 'content_statistics'
ORDER BY counted.content_id, counted.content_type, job.created_at DESC NULLS LAST, job.id DESC
ON CONFLICT (content_id, content_type) DO UPDATE SET
    word_count = excluded.word_count,
    character_count = excluded.character_count,
    sentence_count = excluded.sentence_count,
    paragraph_count = excluded.paragraph_count,
    flesch_reading_ease = excluded.flesch_reading_ease,
    flesch_kincaid_grade = excluded.flesch_kincaid_grade,
    ai_confidence_score = excluded.ai_confidence_score,
    sentiment_score = excluded.sentiment_score,
    topics = excluded.topics,
    calculated_at = now();
