-- Give out the next turn of this name: not before p_gap_ms after the one before. `wait_ms` is the time
-- until it begins. One that would begin later than p_patience_ms isn't taken: `wait_ms` is then the
-- time until asking again makes sense, a gap apart for each who is sent away (of five minutes at
-- most), so that they come back about as fast as turns come free.
-- The row is locked from here to the commit, and read and clocked under its lock: askers are served
-- one after the other. Turns further ahead than anyone waits are from a clock that was set back.
CREATE OR REPLACE FUNCTION rowmill.take_turn(
    p_name text, p_gap_ms double precision, p_patience_ms double precision DEFAULT 20000,
    OUT taken boolean, OUT wait_ms double precision)
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    v_gap   interval := make_interval(secs => p_gap_ms / 1000);
    v_now   timestamptz;
    v_limit timestamptz;
    v_at    timestamptz;
    t       rowmill.turns;
BEGIN
    INSERT INTO rowmill.turns AS o (name, latest, come_back) VALUES (p_name, '-infinity', '-infinity')
        ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING o.* INTO t;
    v_now := clock_timestamp();
    v_limit := v_now + make_interval(secs => p_patience_ms / 1000);
    IF t.latest > v_limit + interval '1 minute' THEN
        t.latest := v_now;
    END IF;
    v_at := greatest(t.latest + v_gap, v_now);
    taken := v_at <= v_limit;
    IF taken THEN
        UPDATE rowmill.turns o SET latest = v_at WHERE o.name = p_name;
    ELSE
        v_at := least(greatest(t.come_back + v_gap, v_at), v_now + interval '5 minutes');
        UPDATE rowmill.turns o SET come_back = v_at WHERE o.name = p_name;
    END IF;
    wait_ms := 1000 * extract(epoch FROM v_at - v_now);
END $$;
