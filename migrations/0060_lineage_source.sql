-- Where a change came from, and for whom: a job may be gone before its changes are, and a person who
-- decides something over the API is neither a job nor a user of the database.
SET LOCAL search_path = public;

-- `source`: the type of the job, with the provider where it has one (`enrich_contact:apollo`); `api`,
-- or `sql`. `actor`: `user:ID`, `api_key:ID`, `service` or `operator`; null where nobody is known.
-- Rows of before have neither.
ALTER TABLE bullwark.data_changes ADD COLUMN source text, ADD COLUMN actor text;

-- As in 0029: a user of the database's own API speaks for nobody else.
DROP FUNCTION bullwark.changes_by();
CREATE FUNCTION bullwark.changes_by(OUT job_id uuid, OUT user_id uuid, OUT source text,
  OUT actor text)
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN d.is_direct THEN NULL
              ELSE nullif(current_setting('bullwark.job_id', true), '')::uuid END,
    auth.uid(),
    coalesce(CASE WHEN NOT d.is_direct
      THEN nullif(current_setting('bullwark.source', true), '') END, 'sql'),
    coalesce(CASE WHEN NOT d.is_direct
      THEN nullif(current_setting('bullwark.actor', true), '') END, 'user:' || auth.uid())
  FROM (SELECT coalesce(current_setting('role', true) IN ('authenticated', 'anon'), false)
    AS is_direct) d
$$;
REVOKE EXECUTE ON FUNCTION bullwark.changes_by() FROM PUBLIC;

-- Rows that have neither are hashed as before, so their seals are still good.
CREATE OR REPLACE FUNCTION bullwark.change_hash(c bullwark.data_changes) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256(convert_to((jsonb_build_array(c.id, c.workspace_id, c.entity_type, c.entity_id,
    c.action, c.job_id, c.user_id, c.before, c.after,
    (extract(epoch FROM c.created_at) * 1000000)::bigint)
    || CASE WHEN c.source IS NULL AND c.actor IS NULL THEN '[]'
            ELSE jsonb_build_array(c.source, c.actor) END)::text, 'UTF8'))
$$;

CREATE OR REPLACE FUNCTION bullwark.note_inserts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    source, actor, after)
  SELECT n.workspace_id, TG_TABLE_NAME, n.id, 'insert', w.job_id, w.user_id, w.source, w.actor,
    -- As in `said`: the server's own function leaves out what is null on all levels.
    CASE WHEN n.content @? '$.**{2 to last} ? (@ == null)' THEN bullwark.said(n.content)
         ELSE jsonb_strip_nulls(n.content) END
  -- OFFSET 0: or the content is made for each time that it is named.
  FROM (SELECT r.workspace_id, r.id, bullwark.content(to_jsonb(r)) AS content
        FROM new_rows r OFFSET 0) n
  CROSS JOIN bullwark.changes_by() w;
  RETURN NULL;
END $$;

-- The joins: see 0029.
CREATE OR REPLACE FUNCTION bullwark.note_updates() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_hashjoin = on SET enable_seqscan = on
SET enable_nestloop = off AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    source, actor, before, after)
  SELECT CASE WHEN p.is_new THEN p.workspace_id ELSE p.old_workspace_id END, TG_TABLE_NAME,
    CASE WHEN p.is_new THEN p.id ELSE p.old_id END,
    CASE WHEN p.was IS NULL THEN 'insert' WHEN p.is_now IS NULL THEN 'delete' ELSE 'update' END,
    w.job_id, w.user_id, w.source, w.actor,
    CASE WHEN p.was IS NULL THEN NULL WHEN p.is_now IS NULL THEN bullwark.said(p.was)
         ELSE d.before END,
    CASE WHEN p.is_now IS NULL THEN NULL WHEN p.was IS NULL THEN bullwark.said(p.is_now)
         ELSE d.after END
  FROM (
    SELECT n.id IS NOT NULL AS is_new, n.workspace_id, n.id, o.workspace_id AS old_workspace_id,
      o.id AS old_id, CASE WHEN o.id IS NOT NULL THEN bullwark.content(to_jsonb(o)) END AS was,
      CASE WHEN n.id IS NOT NULL THEN bullwark.content(to_jsonb(n)) END AS is_now
    FROM new_rows n FULL JOIN old_rows o ON o.id = n.id
      AND coalesce(o.workspace_id, '00000000-0000-0000-0000-000000000000')
        = coalesce(n.workspace_id, '00000000-0000-0000-0000-000000000000')
    OFFSET 0
  ) p CROSS JOIN bullwark.changes_by() w CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(e.key, p.was -> e.key) AS before,
      jsonb_object_agg(e.key, e.value) AS after
    FROM jsonb_each(p.is_now) e WHERE e.value IS DISTINCT FROM p.was -> e.key
  ) d
  WHERE p.was IS NULL OR p.is_now IS NULL OR d.after IS NOT NULL;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION bullwark.note_deletes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    source, actor, before)
  SELECT o.workspace_id, TG_TABLE_NAME, o.id, 'delete', w.job_id, w.user_id, w.source, w.actor,
    bullwark.said(bullwark.content(to_jsonb(o)))
  FROM old_rows o CROSS JOIN bullwark.changes_by() w;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION bullwark.note_truncation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_current_xact_id();
  EXECUTE format('INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action,
      job_id, user_id, source, actor, before)
    SELECT o.workspace_id, %L, o.id, ''delete'', w.job_id, w.user_id, w.source, w.actor,
      bullwark.said(bullwark.content(to_jsonb(o)))
    FROM %I.%I o CROSS JOIN bullwark.changes_by() w',
    TG_TABLE_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME);
  RETURN NULL;
END $$;
