-- What the report of the fleet is made of, so that it costs the same however much waits.
--
--     pulses.arrived   jobs that left the queue and had come within the last 2, 4 … 60 seconds
ALTER TABLE rowmill.pulses ADD COLUMN arrived integer[] NOT NULL DEFAULT '{}';

-- What the calls of a day cost, up to a while ago: so that today's spend isn't added up from every
-- call of the day each time someone looks. Workers make it anew every ten minutes.
--
--     sums      [{lane, source, provider, cents}] of the calls from `since` up to `until`
--     pending   those of them that hadn't ended, and are asked for by themselves
CREATE TABLE rowmill.spending (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    since   timestamptz NOT NULL,
    until   timestamptz NOT NULL,
    sums    jsonb NOT NULL,
    pending bigint[] NOT NULL
);

-- It tells how long ago a job came, and is made anew with the functions.
DROP FUNCTION IF EXISTS rowmill.claim(bigint, bigint, text[], integer, text[], smallint[], smallint[], timestamptz[]);
