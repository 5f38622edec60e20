-- Which run a row that becomes ready belongs to. A call that is still in flight, or whose result
-- was never delivered, belongs to the run that made it: the job resumes it and doesn't pay again.
-- p_again: someone re-enqueued a finished row, and asks for new work unless some is in flight.
CREATE OR REPLACE FUNCTION rowmill.run_of(p_source text, p_key text, p_again boolean)
RETURNS integer LANGUAGE sql STABLE SET enable_seqscan = off SET jit = off AS $$
    SELECT coalesce((
        SELECT s.run + CASE WHEN bool_or(s.state IN ('intent', 'accepted', 'unknown')
                                         OR (NOT p_again AND s.state = 'finished'
                                             AND s.delivered_at IS NULL))
                            THEN 0 ELSE 1 END
          FROM rowmill.submissions s
         WHERE s.source = p_source AND s.row_key = p_key
         GROUP BY s.run ORDER BY s.run DESC LIMIT 1), 1)
$$;

-- Intents of several jobs at once: `fresh` for those that must now send their request, the step's
-- live submission for those that already have one, `lost` without the claim, `busy` where another
-- transaction holds the queue row for a moment.
CREATE OR REPLACE FUNCTION rowmill.intend(p_intents jsonb)
RETURNS TABLE (n integer, verdict text, id bigint, state rowmill.submission_state, provider text,
               account text, model text, estimate_cents numeric, cost_cents numeric, ref jsonb,
               result jsonb, fingerprint text, age_seconds double precision, intended_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_mine bigint[];
BEGIN
    -- The lock keeps a rescue or a reset from passing between this check and our commit.
    v_mine := ARRAY(
        SELECT q.id FROM rowmill.queue q
         WHERE q.id = ANY (ARRAY(SELECT (i ->> 'queue_id')::bigint FROM jsonb_array_elements(p_intents) i))
           AND q.token IS NOT NULL
           FOR SHARE SKIP LOCKED);
    WITH want AS (
        SELECT i.* FROM jsonb_to_recordset(p_intents) AS i (
               queue_id bigint, token bigint, step text, worker bigint, provider text,
               account text, model text, estimate_cents numeric, fingerprint text, nonce bigint)
    )
    INSERT INTO rowmill.submissions (source, row_key, run, step, attempt, lane, worker,
                                     provider, account, model, estimate_cents, fingerprint, nonce)
    SELECT s.name, q.row_key, q.run, w.step,
           1 + (SELECT count(*) FROM rowmill.submissions o
                 WHERE o.source = s.name AND o.row_key = q.row_key AND o.run = q.run AND o.step = w.step),
           q.lane, w.worker, w.provider, w.account, w.model, w.estimate_cents,
           w.fingerprint, w.nonce
      FROM want w
      JOIN rowmill.queue q ON q.id = w.queue_id AND q.token = w.token
      JOIN rowmill.sources s ON s.id = q.source
     WHERE q.id = ANY (v_mine)
       -- A failure that was billed and that its job hasn't answered for is told again, not bought
       -- again: whoever got it first died before it could settle. (NOT EXISTS would become a
       -- join that reads the whole ledger.)
       AND (SELECT f.id FROM rowmill.submissions f
             WHERE f.source = s.name AND f.row_key = q.row_key AND f.run = q.run
               AND f.step = w.step AND f.state = 'failed' AND f.cost_cents > 0
               AND f.delivered_at IS NULL LIMIT 1) IS NULL
    ON CONFLICT (source, row_key, run, step) WHERE state NOT IN ('failed', 'cancelled', 'written_off') DO NOTHING;
    RETURN QUERY
        WITH want AS (
            SELECT i.ordinality::integer - 1 AS n, (i.value ->> 'queue_id')::bigint AS queue_id,
                   (i.value ->> 'token')::bigint AS token, i.value ->> 'step' AS step,
                   (i.value ->> 'nonce')::bigint AS nonce
              FROM jsonb_array_elements(p_intents) WITH ORDINALITY i)
        SELECT w.n,
               CASE WHEN q.id IS NULL THEN 'lost'
                    -- Made just now; or the same caller asks again, because the answer was lost
                    -- on its way, and has sent nothing yet.
                    WHEN u.state = 'intent' AND u.nonce = w.nonce
                         THEN CASE WHEN q.id = ANY (v_mine) THEN 'fresh' ELSE 'busy' END
                    WHEN u.id IS NOT NULL THEN 'exists'
                    ELSE 'busy' END,
               u.id, u.state, u.provider, u.account, u.model, u.estimate_cents, u.cost_cents,
               u.ref, u.result, u.fingerprint,
               extract(epoch FROM clock_timestamp() - u.intended_at)::double precision, u.intended_at
          FROM want w
          LEFT JOIN rowmill.queue q ON q.id = w.queue_id AND q.token = w.token
          LEFT JOIN rowmill.sources s ON s.id = q.source
          -- With a limit it stays one probe of the index for each intent, in every plan.
          LEFT JOIN LATERAL (
               SELECT * FROM rowmill.submissions u
                WHERE u.source = s.name AND u.row_key = q.row_key AND u.run = q.run
                  AND u.step = w.step
                  AND (u.state NOT IN ('failed', 'cancelled', 'written_off')
                       OR (u.state = 'failed' AND u.cost_cents > 0 AND u.delivered_at IS NULL))
                LIMIT 1) u ON true
         ORDER BY w.n;
END $$;

-- What became of submissions: several at once, forward moves only. Needs no token: what happened
-- at a provider is a fact, whoever holds the job now. Returns the submissions that took the change;
-- one that had already ended keeps its end.
CREATE OR REPLACE FUNCTION rowmill.journal(p_entries jsonb)
RETURNS TABLE (id bigint) LANGUAGE sql SET enable_seqscan = off SET jit = off
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    UPDATE rowmill.submissions u
       SET state = e.state,
           ref = coalesce(e.ref, u.ref),
           external_id = coalesce(e.external_id, u.external_id),
           result = coalesce(e.result, u.result),
           error = coalesce(e.error, u.error),
           cost_cents = coalesce(e.cost_cents, u.cost_cents),
           accepted_at = CASE WHEN e.state IN ('accepted', 'finished')
                              THEN coalesce(u.accepted_at, clock_timestamp()) ELSE u.accepted_at END,
           ended_at = CASE WHEN e.state IN ('finished', 'failed', 'cancelled', 'written_off')
                           THEN clock_timestamp() END
      FROM jsonb_to_recordset(p_entries) AS e (
           id bigint, state rowmill.submission_state, ref jsonb, external_id text, result jsonb,
           error text, cost_cents numeric)
     WHERE u.id = e.id
       AND u.id = ANY (ARRAY(SELECT (i ->> 'id')::bigint FROM jsonb_array_elements(p_entries) i))
       AND (e.state, u.state) IN (
           ('accepted', 'intent'), ('accepted', 'unknown'),
           ('unknown', 'intent'), ('unknown', 'unknown'),
           ('finished', 'intent'), ('finished', 'accepted'), ('finished', 'unknown'),
           ('failed', 'intent'), ('failed', 'accepted'), ('failed', 'unknown'),
           ('cancelled', 'intent'), ('cancelled', 'accepted'), ('cancelled', 'unknown'),
           ('written_off', 'intent'), ('written_off', 'unknown'))
    RETURNING u.id
$$;

-- Banker's rounding, for the money columns of platforms.
CREATE OR REPLACE FUNCTION rowmill.round_half_even(p_value numeric, p_scale integer)
RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN abs(p_value * 10 ^ p_scale::numeric) % 1 = 0.5
                THEN round(round(p_value * 10 ^ p_scale::numeric / 2) * 2 / 10 ^ p_scale::numeric, p_scale)
                ELSE round(p_value, p_scale) END
$$;
