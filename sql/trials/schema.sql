-- Where `rowmill try` puts its rows: a job table of our own, made when it is first used, so that
-- trying a provider out needs no platform, charges no customer and leaves nobody's tables changed.
CREATE TABLE IF NOT EXISTS rowmill.trials (
    id                  uuid PRIMARY KEY,
    provider            text NOT NULL,
    kind                text NOT NULL,
    prompt              text NOT NULL,
    model               text NOT NULL,
    max_tokens          integer,
    generation_settings jsonb NOT NULL DEFAULT '{}',
    priority            integer NOT NULL DEFAULT 10,
    status              text NOT NULL DEFAULT 'queued',
    progress            numeric NOT NULL DEFAULT 0,
    text                text,
    url                 text,
    error               text,
    tried_by            text,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at            timestamptz
);
