UPDATE "Atelier"."Customers" AS customer
SET "Finished" = (SELECT count(*) FROM "Atelier"."Orders" AS o WHERE o."CustomerId" = customer."Id" AND o."Status" = 'Completed')
WHERE customer."Id" IN (SELECT o."CustomerId" FROM "Atelier"."Orders" AS o WHERE o."Id" = ANY(rowmill_keys));
