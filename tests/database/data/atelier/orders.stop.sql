SELECT o."Id" AS key, 'cancel' AS verdict, 'the account is closed' AS message
FROM "Atelier"."Orders" AS o JOIN "Atelier"."Customers" AS customer ON customer."Id" = o."CustomerId"
WHERE o."Id" = ANY(rowmill_keys) AND customer."Closed"
