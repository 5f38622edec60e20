-- What a JSON payload says under a name, however its producer spells it: video_id, videoId and VideoId
-- are one. Null where it says nothing, or isn't an object; the exact spelling goes first.
CREATE OR REPLACE FUNCTION rowmill.said(p_payload jsonb, p_name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT e.value
      FROM jsonb_each_text(CASE jsonb_typeof(p_payload) WHEN 'object' THEN p_payload ELSE '{}' END) e
     WHERE lower(replace(e.key, '_', '')) = lower(replace(p_name, '_', ''))
     ORDER BY e.key = p_name DESC, e.key
     LIMIT 1
$$;

-- The same for an id; what is no UUID is null, so that no payload fails the batch it is in.
CREATE OR REPLACE FUNCTION rowmill.said_id(p_payload jsonb, p_name text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(rowmill.said(p_payload, p_name)
                     from '^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$')::uuid
$$;
