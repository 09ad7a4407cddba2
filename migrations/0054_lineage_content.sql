-- The lineage of new rows in half the time: what says nothing is left out by the server's own
-- function where it does the same, which is wherever no value inside of another one is null.
SET LOCAL search_path = public;

CREATE OR REPLACE FUNCTION bullwark.said(content jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    -- That function goes through all levels; only the first one is meant.
    WHEN content @? '$.**{2 to last} ? (@ == null)' THEN (
      SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}')
      FROM jsonb_each(content) e WHERE e.value <> 'null')
    ELSE jsonb_strip_nulls(content)
  END
$$;
