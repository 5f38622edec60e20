CREATE SCHEMA warehouse;

CREATE TABLE warehouse.parcels (
    id           bigint NOT NULL,
    packed_on    date NOT NULL DEFAULT '2030-01-15',
    carrier      text,
    urgency      text,
    due          timestamp,
    state        text NOT NULL DEFAULT 'new',
    attempts     integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 3,
    PRIMARY KEY (id, packed_on),
    CHECK (attempts <= max_attempts)
) PARTITION BY RANGE (packed_on);
CREATE TABLE warehouse.parcels_january PARTITION OF warehouse.parcels
    FOR VALUES FROM ('2030-01-01') TO ('2030-02-01');

-- By state: every step of a job moves its row to another partition.
CREATE TABLE warehouse.shelves (
    id    bigint NOT NULL,
    state text NOT NULL DEFAULT 'new',
    PRIMARY KEY (id, state)
) PARTITION BY LIST (state);
CREATE TABLE warehouse.shelves_new PARTITION OF warehouse.shelves FOR VALUES IN ('new');
CREATE TABLE warehouse.shelves_busy PARTITION OF warehouse.shelves FOR VALUES IN ('busy');
CREATE TABLE warehouse.shelves_closed PARTITION OF warehouse.shelves DEFAULT;
