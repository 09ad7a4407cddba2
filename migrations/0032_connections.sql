-- Connections: what a workspace has to call a provider outside with.
--
-- Credentials are sealed (src/sealed.rs) and written only: nobody who reads for callers may read
-- them, sealed or not. What is told are their names.
SET LOCAL search_path = public;

CREATE TABLE connections (
  id               uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id     uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  provider         text NOT NULL,
  name             text NOT NULL,
  -- none: the provider's own
  base_url         text,
  -- nothing secret
  settings         jsonb NOT NULL DEFAULT '{}',
  credential_names text[] NOT NULL,
  -- a JSON object of texts, sealed
  credentials      text NOT NULL,
  -- grows with each change of the credentials: who refreshes a token replaces what it has read
  version          int NOT NULL DEFAULT 1,
  is_active        boolean NOT NULL DEFAULT true,
  paused_reason    text,
  paused_at        timestamptz,
  created_by       uuid REFERENCES auth.users (id) ON DELETE SET NULL,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT connections_name_once UNIQUE (workspace_id, name),
  CONSTRAINT connections_provider CHECK (provider <> '' AND length(provider) <= 50),
  CONSTRAINT connections_name CHECK (name <> '' AND length(name) <= 100),
  CONSTRAINT connections_base_url CHECK (octet_length(base_url) BETWEEN 1 AND 2048),
  CONSTRAINT connections_settings CHECK (jsonb_typeof(settings) = 'object'),
  CONSTRAINT connections_active CHECK (NOT is_active OR paused_reason IS NULL),
  CONSTRAINT connections_paused CHECK ((paused_reason IS NULL) = (paused_at IS NULL))
);
CREATE INDEX connections_workspace ON connections (workspace_id, provider, id);
CREATE INDEX connections_created_by ON connections (created_by);

-- Supabase may have given rights to the whole table, credentials included.
REVOKE ALL ON connections FROM authenticated;
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
    REVOKE ALL ON connections FROM anon;
  END IF;
END $$;
GRANT ALL ON connections TO service_role;
GRANT SELECT (id, workspace_id, provider, name, base_url, settings, credential_names, is_active,
  paused_reason, paused_at, created_by, created_at, updated_at)
  ON connections TO authenticated, bullwark_tenant;
ALTER TABLE connections ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view connections of their workspace" ON connections FOR SELECT
  TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its connections" ON connections FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
