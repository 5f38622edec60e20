-- The server's timelines as we met them, the latest last. A new one means a failover or a restore,
-- which may have lost the commits since the one before was last seen.
CREATE TABLE rowmill.timelines (
    first_seen timestamptz PRIMARY KEY,
    last_seen  timestamptz NOT NULL,
    id         integer NOT NULL,
    lost_since timestamptz          -- null for the first we met
);
