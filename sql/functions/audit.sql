-- Every line of rowmill.actions passes here on its way in, so that no command can forget the
-- platforms' own records: of each platform that an operator's act concerns, rowmill.audit_<platform>()
-- is called, in the act's own transaction. An act upon a lane concerns all platforms: they share it.
-- A record that can't be written stops nobody: the line says so, and the server's log.
CREATE OR REPLACE FUNCTION rowmill.audit() RETURNS trigger
LANGUAGE plpgsql SET row_security = off SET lock_timeout = '250ms' AS $$
DECLARE
    v_platform text;
BEGIN
    SELECT s.name, nullif(substr(NEW.subject, length(s.name) + 2), '') INTO NEW.source, NEW.row_key
      FROM rowmill.sources s WHERE starts_with(NEW.subject, s.name || '/');
    IF NOT FOUND THEN
        SELECT s.name INTO NEW.source FROM rowmill.sources s
         WHERE NEW.subject = 'source ' || s.name
            OR (starts_with(NEW.subject, 'lane ') AND right(NEW.subject, length(s.name) + 4) = ' of ' || s.name);
    END IF;
    IF NEW.who = 'rowmill' THEN  -- no operator
        RETURN NEW;
    END IF;
    FOR v_platform IN
        SELECT DISTINCT s.platform FROM rowmill.sources s
         WHERE (NEW.source IS NULL OR s.name = NEW.source)
           AND to_regprocedure(format('rowmill.audit_%s(rowmill.actions)', s.platform)) IS NOT NULL
         ORDER BY s.platform
    LOOP
        BEGIN
            EXECUTE format('SELECT rowmill.audit_%s($1)', v_platform) USING NEW;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'audit.sql of % failed: %', v_platform, SQLERRM;
            NEW.detail := NEW.detail || jsonb_build_object('audit_failed',
                coalesce(NEW.detail -> 'audit_failed', '{}') || jsonb_build_object(v_platform, SQLERRM));
        END;
    END LOOP;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER audit BEFORE INSERT ON rowmill.actions
    FOR EACH ROW EXECUTE FUNCTION rowmill.audit();
