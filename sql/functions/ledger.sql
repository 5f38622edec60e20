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

-- The budgets, locked in order, each brought into its current window.
CREATE OR REPLACE FUNCTION rowmill.open_budgets() RETURNS void
LANGUAGE plpgsql SET jit = off AS $$
BEGIN
    PERFORM FROM rowmill.budgets b ORDER BY b.lane, b.period FOR UPDATE;
    UPDATE rowmill.budgets b
       SET window_start = rowmill.window_of(b.period), used_cents = rowmill.used_in(b.lane, rowmill.window_of(b.period))
     WHERE b.window_start <> rowmill.window_of(b.period);
END $$;

CREATE OR REPLACE FUNCTION rowmill.window_of(p_period text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT date_trunc(p_period, clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
$$;

-- What a lane's calls since then cost, or may yet. Of one that was written off nobody knows.
CREATE OR REPLACE FUNCTION rowmill.used_in(p_lane text, p_since timestamptz) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(coalesce(u.cost_cents, u.estimate_cents)), 0)
      FROM rowmill.submissions u
     WHERE u.intended_at >= p_since AND p_lane IN ('*', u.lane)
$$;

-- The lane and the estimate of these claims' intents; no estimate for one that already has its
-- submission, and so needs nothing.
CREATE OR REPLACE FUNCTION rowmill.priced(p_intents jsonb, p_ids bigint[])
RETURNS TABLE (id bigint, lane text, cents numeric)
LANGUAGE sql STABLE SET enable_seqscan = off SET jit = off AS $$
    SELECT q.id, q.lane, CASE WHEN NOT EXISTS (
               SELECT FROM rowmill.submissions u
                WHERE u.source = s.name AND u.row_key = q.row_key AND u.run = q.run
                  AND u.step = i.value ->> 'step'
                  AND (u.state NOT IN ('failed', 'cancelled', 'written_off')
                       OR (u.state = 'failed' AND u.cost_cents > 0 AND u.delivered_at IS NULL)))
           THEN (i.value ->> 'estimate_cents')::numeric END
      FROM jsonb_array_elements(p_intents) WITH ORDINALITY i
      JOIN rowmill.queue q ON q.id = (i.value ->> 'queue_id')::bigint
                          AND q.token = (i.value ->> 'token')::bigint
      JOIN rowmill.sources s ON s.id = q.source
     WHERE q.id = ANY (p_ids)
     ORDER BY i.ordinality
$$;

-- Which of these claims may spend what they intend, with the estimates reserved.
-- `wait_seconds` is how long the others' budgets stay used up.
CREATE OR REPLACE FUNCTION rowmill.reserve(
    p_intents jsonb, p_mine bigint[], OUT allowed bigint[], OUT wait_seconds double precision)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c      record;
    v_wait double precision;
BEGIN
    PERFORM rowmill.open_budgets();
    allowed := '{}';
    FOR c IN SELECT * FROM rowmill.priced(p_intents, p_mine) LOOP
        SELECT max(extract(epoch FROM b.window_start + ('1 ' || b.period)::interval - clock_timestamp()))
          INTO v_wait FROM rowmill.budgets b
         WHERE b.lane IN ('*', c.lane) AND b.used_cents + c.cents > b.limit_cents;
        IF v_wait IS NULL THEN
            allowed := allowed || c.id;
            UPDATE rowmill.budgets b SET used_cents = b.used_cents + c.cents
             WHERE b.lane IN ('*', c.lane) AND c.cents IS NOT NULL;
        END IF;
        wait_seconds := greatest(wait_seconds, v_wait);
    END LOOP;
END $$;

-- What reserve() took for these, who may not spend after all.
CREATE OR REPLACE FUNCTION rowmill.unreserve(p_intents jsonb, p_ids bigint[]) RETURNS void
LANGUAGE sql AS $$
    UPDATE rowmill.budgets b
       SET used_cents = b.used_cents - coalesce((
           SELECT sum(p.cents) FROM rowmill.priced(p_intents, p_ids) p WHERE b.lane IN ('*', p.lane)), 0)
$$;

-- What a customer is locked by: nobody else's row, so that the platform's own transactions never
-- hold it. Where they hold rows that a customer's credits are in, this customer's jobs are `busy`, and
-- nobody else's. A job without a customer is its own.
CREATE OR REPLACE FUNCTION rowmill.customer(p_platform text, p_tenant text, p_key text) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended(p_platform || '/' || coalesce(p_tenant, p_key), 0)
$$;

-- In order, until the end of the transaction.
CREATE OR REPLACE FUNCTION rowmill.lock_customers(p_customers bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(o.c) FROM (SELECT DISTINCT c FROM unnest(p_customers) c ORDER BY c) o;
END $$;

-- Which of these claims' customers may not spend, by the platform's own rule: `refused` is why, by
-- queue id, `busy` are those to be asked again in a moment. A job is asked for before the first paid
-- call of its run; what it holds from then on is good for its further calls and tries.
--
-- One lock for each customer, in order: two calls of one customer never both see the last unit free.
-- Budgets come before these locks, and the rows the rule locks come after.
CREATE OR REPLACE FUNCTION rowmill.allow(p_mine bigint[], OUT refused jsonb, OUT busy bigint[])
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_sources   smallint[] := ARRAY(SELECT o.id FROM rowmill.sources o WHERE o.reserves);
    v_held      bigint[];
    v_ask       bigint[];
    v_asked     smallint[];
    v_customers bigint[];
    s           record;
    a           record;
BEGIN
    refused := '{}';
    busy := '{}';
    -- Queue rows are found by id alone: IS TRUE keeps their source from being the way to them.
    -- Locked: what is just being given back (its job was cancelled, and came again) is not held.
    v_held := ARRAY(
        SELECT q.id FROM rowmill.queue q CROSS JOIN LATERAL (
               SELECT FROM rowmill.allowances h
                WHERE h.source = q.source AND h.row_key = q.row_key AND h.run = q.run
                  FOR KEY SHARE) h
         WHERE q.id = ANY (p_mine) AND (q.source = ANY (v_sources)) IS TRUE);
    SELECT array_agg(q.id), array_agg(q.source), array_agg(rowmill.customer(
               (SELECT o.platform FROM rowmill.sources o WHERE o.id = q.source), q.tenant, q.row_key))
      INTO v_ask, v_asked, v_customers
      FROM rowmill.queue q
     WHERE q.id = ANY (p_mine) AND (q.source = ANY (v_sources)) IS TRUE AND q.id <> ALL (v_held);
    IF v_ask IS NULL THEN
        RETURN;
    END IF;
    PERFORM rowmill.lock_customers(v_customers);
    FOR s IN SELECT o.name FROM rowmill.sources o WHERE o.id = ANY (v_asked) ORDER BY o.name LOOP
        FOR a IN EXECUTE format('SELECT * FROM rowmill.reserve_%s($1)', s.name) USING v_ask LOOP
            IF a.verdict = 'busy' THEN
                busy := busy || a.queue_id;
            ELSE
                refused := refused || jsonb_build_object(a.queue_id, a.message);
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- Intents of several jobs at once: `fresh` for those that must now send their request, the step's
-- live submission for those that already have one, `lost` without the claim, `busy` where another
-- transaction holds the queue row for a moment, `paused` while everything is, `over` where a budget
-- doesn't allow it until `wait_seconds` are over, `refused` with a message where the customer's plan
-- or credits don't.
CREATE OR REPLACE FUNCTION rowmill.intend(p_intents jsonb)
RETURNS TABLE (n integer, verdict text, id bigint, state rowmill.submission_state, provider text,
               account text, model text, estimate_cents numeric, cost_cents numeric, ref jsonb,
               result jsonb, external_id text, fingerprint text, age_seconds double precision,
               intended_at timestamptz, wait_seconds double precision, message text)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_mine   bigint[];
    v_may    bigint[];      -- of mine, those that may spend
    v_paused boolean := EXISTS (SELECT FROM rowmill.lanes l
                                 WHERE l.lane = '*' AND l.source = '*' AND l.paused_at IS NOT NULL);
    v_wait   double precision;
    v_not    jsonb    := '{}';   -- whose customers may not, and why
    v_busy   bigint[] := '{}';
BEGIN
    -- The lock keeps a rescue or a reset from passing between this check and our commit.
    v_mine := ARRAY(
        SELECT q.id FROM rowmill.queue q
         WHERE q.id = ANY (ARRAY(SELECT (i ->> 'queue_id')::bigint FROM jsonb_array_elements(p_intents) i))
           AND q.token IS NOT NULL
           FOR SHARE SKIP LOCKED);
    v_may := CASE WHEN v_paused THEN '{}' ELSE v_mine END;
    IF NOT v_paused AND EXISTS (SELECT FROM rowmill.budgets) THEN
        SELECT r.allowed, r.wait_seconds INTO v_may, v_wait FROM rowmill.reserve(p_intents, v_mine) r;
    END IF;
    IF EXISTS (SELECT FROM rowmill.sources s WHERE s.reserves) THEN
        SELECT a.refused, a.busy INTO v_not, v_busy FROM rowmill.allow(v_may) a;
        IF v_not <> '{}' OR v_busy <> '{}' THEN
            PERFORM rowmill.unreserve(p_intents, v_busy || ARRAY(
                SELECT k::bigint FROM jsonb_object_keys(v_not) k));
            v_may := ARRAY(SELECT m FROM unnest(v_may) m WHERE NOT v_not ? m::text AND m <> ALL (v_busy));
            v_wait := least(v_wait, 1.0);   -- what was over by their share alone comes back at once
        END IF;
    END IF;
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
     WHERE q.id = ANY (v_may)
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
                    WHEN q.id = ANY (v_busy) THEN 'busy'
                    -- Paid already: it is delivered, whatever the customer may by now.
                    WHEN u.id IS NOT NULL THEN 'exists'
                    WHEN q.id <> ALL (v_mine) THEN 'busy'
                    WHEN v_paused THEN 'paused'
                    WHEN v_not ? q.id::text THEN 'refused'
                    ELSE 'over' END,
               u.id, u.state, u.provider, u.account, u.model, u.estimate_cents, u.cost_cents,
               u.ref, u.result, u.external_id, u.fingerprint,
               extract(epoch FROM clock_timestamp() - u.intended_at)::double precision, u.intended_at,
               v_wait, v_not ->> q.id::text
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

-- Whether intend() would find something of this claim's step: what was sent needs no room any more.
CREATE OR REPLACE FUNCTION rowmill.begun(p_queue bigint, p_token bigint, p_step text)
RETURNS boolean LANGUAGE sql STABLE SET enable_seqscan = off SET jit = off
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT EXISTS (
        SELECT FROM rowmill.queue q
          JOIN rowmill.sources s ON s.id = q.source
          JOIN rowmill.submissions u ON u.source = s.name AND u.row_key = q.row_key
                                    AND u.run = q.run AND u.step = p_step
         WHERE q.id = p_queue AND q.token = p_token
           AND (u.state NOT IN ('failed', 'cancelled', 'written_off')
                OR (u.state = 'failed' AND u.cost_cents > 0 AND u.delivered_at IS NULL)))
$$;

-- What became of submissions: several at once, forward moves only. Needs no token: what happened
-- at a provider is a fact, whoever holds the job now. Returns the submissions that took the change;
-- one that had already ended keeps its end. A number alone may mean another one after a failover that
-- lost commits; its time doesn't. In SQL, which is planned at each call: a plan kept from
-- an empty ledger would read the whole of a full one.
CREATE OR REPLACE FUNCTION rowmill.record(p_entries jsonb)
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
           error text, cost_cents numeric, intended_at timestamptz)
     WHERE u.id = e.id AND u.intended_at = coalesce(e.intended_at, u.intended_at)
       AND u.id = ANY (ARRAY(SELECT (i ->> 'id')::bigint FROM jsonb_array_elements(p_entries) i))
       AND ((e.state, u.state) IN (
           ('accepted', 'intent'), ('accepted', 'unknown'),
           ('unknown', 'intent'), ('unknown', 'unknown'),
           ('finished', 'intent'), ('finished', 'accepted'), ('finished', 'unknown'),
           ('failed', 'intent'), ('failed', 'accepted'), ('failed', 'unknown'),
           ('cancelled', 'intent'), ('cancelled', 'accepted'), ('cancelled', 'unknown'),
           ('written_off', 'intent'), ('written_off', 'unknown'))
           -- The same once more: whoever asks lost the answer to the first time.
           OR (e.state = 'accepted' AND u.state = 'accepted' AND e.external_id = u.external_id))
    RETURNING u.id
$$;

-- The same, and where budgets are set, what was reserved becomes what it cost; where that isn't
-- known, the estimate stays.
CREATE OR REPLACE FUNCTION rowmill.journal(p_entries jsonb)
RETURNS TABLE (id bigint) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_taken bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM rowmill.budgets)
       OR NOT EXISTS (SELECT FROM jsonb_array_elements(p_entries) i
                       WHERE i ->> 'state' IN ('finished', 'failed', 'cancelled', 'written_off')) THEN
        RETURN QUERY SELECT r.id FROM rowmill.record(p_entries) r;
        RETURN;
    END IF;
    PERFORM rowmill.open_budgets();    -- first, as intend() does: budgets, then submissions
    v_taken := ARRAY(SELECT r.id FROM rowmill.record(p_entries) r);
    UPDATE rowmill.budgets b
       SET used_cents = b.used_cents + coalesce((
           SELECT sum(u.cost_cents - u.estimate_cents) FROM rowmill.submissions u
            WHERE u.id = ANY (v_taken) AND u.ended_at IS NOT NULL
              AND b.lane IN ('*', u.lane) AND u.intended_at >= b.window_start), 0);
    RETURN QUERY SELECT unnest(v_taken);
