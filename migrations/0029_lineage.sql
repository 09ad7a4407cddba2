-- Lineage: every change of an account or a contact, and who made it.
--
-- Written by triggers, in the statement that makes the change: whoever writes, be it a job, a user
-- with SQL or an application, both or neither are committed. A job is known by the setting
-- `bullwark.job_id`, which its transaction begins with; a user by the claims of the token. A row
-- holds the fields that changed, before and after. Rows are added and never rewritten; those of a
-- workspace go with it.
--
-- Of the indexes only what is asked for: the changes of one record, and those of one job.
SET LOCAL search_path = public;

CREATE TABLE bullwark.data_changes (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workspace_id uuid,
  -- the table: accounts or contacts
  entity_type  text NOT NULL,
  entity_id    uuid NOT NULL,
  action       text NOT NULL,
  job_id       uuid,
  user_id      uuid,
  before       jsonb,
  after        jsonb,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT data_changes_action CHECK (
    (action = 'insert' AND before IS NULL AND after IS NOT NULL)
    OR (action = 'update' AND before IS NOT NULL AND after IS NOT NULL)
    OR (action = 'delete' AND before IS NOT NULL AND after IS NULL))
);
CREATE INDEX data_changes_entity ON bullwark.data_changes (entity_id, id DESC);
CREATE INDEX data_changes_job ON bullwark.data_changes (job_id, id DESC) WHERE job_id IS NOT NULL;

-- Who changes something in this transaction. A user of the database's own API can not speak for a
-- job.
CREATE FUNCTION bullwark.changes_by(OUT job_id uuid, OUT user_id uuid)
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN current_setting('role', true) IN ('authenticated', 'anon') THEN NULL
              ELSE nullif(current_setting('bullwark.job_id', true), '')::uuid END,
    auth.uid()
$$;

-- What of a row is content, and what of that says something.
CREATE FUNCTION bullwark.content(row_ jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT row_ - '{id,workspace_id,name_key,created_at,updated_at}'::text[]
$$;
CREATE FUNCTION bullwark.said(content jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}')
  FROM jsonb_each(content) e WHERE e.value <> 'null'
$$;

-- Once per statement, over all its rows. With the rights of the owner: whoever may change an
-- account need not be allowed to write here; nobody else may make triggers of these functions (see
-- the end).
CREATE FUNCTION bullwark.note_inserts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    after)
  SELECT n.workspace_id, TG_TABLE_NAME, n.id, 'insert', w.job_id, w.user_id,
    bullwark.said(bullwark.content(to_jsonb(n)))
  FROM new_rows n CROSS JOIN bullwark.changes_by() w;
  RETURN NULL;
END $$;

-- A record that gets another id, or moves to another workspace, ends here and begins there.
--
-- The plan is made when a session fires this for the first time, perhaps for no row at all, and
-- kept: a loop would be quadratic in the rows of a later statement, so there is only the hash join,
-- also where an import has forbidden it for its own statements.
CREATE FUNCTION bullwark.note_updates() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_hashjoin = on SET enable_seqscan = on
SET enable_nestloop = off AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    before, after)
  SELECT CASE WHEN p.is_new THEN p.workspace_id ELSE p.old_workspace_id END, TG_TABLE_NAME,
    CASE WHEN p.is_new THEN p.id ELSE p.old_id END,
    CASE WHEN p.was IS NULL THEN 'insert' WHEN p.is_now IS NULL THEN 'delete' ELSE 'update' END,
    w.job_id, w.user_id,
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

CREATE FUNCTION bullwark.note_deletes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    before)
  SELECT o.workspace_id, TG_TABLE_NAME, o.id, 'delete', w.job_id, w.user_id,
    bullwark.said(bullwark.content(to_jsonb(o)))
  FROM old_rows o CROSS JOIN bullwark.changes_by() w;
  RETURN NULL;
END $$;

