-- One credit for a render, of those that expire first. The platform's own code may hold a customer's
-- credits for a moment: then they are asked again.
WITH usable AS MATERIALIZED (
    SELECT credit.id, credit.user_id
    FROM (SELECT DISTINCT intent.tenant::uuid AS user_id FROM intent) AS customer
    JOIN credits.usage_credits AS credit ON credit.user_id = customer.user_id
    WHERE credit.credit_type = 'VideoGeneration' AND credit.is_active
      AND coalesce(credit.expires_at > now() AT TIME ZONE 'UTC', true)
), locked AS MATERIALIZED (
    SELECT credit.id, credit.user_id, credit.expires_at,
        credit.amount - coalesce(credit.used_amount, 0) AS free
    FROM credits.usage_credits AS credit
    WHERE credit.id = ANY (ARRAY(SELECT usable.id FROM usable))
    ORDER BY credit.id
    FOR NO KEY UPDATE SKIP LOCKED
), pot AS MATERIALIZED (
    SELECT locked.id, locked.user_id,
        sum(locked.free) OVER by_expiry - locked.free AS after,
        sum(locked.free) OVER by_expiry AS upto
    FROM locked
    WINDOW by_expiry AS (
        PARTITION BY locked.user_id ORDER BY locked.expires_at NULLS LAST, locked.id)
), asked AS MATERIALIZED (
    SELECT intent.row_id, intent.tenant::uuid AS user_id,
        row_number() OVER (PARTITION BY intent.tenant ORDER BY intent.position) AS number
    FROM intent
), answer AS MATERIALIZED (
    SELECT asked.row_id, pot.id AS credit,
        EXISTS (SELECT FROM usable WHERE usable.user_id = asked.user_id
                   AND usable.id NOT IN (SELECT locked.id FROM locked)) AS busy
    FROM asked
    LEFT JOIN pot ON pot.user_id = asked.user_id
        AND asked.number > pot.after AND asked.number <= pot.upto
), spent AS (
    UPDATE credits.usage_credits AS credit
    SET used_amount = coalesce(credit.used_amount, 0) + taken.credits
    FROM (
        SELECT answer.credit AS id, count(*) AS credits
        FROM answer WHERE answer.credit IS NOT NULL AND NOT answer.busy
        GROUP BY answer.credit
    ) AS taken
    WHERE credit.id = taken.id
)
SELECT answer.row_id AS key,
    CASE WHEN answer.busy THEN 'busy' WHEN answer.credit IS NULL THEN 'refused' ELSE 'ok' END AS verdict,
    'no video credits are left' AS message,
    1 AS amount,
    jsonb_build_object('credit', answer.credit) AS taken
FROM answer;
