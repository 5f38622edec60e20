-- What ai_providers says of each provider, for the lane of its name: one that isn't active is left
-- alone, and its rate_limit_config bounds what is sent to it. Nothing in there fails this rule: a
-- key that isn't known means nothing, and what is no positive integer, as a number or as text, is
-- no limit. Names that differ only in case share a lane, and the strictest of them holds.
SELECT
    lower(provider.name) AS lane,
    'ai_generations' AS source,
    stated.max_running,
    stated.requests_per_minute,
    stated.tokens_per_minute,
    'ai_providers says ' || nullif(provider.status, 'active') AS paused
FROM ai_processing.ai_providers AS provider
CROSS JOIN LATERAL (
    SELECT
        min(amount) FILTER (
            WHERE word IN ('maxconcurrent', 'maxconcurrentrequests', 'concurrentrequests')
        ) AS max_running,
        min(amount) FILTER (WHERE word IN ('requestsperminute', 'rpm')) AS requests_per_minute,
        min(amount) FILTER (WHERE word IN ('tokensperminute', 'tpm')) AS tokens_per_minute
    FROM (
        SELECT
            lower(replace(entry.key, '_', '')) AS word,
            substring(entry.value from '^ *([0-9]{1,9}) *$')::integer AS amount
        FROM jsonb_each_text(
            CASE jsonb_typeof(provider.rate_limit_config)
                WHEN 'object' THEN provider.rate_limit_config ELSE '{}'
            END
        ) AS entry
    ) AS entries
    WHERE amount > 0
) AS stated
UNION ALL
-- Embeddings are bought there, too, but wait in a lane of their own.
SELECT
    'background:embed_content',
    'background_jobs',
    NULL,
    NULL,
    NULL,
    'ai_providers says ' || nullif(provider.status, 'active') || ' of openai'
FROM ai_processing.ai_providers AS provider
WHERE lower(provider.name) = 'openai';
