-- What may be spent per lane, or ('*') in all, in a day or a month of UTC. `used_cents` is what the
-- calls of the window cost, and what those still open are expected to: it changes in the same
-- transactions as the ledger, so a limit holds for any number of workers.
CREATE TABLE rowmill.budgets (
    lane         text COLLATE "C" NOT NULL DEFAULT '*',
    period       text NOT NULL CHECK (period IN ('day', 'month')),
    limit_cents  numeric NOT NULL CHECK (limit_cents >= 0),
    window_start timestamptz NOT NULL DEFAULT '-infinity',
    used_cents   numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, period)
);

-- It says more now, and is made anew with the functions.
DROP FUNCTION IF EXISTS rowmill.intend(jsonb);
