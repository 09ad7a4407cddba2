-- Syncs with a CRM: opportunities, which record here is which one there, how far each direction is,
-- what both sides changed, and what was not taken.
SET LOCAL search_path = public;

-- A sale under way. Found again by `external_id`; `account_id` is the customer.
CREATE TABLE opportunities (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  account_id   uuid REFERENCES accounts (id) ON DELETE SET NULL,
  external_id  text,
  name         text NOT NULL,
  stage        text,
  amount       numeric(18, 2),
  -- ISO 4217
  currency     text,
  -- of 100
  probability  int,
  close_date   date,
  description  text,
  custom       jsonb NOT NULL DEFAULT '{}',
  -- who made the row: sync_crm, api …
  source       text NOT NULL DEFAULT 'api',
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT opportunities_name CHECK (name <> '' AND char_length(name) <= 300),
  CONSTRAINT opportunities_external_id_length CHECK (char_length(external_id) BETWEEN 1 AND 255),
  CONSTRAINT opportunities_probability CHECK (probability BETWEEN 0 AND 100),
  CONSTRAINT opportunities_custom_is_object CHECK (jsonb_typeof(custom) = 'object')
);
CREATE INDEX opportunities_workspace ON opportunities (workspace_id, id);
CREATE INDEX opportunities_account ON opportunities (account_id) WHERE account_id IS NOT NULL;
CREATE UNIQUE INDEX opportunities_external_id_unique ON opportunities
  (external_id, COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
  WHERE external_id IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON opportunities TO authenticated;
GRANT SELECT ON opportunities TO bullwark_tenant;
GRANT ALL ON opportunities TO service_role;
ALTER TABLE opportunities ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view opportunities of their workspace" ON opportunities FOR SELECT
  TO authenticated USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can create opportunities in their workspace" ON opportunities FOR INSERT
  TO authenticated WITH CHECK (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can change opportunities of their workspace" ON opportunities FOR UPDATE
  TO authenticated USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can delete opportunities of their workspace" ON opportunities FOR DELETE
  TO authenticated USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its opportunities" ON opportunities FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- Lineage, as that of accounts and contacts (0029).
CREATE TRIGGER note_inserts AFTER INSERT ON opportunities REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_inserts();
CREATE TRIGGER note_updates AFTER UPDATE ON opportunities
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_updates();
CREATE TRIGGER note_deletes AFTER DELETE ON opportunities REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_deletes();
CREATE TRIGGER note_truncation BEFORE TRUNCATE ON opportunities
  FOR EACH STATEMENT EXECUTE FUNCTION bullwark.note_truncation();

-- Which record here is which one there. It outlives the record here: what is missing was deleted.
CREATE TABLE crm_links (
  connection_id      uuid NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
  entity_type        text NOT NULL,
  local_id           uuid NOT NULL,
  remote_id          text NOT NULL,
  workspace_id       uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  -- linked, or gone: deleted there
  state              text NOT NULL DEFAULT 'linked',
  -- by field: what both sides had when they last agreed
  agreed             jsonb NOT NULL,
  -- of that
  hash               text NOT NULL,
  -- the CRM's clock, when we last saw or wrote it
  remote_modified_at timestamptz,
  synced_at          timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (connection_id, entity_type, local_id),
  CONSTRAINT crm_links_remote_once UNIQUE (connection_id, entity_type, remote_id),
  CONSTRAINT crm_links_entity CHECK (entity_type IN ('accounts', 'contacts', 'opportunities')),
  CONSTRAINT crm_links_state CHECK (state IN ('linked', 'gone')),
  CONSTRAINT crm_links_remote_id CHECK (octet_length(remote_id) BETWEEN 1 AND 255),
  CONSTRAINT crm_links_agreed CHECK (jsonb_typeof(agreed) = 'object')
);
CREATE INDEX crm_links_workspace ON crm_links (workspace_id);
CREATE INDEX crm_links_local ON crm_links (local_id);

-- How far a direction is: pull reads on from `since`, by the CRM's clock.
CREATE TABLE crm_cursors (
  connection_id uuid NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
  entity_type   text NOT NULL,
  direction     text NOT NULL,
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  since         timestamptz,
  -- the organization or portal that it was read from
  org_id        text,
  -- when a run last came to the end of it
  last_sync_at  timestamptz,
  last_job_id   uuid,
  updated_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (connection_id, entity_type, direction),
  CONSTRAINT crm_cursors_entity CHECK (entity_type IN ('accounts', 'contacts', 'opportunities')),
  CONSTRAINT crm_cursors_direction CHECK (direction IN ('push', 'pull'))
);
CREATE INDEX crm_cursors_workspace ON crm_cursors (workspace_id);

-- Fields that both sides have changed and that a person decides. While one is open, the sync leaves
-- its fields alone on both sides.
CREATE TABLE crm_conflicts (
  id            uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  connection_id uuid NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
  entity_type   text NOT NULL,
  local_id      uuid NOT NULL,
  remote_id     text NOT NULL,
  -- by field: {"agreed", "ours", "theirs"}
  fields        jsonb NOT NULL,
  -- open; resolved by a person; or gone by itself, both sides being the same again
  state         text NOT NULL DEFAULT 'open',
  -- by field: the value that it came to
  resolution    jsonb,
  job_id        uuid NOT NULL,
  resolved_by   text,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  resolved_at   timestamptz,
  CONSTRAINT crm_conflicts_state CHECK (state IN ('open', 'resolved', 'gone')),
  CONSTRAINT crm_conflicts_fields CHECK (jsonb_typeof(fields) = 'object'),
  CONSTRAINT crm_conflicts_ended CHECK ((state = 'open') = (resolved_at IS NULL))
);
CREATE UNIQUE INDEX crm_conflicts_one_open ON crm_conflicts (connection_id, entity_type, local_id)
  WHERE state = 'open';
CREATE INDEX crm_conflicts_workspace ON crm_conflicts (workspace_id, id DESC);

-- Records that were not taken. The next run tries them again; a row goes when it is taken.
CREATE TABLE crm_errors (
  connection_id uuid NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
  entity_type   text NOT NULL,
  direction     text NOT NULL,
  -- push: the id here; pull: the id there
  record_id     text NOT NULL,
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  -- retryable: it may go by itself; permanent: somebody has to change something
  class         text NOT NULL,
  code          text NOT NULL,
  message       text NOT NULL,
  fields        text[] NOT NULL DEFAULT '{}',
  times         int NOT NULL DEFAULT 1,
  job_id        uuid NOT NULL,
  first_at      timestamptz NOT NULL DEFAULT now(),
  last_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (connection_id, entity_type, direction, record_id),
  CONSTRAINT crm_errors_entity CHECK (entity_type IN ('accounts', 'contacts', 'opportunities')),
  CONSTRAINT crm_errors_direction CHECK (direction IN ('push', 'pull')),
  CONSTRAINT crm_errors_class CHECK (class IN ('retryable', 'permanent')),
  CONSTRAINT crm_errors_record_id CHECK (octet_length(record_id) BETWEEN 1 AND 255)
);
CREATE INDEX crm_errors_workspace ON crm_errors (workspace_id, last_at DESC);

-- Written by the owner alone; members read.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY '{crm_links,crm_cursors,crm_conflicts,crm_errors}'::text[] LOOP
    EXECUTE format('REVOKE ALL ON %I FROM authenticated', name);
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
      EXECUTE format('REVOKE ALL ON %I FROM anon', name);
    END IF;
    EXECUTE format('GRANT ALL ON %I TO service_role', name);
    EXECUTE format('GRANT SELECT ON %I TO authenticated, bullwark_tenant', name);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY members ON %I FOR SELECT TO authenticated
      USING (workspace_id IN (SELECT workspace_id FROM workspace_members
        WHERE user_id = auth.uid()))', name);
    EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO bullwark_tenant
      USING (workspace_id = bullwark.tenant())', name);
  END LOOP;
END $$;
