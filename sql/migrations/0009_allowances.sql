-- What customers' unfinished jobs hold of a plan, of included tokens or of credits: there from the
-- first paid call of a run until the job is over, and gone in the same transaction.
CREATE TABLE rowmill.allowances (
    source  smallint NOT NULL,
    row_key text COLLATE "C" NOT NULL,
    run     integer NOT NULL,
    tenant  text,
    amount  numeric NOT NULL DEFAULT 0 CHECK (amount >= 0),
    taken   jsonb,      -- what the platform's own counters were changed by, to give it back
    PRIMARY KEY (source, row_key, run)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2
);
CREATE INDEX allowances_tenant ON rowmill.allowances (source, tenant) WHERE amount > 0;

-- Whether the platform has a rule for it: rowmill.reserve_<source>() then exists.
ALTER TABLE rowmill.sources ADD COLUMN reserves boolean NOT NULL DEFAULT false;

-- It says why a customer may not spend, and is made anew with the functions.
DROP FUNCTION IF EXISTS rowmill.intend(jsonb);
