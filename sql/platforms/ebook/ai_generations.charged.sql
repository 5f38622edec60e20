-- How often each completed generation is in the usage records: one of a user has to be there.
SELECT job.id AS key, count(used.ai_generation_id) AS records
FROM ai_processing.ai_generations AS job
LEFT JOIN billing.usage_records AS used
    ON used.ai_generation_id = job.id AND used.resource_type = 'ai_tokens'
WHERE job.id = ANY(rowmill_keys) AND job.status = 'completed' AND job.user_id IS NOT NULL
GROUP BY job.id;
