-- What was asked for, so that an answer nobody saw can be told from another request's.

ALTER TABLE rowmill.submissions
    ADD COLUMN fingerprint text,    -- of the request; a row edited since no longer makes the same one
    ADD COLUMN nonce       bigint;  -- of the caller, who may ask again when the answer was lost

-- It returns more columns now; rowmill.intend(jsonb) is made anew with the functions.
DROP FUNCTION IF EXISTS rowmill.intend(jsonb);
