-- A worker that an operator asks to leave hears of it with its next heartbeat. A worker of the version
-- before says no `host`, and hears nothing.
ALTER TABLE rowmill.workers
    ADD COLUMN host           text,
    ADD COLUMN drain_asked_at timestamptz,
    ADD COLUMN drain_asked_by text,
    ADD COLUMN drain_reason   text;
