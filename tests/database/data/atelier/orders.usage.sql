INSERT INTO "Atelier"."Notes" ("OrderId", "Said") SELECT result.row_id, result.text FROM result;
