-- What operators do to one job: retry, requeue, cancel, priority; resolve() itself stands beside the ledger.

-- What would be lost, or paid for a second time, if a finished row began anew:
--   in_doubt      nobody knows whether a call was accepted
--   open          a provider still works on one
--   undelivered   a result of its latest run was paid for, and never reached the row
-- Only for who holds the row's lock: then no call of it can begin.
CREATE OR REPLACE FUNCTION rowmill.owed(p_source text, p_key text) RETURNS text
LANGUAGE sql STABLE SET enable_seqscan = off SET jit = off AS $$
    SELECT CASE WHEN bool_or(u.state IN ('intent', 'unknown')) THEN 'in_doubt'
                WHEN bool_or(u.state = 'accepted') THEN 'open'
                WHEN bool_or(u.state = 'finished' AND u.delivered_at IS NULL AND u.run = (
                     SELECT max(l.run) FROM rowmill.submissions l
                      WHERE l.source = p_source AND l.row_key = p_key)) THEN 'undelivered' END
      FROM rowmill.submissions u
     WHERE u.source = p_source AND u.row_key = p_key
$$;

-- The calls of a job that nobody knows of: those that resolve() would look at.
CREATE OR REPLACE FUNCTION rowmill.doubts(p_source text, p_key text) RETURNS jsonb
LANGUAGE sql STABLE SET enable_seqscan = off SET jit = off AS $$
    SELECT coalesce(jsonb_agg(u.id::text ORDER BY u.id), '[]') FROM rowmill.submissions u
     WHERE u.source = p_source AND u.row_key = p_key
       AND (u.state IN ('intent', 'unknown') OR (u.state = 'accepted' AND u.ref IS NULL))
$$;

-- One act upon one job and its line in rowmill.actions: both or neither. The row is locked first, then
-- its queue row, as by everyone; what was there before is what the lock found. Who has the row for
-- long is waited for five seconds.
--
-- p_seen is what the operator was shown and said yes to: `states`, one of which it must still be in;
-- `version`, by which it is still the same job; `doubts`, its calls that nobody knows of, where those are
-- meant. Else the answer is `changed`, and nothing is done. Nothing is recorded either of what isn't there
-- or has changed.
--
-- Returns {verdict, state, rank, ranked}: how far it was before, its rank then and now.
CREATE OR REPLACE FUNCTION rowmill.act(
    p_source text, p_key text, p_action text, p_given jsonb, p_seen jsonb, p_who text)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
    SET lock_timeout = '5s' AS $$
DECLARE
    v_source  smallint;
    v_key     text;
    v_row     jsonb;
    v_state   text;
    v_version text;
    v_queued  jsonb;
    v_verdict text;
    v_ranked  smallint;
BEGIN
    SELECT s.id INTO STRICT v_source FROM rowmill.sources s WHERE s.name = p_source;
    IF (SELECT to_regclass(s.relation) IS NULL FROM rowmill.sources s WHERE s.id = v_source) THEN
        RETURN jsonb_build_object('verdict', 'missing');
    END IF;
    EXECUTE format('SELECT r.key, r.data FROM rowmill.row_%s($1) r', p_source) INTO v_key, v_row USING p_key;
    IF v_key IS NULL THEN
        RETURN jsonb_build_object('verdict', 'missing');
    END IF;
    EXECUTE format('SELECT rowmill.lock_%s($1)', p_source) USING v_key;
    EXECUTE format('SELECT a.state, a.version FROM rowmill.about_%s($1) a', p_source)
       INTO v_state, v_version USING ARRAY[v_key];
    IF NOT coalesce(p_seen -> 'states' ? v_state, true)
       OR (p_seen ? 'version' AND p_seen ->> 'version' IS DISTINCT FROM v_version)
       OR (p_seen ? 'doubts' AND p_seen -> 'doubts' IS DISTINCT FROM rowmill.doubts(p_source, v_key)) THEN
        RETURN jsonb_build_object('verdict', 'changed', 'state', v_state);
    END IF;
    IF p_action = 'resolve' THEN    -- which records itself
        RETURN jsonb_build_object('state', v_state, 'verdict', rowmill.resolve(
            p_source, v_key, p_given ->> 'step', p_given ->> 'how', p_given ->> 'external_id', p_who));
    END IF;
    SELECT to_jsonb(q) - ARRAY['token'] INTO v_queued FROM rowmill.queue q
     WHERE q.source = v_source AND q.row_key = v_key;
    CASE p_action
        WHEN 'retry', 'cancel' THEN
            EXECUTE format('SELECT rowmill.%s_%s($1)', p_action, p_source) INTO v_verdict USING v_key;
        WHEN 'requeue' THEN
            EXECUTE format('SELECT rowmill.requeue_%s($1, $2)', p_source) INTO v_verdict
              USING v_key, coalesce((p_given ->> 'anew')::boolean, false);
        WHEN 'priority' THEN
            EXECUTE format('SELECT rowmill.priority_%s($1, $2)', p_source) INTO v_verdict
              USING v_key, p_given ->> 'to';
    END CASE;
    SELECT q.rank INTO v_ranked FROM rowmill.queue q WHERE q.source = v_source AND q.row_key = v_key;
    INSERT INTO rowmill.actions (who, action, subject, detail)
    VALUES (p_who, p_action, p_source || '/' || v_key,
            jsonb_build_object('verdict', v_verdict, 'before', v_queued, 'row', v_row)
            || CASE WHEN p_given IS NULL THEN '{}' ELSE jsonb_build_object('given', p_given) END
            || CASE WHEN p_action = 'priority' THEN jsonb_build_object('rank', v_ranked) ELSE '{}' END);
    RETURN jsonb_build_object('verdict', v_verdict, 'state', v_state,
                              'rank', v_queued -> 'rank', 'ranked', v_ranked);
END $$;
