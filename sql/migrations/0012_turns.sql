-- Whose turn it is, where something may be asked only so often by the whole fleet.
--
--     latest     the last turn that was given out, past or to come
--     come_back  when the last one that was sent away is to ask again
CREATE TABLE rowmill.turns (
    name      text PRIMARY KEY,
    latest    timestamptz NOT NULL,
    come_back timestamptz NOT NULL
);
