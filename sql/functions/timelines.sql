-- The timeline this server writes; null where a service hides it. (The control file knows a new one
-- only after its first checkpoint.)
CREATE OR REPLACE FUNCTION rowmill.timeline() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;

-- From when until when commits may be lost, if the timeline changed in the last day. Whoever has a
-- `last_seen` has all that was committed before it. It waits for nobody: intents ask it with their
-- locks in hand. `p_mark` writes down that the timeline was seen.
CREATE OR REPLACE FUNCTION rowmill.gap(
    p_mark boolean, OUT gap_since timestamptz, OUT gap_until timestamptz, OUT gap_age double precision)
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    v_id     integer := rowmill.timeline();
    v_before timestamptz;
    t        rowmill.timelines;
BEGIN
    SELECT * INTO t FROM rowmill.timelines o ORDER BY o.first_seen DESC LIMIT 1;
    IF v_id IS NOT NULL AND v_id IS DISTINCT FROM t.id THEN
        v_before := t.first_seen;
        -- Later than the one before, whatever the new server's clock says.
        t.first_seen := greatest(clock_timestamp(), v_before + interval '1 microsecond');
        t := ROW (t.first_seen, t.first_seen, v_id, t.last_seen);
        -- Where someone else writes it down at this moment, the gap just looks younger.
        IF pg_try_advisory_xact_lock(x'726f776d'::integer, 3) THEN
            INSERT INTO rowmill.timelines SELECT t.*
             WHERE NOT EXISTS (SELECT FROM rowmill.timelines o WHERE v_before IS NULL OR o.first_seen > v_before);
        END IF;
    ELSIF p_mark AND t.last_seen < clock_timestamp() - interval '2 seconds' THEN
        UPDATE rowmill.timelines o SET last_seen = clock_timestamp()
         WHERE o.first_seen = ANY (ARRAY(SELECT m.first_seen FROM rowmill.timelines m
                                          WHERE m.first_seen = t.first_seen FOR UPDATE SKIP LOCKED));
    END IF;
    IF t.lost_since IS NOT NULL AND t.first_seen > clock_timestamp() - interval '1 day' THEN
        gap_since := t.lost_since;
        gap_until := t.first_seen;
        gap_age := greatest(0, extract(epoch FROM clock_timestamp() - t.first_seen));
    END IF;
END $$;