CREATE FUNCTION bullwark.note_truncation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action,
      job_id, user_id, before)
    SELECT o.workspace_id, %L, o.id, ''delete'', w.job_id, w.user_id,
      bullwark.said(bullwark.content(to_jsonb(o)))
    FROM %I.%I o CROSS JOIN bullwark.changes_by() w',
    TG_TABLE_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME);
  RETURN NULL;
END $$;

DO $$
DECLARE entity text;
BEGIN
  FOREACH entity IN ARRAY '{accounts,contacts}'::text[] LOOP
    EXECUTE format('CREATE TRIGGER note_inserts AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows
      FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_inserts()', entity);
    EXECUTE format('CREATE TRIGGER note_updates AFTER UPDATE ON %I
      REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
      FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_updates()', entity);
    EXECUTE format('CREATE TRIGGER note_deletes AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows
      FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_deletes()', entity);
    EXECUTE format('CREATE TRIGGER note_truncation BEFORE TRUNCATE ON %I
      FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_truncation()', entity);
  END LOOP;
END $$;

-- Against mistakes, of the owner too. Only the functions below say that they forget on purpose.
CREATE FUNCTION bullwark.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('bullwark.forgets', true) = 'on' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'data_changes is only ever added to' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER refuse_rewriting BEFORE UPDATE OR DELETE ON bullwark.data_changes
  FOR EACH ROW EXECUTE FUNCTION bullwark.refuse_rewriting();
CREATE TRIGGER refuse_truncation BEFORE TRUNCATE ON bullwark.data_changes
  FOR EACH STATEMENT EXECUTE FUNCTION bullwark.refuse_rewriting();

-- At the commit, behind the cascades, which note what they delete. Rare, so it reads the whole
-- table.
CREATE FUNCTION bullwark.forget_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET bullwark.forgets = 'on' AS $$
BEGIN
  DELETE FROM bullwark.data_changes WHERE workspace_id = OLD.id;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER forget_changes AFTER DELETE ON workspaces
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bullwark.forget_changes();

-- All that was ever known of a person or a company, when the law wants it gone: how many rows. For
-- the owner, after the record itself was deleted.
CREATE FUNCTION bullwark.forget_record(record_id uuid) RETURNS bigint LANGUAGE sql
SET bullwark.forgets = 'on' AS $$
  WITH gone AS (DELETE FROM bullwark.data_changes WHERE entity_id = record_id RETURNING 1)
  SELECT count(*) FROM gone
$$;

-- What is older than the retention, of the oldest `most` rows: how many rows.
CREATE FUNCTION bullwark.forget_old_changes(days int, most int) RETURNS bigint LANGUAGE sql
SET bullwark.forgets = 'on' AS $$
  WITH oldest AS (
    SELECT id, created_at FROM bullwark.data_changes ORDER BY id LIMIT most
  ), gone AS (
    DELETE FROM bullwark.data_changes WHERE id IN (
      SELECT id FROM oldest WHERE created_at < now() - make_interval(days => days)) RETURNING 1
  )
  SELECT count(*) FROM gone
$$;

-- Whoever may execute a function of triggers can put it on a table of their own.
REVOKE EXECUTE ON FUNCTION bullwark.note_inserts(), bullwark.note_updates(),
  bullwark.note_deletes(), bullwark.note_truncation(), bullwark.forget_changes(),
  bullwark.refuse_rewriting(), bullwark.changes_by(), bullwark.content(jsonb),
  bullwark.said(jsonb), bullwark.forget_record(uuid), bullwark.forget_old_changes(int, int)
  FROM PUBLIC;

ALTER TABLE bullwark.data_changes ENABLE ROW LEVEL SECURITY;
CREATE POLICY admins ON bullwark.data_changes FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members
    WHERE user_id = auth.uid() AND role IN ('owner', 'admin')));
CREATE POLICY tenant ON bullwark.data_changes FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
GRANT SELECT ON bullwark.data_changes TO authenticated, bullwark_tenant, service_role;
