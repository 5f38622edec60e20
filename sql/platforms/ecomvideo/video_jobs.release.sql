-- Credits go back to the rows they came from, also to one that has expired meanwhile.
WITH back AS MATERIALIZED (
  SELECT (part.taken ->> 'credit')::uuid AS id, sum((part.taken ->> 'used')::integer) AS used
  FROM released
  CROSS JOIN LATERAL jsonb_array_elements(coalesce(released.taken, '[]')) AS part(taken)
  GROUP BY 1
), held AS MATERIALIZED (
  SELECT credit.id
  FROM public.usage_credits AS credit
  WHERE credit.id = ANY(ARRAY(SELECT back.id FROM back))
  ORDER BY credit.id
  FOR NO KEY UPDATE
)
UPDATE public.usage_credits AS credit
SET used_amount = greatest(coalesce(credit.used_amount, 0) - back.used, 0),
    updated_at = now() AT TIME ZONE 'UTC',
    updated_by = 'rowmill'
FROM back
JOIN held ON held.id = back.id
WHERE credit.id = back.id AND credit.id = ANY(ARRAY(SELECT held.id FROM held));
