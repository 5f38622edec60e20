CREATE SCHEMA depot;

CREATE TABLE depot.errands (
    id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    state      text NOT NULL DEFAULT 'new',
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'Asia/Tokyo'),
    ended_at   timestamp
);

-- Local times, as the depot's clerks write them down.
CREATE TABLE depot.visits (id bigint PRIMARY KEY, seen_at timestamp);
CREATE INDEX visits_seen ON depot.visits (seen_at);

CREATE TABLE depot.crates (
    id        bigint NOT NULL,
    packed_at timestamptz NOT NULL,
    sealed    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, packed_at)
) PARTITION BY RANGE (packed_at);
CREATE TABLE depot.crates_early PARTITION OF depot.crates FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE depot.crates_later PARTITION OF depot.crates DEFAULT;
CREATE TABLE depot.receipts (
    crate bigint, packed_at timestamptz,
    FOREIGN KEY (crate, packed_at) REFERENCES depot.crates
);

CREATE FUNCTION depot.keep_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.sealed THEN
        RAISE EXCEPTION 'crate % is sealed', OLD.id;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER keep_sealed BEFORE DELETE ON depot.crates FOR EACH ROW EXECUTE FUNCTION depot.keep_sealed();

-- Each time it is made, the next number; as slowly as depot.pace says.
CREATE SEQUENCE depot.made;
CREATE TABLE depot.pace (seconds double precision NOT NULL);
CREATE MATERIALIZED VIEW depot.totals AS
SELECT 1 AS id, nextval('depot.made') AS made, (SELECT count(pg_sleep(seconds)) FROM depot.pace) AS slow;
CREATE UNIQUE INDEX totals_id ON depot.totals (id);

CREATE TABLE depot.diary (
    said_at timestamptz NOT NULL, who text NOT NULL, action text NOT NULL,
    errand bigint REFERENCES depot.errands ON DELETE SET NULL, before jsonb
);
