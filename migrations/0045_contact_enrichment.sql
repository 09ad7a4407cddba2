-- Enrichment of contacts, and what is known of their addresses.
SET LOCAL search_path = public;

-- Where a value of a contact comes from. It holds as long as the contact has that value.
CREATE TABLE contact_sources (
  contact_id   uuid NOT NULL REFERENCES contacts (id) ON DELETE CASCADE,
  field        text NOT NULL,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  value        jsonb NOT NULL,
  -- the provider
  source       text NOT NULL,
  confidence   real NOT NULL,
  fetched_at   timestamptz NOT NULL,
  job_id       uuid NOT NULL,
  PRIMARY KEY (contact_id, field),
  CONSTRAINT contact_sources_confidence CHECK (confidence BETWEEN 0 AND 1)
);
CREATE INDEX contact_sources_workspace ON contact_sources (workspace_id);

-- A contact as it was before the first enrichment, and after each one that changed it.
CREATE TABLE contact_versions (
  contact_id   uuid NOT NULL REFERENCES contacts (id) ON DELETE CASCADE,
  number       int NOT NULL,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  snapshot     jsonb NOT NULL,
  -- the fields that differ from the version before
  changed      text[] NOT NULL,
  -- none: as it was before
  job_id       uuid,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (contact_id, number)
);
CREATE INDEX contact_versions_workspace ON contact_versions (workspace_id);

-- What was done for a contact, for people. Names of fields and providers, never values.
CREATE TABLE contact_activities (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  contact_id   uuid NOT NULL REFERENCES contacts (id) ON DELETE CASCADE,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  kind         text NOT NULL,
  job_id       uuid NOT NULL,
  details      jsonb NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contact_activities_contact ON contact_activities (contact_id, id DESC);
CREATE INDEX contact_activities_workspace ON contact_activities (workspace_id);

-- What became of each record of an enrichment of many. A page that was interrupted finds here what
-- is done; the sums are the result of the whole.
CREATE TABLE bullwark.enrichment_items (
  -- the job of the whole
  run_id       uuid NOT NULL,
  record_id    uuid NOT NULL,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  outcome      text NOT NULL,
  -- what each provider said
  said         jsonb NOT NULL,
  -- fields that got a value
  written      text[] NOT NULL,
  -- why it failed
  message      text,
  PRIMARY KEY (run_id, record_id),
  CONSTRAINT enrichment_items_outcome CHECK (outcome IN ('enriched', 'nothing_new', 'no_match',
    'nothing_to_ask', 'objected', 'failed')),
  CONSTRAINT enrichment_items_message CHECK (char_length(message) <= 300)
);
CREATE INDEX enrichment_items_workspace ON bullwark.enrichment_items (workspace_id);
GRANT SELECT ON bullwark.enrichment_items TO authenticated, bullwark_tenant;
GRANT ALL ON bullwark.enrichment_items TO service_role;
ALTER TABLE bullwark.enrichment_items ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.enrichment_items FOR SELECT TO authenticated
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.enrichment_items FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- Why a verification came to `email_status`: a list of codes such as `no_mail_server`.
ALTER TABLE contacts ADD COLUMN email_reasons jsonb;

-- What was found of one address says nothing of another.
CREATE FUNCTION bullwark.forget_verification() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.email_status := NULL;
  NEW.email_checked_at := NULL;
  NEW.email_reasons := NULL;
  RETURN NEW;
END $$;
REVOKE EXECUTE ON FUNCTION bullwark.forget_verification() FROM PUBLIC;
CREATE TRIGGER forget_verification BEFORE UPDATE OF email ON contacts FOR EACH ROW
  WHEN (lower(OLD.email) IS DISTINCT FROM lower(NEW.email) AND OLD.email_status IS NOT NULL
    AND NEW.email_status IS NOT DISTINCT FROM OLD.email_status
    AND NEW.email_checked_at IS NOT DISTINCT FROM OLD.email_checked_at)
  EXECUTE FUNCTION bullwark.forget_verification();

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY '{contact_sources,contact_versions,contact_activities}'::text[] LOOP
    EXECUTE format('REVOKE ALL ON %I FROM authenticated', name);
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
      EXECUTE format('REVOKE ALL ON %I FROM anon', name);
    END IF;
    EXECUTE format('GRANT ALL ON %I TO service_role', name);
    EXECUTE format('GRANT SELECT ON %I TO authenticated, bullwark_tenant', name);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY members ON %I FOR SELECT TO authenticated
      USING (workspace_id IN (
        SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()))', name);
    EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO bullwark_tenant
      USING (workspace_id = bullwark.tenant())', name);
  END LOOP;
END $$;
