-- Enrichment: what providers have answered, where the values of a record come from, what it was.
--
-- Answers belong to the workspace whose credits they cost: none is shared between workspaces.
SET LOCAL search_path = public;

-- One question to one provider, and its answer. The row is also the claim of whoever asks: it is
-- there before the call, so that of many jobs with the same question one asks. Nobody who reads for
-- callers may read it: answers are the provider's, and hold more than was asked for.
CREATE TABLE bullwark.enrichment_lookups (
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  provider     text NOT NULL,
  -- what is looked up: company
  kind         text NOT NULL,
  -- normalised
  key          text NOT NULL,
  -- the one who asks, and until when nobody else does
  call_id      uuid,
  busy_until   timestamptz,
  -- how often the provider said that it is still looking
  polls        int NOT NULL DEFAULT 0,
  -- as it came; null with `fetched_at`: the provider knows nothing
  answer       jsonb,
  fetched_at   timestamptz,
  -- asked again from here on
  expires_at   timestamptz,
  PRIMARY KEY (workspace_id, provider, kind, key),
  CONSTRAINT enrichment_lookups_key CHECK (octet_length(key) BETWEEN 1 AND 1000),
  CONSTRAINT enrichment_lookups_fetched CHECK ((fetched_at IS NULL) = (expires_at IS NULL)),
  CONSTRAINT enrichment_lookups_answer CHECK (answer IS NULL OR fetched_at IS NOT NULL)
);
-- For who forgets them.
CREATE INDEX enrichment_lookups_age ON bullwark.enrichment_lookups
  ((coalesce(expires_at, busy_until)));
ALTER TABLE bullwark.enrichment_lookups ENABLE ROW LEVEL SECURITY;

-- Where a value of an account comes from. It holds as long as the account has that value.
CREATE TABLE account_sources (
  account_id   uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  field        text NOT NULL,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  value        jsonb NOT NULL,
  -- the provider
  source       text NOT NULL,
  confidence   real NOT NULL,
  fetched_at   timestamptz NOT NULL,
  job_id       uuid NOT NULL,
  PRIMARY KEY (account_id, field),
  CONSTRAINT account_sources_confidence CHECK (confidence BETWEEN 0 AND 1)
);
CREATE INDEX account_sources_workspace ON account_sources (workspace_id);

-- An account as it was before the first enrichment, and after each one that changed it.
CREATE TABLE account_versions (
  account_id   uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  number       int NOT NULL,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  snapshot     jsonb NOT NULL,
  -- the fields that differ from the version before
  changed      text[] NOT NULL,
  -- none: as it was before
  job_id       uuid,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, number)
);
CREATE INDEX account_versions_workspace ON account_versions (workspace_id);

-- What was done for an account, for people: one row per enrichment, also where nothing was found.
-- Names of fields and providers, never values.
CREATE TABLE account_activities (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  account_id   uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  kind         text NOT NULL,
  job_id       uuid NOT NULL,
  details      jsonb NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX account_activities_account ON account_activities (account_id, id DESC);
CREATE INDEX account_activities_workspace ON account_activities (workspace_id);

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY '{account_sources,account_versions,account_activities}'::text[] LOOP
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
