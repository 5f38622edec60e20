CREATE SCHEMA "Atelier";

CREATE TYPE "Atelier"."JobState" AS ENUM ('Pending', 'Running', 'Completed', 'Failed', 'Cancelled');
CREATE TABLE "Atelier"."Providers" ("Id" integer PRIMARY KEY, "Name" text NOT NULL);
CREATE TABLE "Atelier"."Customers" (
    "Id" integer PRIMARY KEY, "Finished" integer NOT NULL DEFAULT 0, "Closed" boolean NOT NULL DEFAULT false
);

CREATE TABLE "Atelier"."Orders" (
    "Id"           uuid PRIMARY KEY,
    "JobType"      text NOT NULL DEFAULT 'Paint',
    "ProviderId"   integer DEFAULT 1 REFERENCES "Atelier"."Providers" ("Id"),
    "CustomerId"   integer DEFAULT 1 REFERENCES "Atelier"."Customers" ("Id"),
    "Status"       "Atelier"."JobState" NOT NULL DEFAULT 'Pending',
    "Priority"     integer NOT NULL DEFAULT 5,
    "RunAfter"     timestamp(3),
    "RetryCount"   integer NOT NULL DEFAULT 0,
    "MaxRetries"   integer NOT NULL DEFAULT 3,
    "Answer"       text,
    "ErrorMessage" varchar(40),
    "CostUsd"      numeric(10, 4),
    "CreatedAt"    timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    "StartedAt"    timestamp(3),
    "EndedAt"      timestamp(3)
);

CREATE TABLE "Atelier"."Notes" (
    "OrderId" uuid REFERENCES "Atelier"."Orders" ("Id"), "Said" text
);

-- Made once a month, removed after a while, summed up now and then.
CREATE TABLE "Atelier"."Visits" ("SeenAt" timestamptz NOT NULL) PARTITION BY RANGE ("SeenAt");
CREATE FUNCTION "Atelier"."MakeMonth"("theTable" text, "theDay" date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE IF NOT EXISTS "Atelier".%I PARTITION OF "Atelier".%I FOR VALUES FROM (%L) TO (%L)',
                   "theTable" || to_char("theDay", '_YYYY_MM'), "theTable",
                   date_trunc('month', "theDay"), date_trunc('month', "theDay") + interval '1 month');
END $$;

CREATE MATERIALIZED VIEW "Atelier"."Totals" AS SELECT count(*) AS "Orders" FROM "Atelier"."Orders";
CREATE UNIQUE INDEX "IX_Totals" ON "Atelier"."Totals" ("Orders");

INSERT INTO "Atelier"."Providers" VALUES (1, 'Replicate'), (2, 'OpenAI');
INSERT INTO "Atelier"."Customers" VALUES (1), (2);