END $$;

-- A person knows what became of a call whose fate no program could find out:
--   accepted   the provider has it, under this id: the job goes on from there
--   resubmit   the provider doesn't have it, or may be paid twice: the job sends it again
--   fail       the job is given up
-- Of a job that is over only the ledger changes. Returns what that meant for the job: released,
-- hastened, failed, recorded; or why nothing was done: none, several, running, taken.
CREATE OR REPLACE FUNCTION rowmill.resolve(
    p_source text, p_key text, p_step text, p_how text, p_external_id text, p_who text)
RETURNS text LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_ids     bigint[];
    v_state   rowmill.queue_state;
    v_verdict text;
    v_before  jsonb;
BEGIN
    -- First, so that no claim comes between what is found here and what is changed. Of a table that
    -- is gone there is only the ledger.
    IF EXISTS (SELECT FROM rowmill.sources s WHERE s.name = p_source AND to_regclass(s.relation) IS NOT NULL) THEN
        EXECUTE format('SELECT l.state FROM rowmill.lock_%s($1) l', p_source) INTO v_state USING p_key;
    END IF;
    IF v_state = 'claimed' THEN
        RETURN 'running';
    END IF;
    v_ids := ARRAY(SELECT u.id FROM rowmill.submissions u
                    WHERE u.source = p_source AND u.row_key = p_key AND coalesce(u.step = p_step, true)
                      AND (u.state IN ('intent', 'unknown') OR (u.state = 'accepted' AND u.ref IS NULL))
                      FOR UPDATE);
    IF cardinality(v_ids) <> 1 THEN
        RETURN CASE cardinality(v_ids) WHEN 0 THEN 'none' ELSE 'several' END;
    END IF;
    IF p_how = 'accepted' AND EXISTS (
        SELECT FROM rowmill.submissions o JOIN rowmill.submissions u USING (provider, account)
         WHERE u.id = v_ids[1] AND o.id <> u.id AND o.external_id = p_external_id) THEN
        RETURN 'taken';
    END IF;
    SELECT jsonb_build_object('state', u.state, 'external_id', u.external_id, 'step', u.step, 'run', u.run)
      INTO v_before FROM rowmill.submissions u WHERE u.id = v_ids[1];
    UPDATE rowmill.submissions u
       SET state = (CASE p_how WHEN 'accepted' THEN 'accepted' ELSE 'written_off' END)::rowmill.submission_state,
           external_id = CASE p_how WHEN 'accepted' THEN p_external_id END,
           accepted_at = CASE p_how WHEN 'accepted' THEN clock_timestamp() END,
           ended_at = CASE p_how WHEN 'accepted' THEN NULL ELSE clock_timestamp() END,
           error = CASE p_how WHEN 'accepted' THEN u.error ELSE p_how || ', said ' || p_who END
     WHERE u.id = v_ids[1];
    IF v_state IS NULL THEN
        v_verdict := 'recorded';
    ELSIF p_how = 'fail' THEN
        EXECUTE format('SELECT rowmill.fail_%s($1, $2)', p_source) INTO v_verdict
          USING p_key, 'nobody knows what became of its paid call; given up by ' || p_who;
    ELSE
        EXECUTE format('SELECT rowmill.retry_%s($1)', p_source) INTO v_verdict USING p_key;
    END IF;
    INSERT INTO rowmill.actions (who, action, subject, detail)
    VALUES (p_who, 'resolve', p_source || '/' || p_key,
            jsonb_build_object('how', p_how, 'external_id', p_external_id, 'submission', v_ids[1],
                               'verdict', v_verdict, 'before', v_before));
    RETURN v_verdict;
END $$;

-- Banker's rounding, for the money columns of platforms.
CREATE OR REPLACE FUNCTION rowmill.round_half_even(p_value numeric, p_scale integer)
RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN abs(p_value * 10 ^ p_scale::numeric) % 1 = 0.5
                THEN round(round(p_value * 10 ^ p_scale::numeric / 2) * 2 / 10 ^ p_scale::numeric, p_scale)
                ELSE round(p_value, p_scale) END
$$;
