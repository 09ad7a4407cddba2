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

-- What of a row is content.
CREATE FUNCTION bullwark.content(row_ jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT row_ - '{id,workspace_id,name_key,created_at,updated_at}'::text[]
$$;

-- Once per statement, over all its rows. With the rights of the owner: whoever may change an
-- account need not be allowed to write here. The settings keep the joins below from becoming loops where an
-- import has forbidden the others for its own statements.
CREATE FUNCTION bullwark.note_inserts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    after)
  SELECT n.workspace_id, TG_TABLE_NAME, n.id, 'insert', w.job_id, w.user_id,
    jsonb_strip_nulls(bullwark.content(to_jsonb(n)))
  FROM new_rows n CROSS JOIN bullwark.changes_by() w;
  RETURN NULL;
END $$;

CREATE FUNCTION bullwark.note_updates() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog SET enable_hashjoin = on SET enable_seqscan = on AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    before, after)
  SELECT p.workspace_id, TG_TABLE_NAME, p.id, 'update', w.job_id, w.user_id, d.before, d.after
  FROM (
    SELECT n.workspace_id, n.id, bullwark.content(to_jsonb(o)) AS was,
      bullwark.content(to_jsonb(n)) AS is_now
    FROM new_rows n JOIN old_rows o ON o.id = n.id OFFSET 0
  ) p CROSS JOIN bullwark.changes_by() w CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(e.key, p.was -> e.key) AS before,
      jsonb_object_agg(e.key, e.value) AS after
    FROM jsonb_each(p.is_now) e WHERE e.value IS DISTINCT FROM p.was -> e.key
  ) d
  WHERE d.after IS NOT NULL;
  RETURN NULL;
END $$;

CREATE FUNCTION bullwark.note_deletes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    before)
  SELECT o.workspace_id, TG_TABLE_NAME, o.id, 'delete', w.job_id, w.user_id,
    jsonb_strip_nulls(bullwark.content(to_jsonb(o)))
  FROM old_rows o CROSS JOIN bullwark.changes_by() w;
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
  END LOOP;
END $$;

-- Only a workspace that goes takes its history with it: that is a trigger in a trigger.
CREATE FUNCTION bullwark.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND pg_trigger_depth() > 1 THEN
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
SET search_path = pg_catalog AS $$
BEGIN
  DELETE FROM bullwark.data_changes WHERE workspace_id = OLD.id;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER forget_changes AFTER DELETE ON workspaces
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bullwark.forget_changes();

ALTER TABLE bullwark.data_changes ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.data_changes FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.data_changes FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
GRANT SELECT ON bullwark.data_changes TO authenticated, bullwark_tenant, service_role;
