-- Files that came inside a paid answer while the storage was down: kept here until it is back.
CREATE TABLE rowmill.parked (
    submission bigint   NOT NULL REFERENCES rowmill.submissions ON DELETE CASCADE,
    nth        smallint NOT NULL,
    content    bytea    NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (submission, nth)
);
ALTER TABLE rowmill.parked ALTER COLUMN content SET STORAGE EXTERNAL;   -- media doesn't compress
