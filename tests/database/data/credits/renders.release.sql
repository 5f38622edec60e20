UPDATE credits.usage_credits AS credit
SET used_amount = credit.used_amount - back.credits
FROM (
    SELECT (released.taken ->> 'credit')::uuid AS id, count(*) AS credits
    FROM released
    GROUP BY 1
) AS back
WHERE credit.id = back.id;
