SELECT lower(p."Name") AS lane, 'orders' AS source, 1 AS max_running FROM "Atelier"."Providers" AS p WHERE p."Name" = 'Replicate'
