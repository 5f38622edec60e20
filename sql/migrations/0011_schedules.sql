-- What is done once per period over the whole fleet: views refreshed, old rows removed.
--
--     done_at     when it was last done, whole: it is due a period later
--     not_before  until then nobody else takes it: whoever does it moves this on while it lives, and
--                 what couldn't be done waits until then
--     token       of whoever took it last, so that one who was too slow marks nothing as done
--     error       why it couldn't be done the last time
CREATE TABLE rowmill.schedules (
    platform   text NOT NULL,
    chore      text NOT NULL,
    subject    text NOT NULL,
    token      bigint NOT NULL,
    taken_at   timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    done_at    timestamptz,
    error      text,
    PRIMARY KEY (platform, chore, subject)
);

-- Which job or table an action is about, for the platforms' own records of it (audit.sql).
ALTER TABLE rowmill.actions ADD COLUMN source text, ADD COLUMN row_key text COLLATE "C";
