-- What the report of the fleet is made of, so that it costs the same however much waits.
--
--     pulses.arrived   jobs that left the queue and had come within the last 2, 4 … 60 seconds
ALTER TABLE rowmill.pulses ADD COLUMN arrived integer[] NOT NULL DEFAULT '{}';

-- It tells how long ago a job came, and is made anew with the functions.
DROP FUNCTION IF EXISTS rowmill.claim(bigint, bigint, text[], integer, text[], smallint[], smallint[], timestamptz[]);
