-- Triggers of attached tables that are not fired for everyone, and why. Row triggers are cloned to every
-- partition, and can be disabled there one by one: `leaf` is one then. A table that is gone has none.
CREATE OR REPLACE FUNCTION rowmill.missing_triggers()
RETURNS TABLE (source text, platform text, relation text, leaf regclass, trigger name, how text)
LANGUAGE sql STABLE SET jit = off AS $$
    SELECT s.name, s.platform, s.relation, w.leaf, w.trigger,
           CASE t.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'enabled for replicas alone'
                ELSE 'missing' END
      FROM rowmill.sources s
     CROSS JOIN LATERAL (
           SELECT to_regclass(s.relation) AS relation, NULL::regclass AS leaf, ('rowmill_' || e)::name AS trigger
             FROM unnest(ARRAY['enqueue', 'change', 'remove', 'empty']) e
           UNION ALL
           SELECT p.relid, p.relid, ('rowmill_' || e)::name
             FROM pg_partition_tree(to_regclass(s.relation)) p, unnest(ARRAY['enqueue', 'change', 'remove']) e
            WHERE p.isleaf AND p.level > 0) w
      LEFT JOIN pg_trigger t ON t.tgrelid = w.relation AND t.tgname = w.trigger
     WHERE w.relation IS NOT NULL AND (t.tgenabled IS NULL OR t.tgenabled IN ('D', 'R'))
     ORDER BY s.id, w.relation::text, w.trigger
$$;
