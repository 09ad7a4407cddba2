-- Exports: what became of a file that was asked for; and links that open a file without a key.
SET LOCAL search_path = public;

-- One run of an export; `id` is the job's. Where the run goes on is in `jobs.checkpoint`, the file
-- itself below the data directory. It is kept until `expires_at`.
CREATE TABLE exports (
  id           uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  workspace_id uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  entity_type  text NOT NULL,
  format       text NOT NULL,
  -- what the file is called where it is downloaded
  file_name    text NOT NULL,
  status       text NOT NULL DEFAULT 'running',
  -- as far as the last checkpoint
  rows         bigint NOT NULL DEFAULT 0,
  bytes        bigint NOT NULL DEFAULT 0,
  -- of the whole file
  sha256       text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  finished_at  timestamptz,
  expires_at   timestamptz,
  CONSTRAINT exports_entity_type CHECK (entity_type IN ('accounts', 'contacts')),
  CONSTRAINT exports_format CHECK (format IN ('csv', 'json', 'ndjson', 'xlsx')),
  CONSTRAINT exports_file_name CHECK (char_length(file_name) BETWEEN 1 AND 255),
  CONSTRAINT exports_status CHECK (status IN
    ('running', 'completed', 'failed', 'cancelled', 'expired')),
  CONSTRAINT exports_finished CHECK ((status = 'running') = (finished_at IS NULL)),
  -- Only a whole file has a sum, and an end of its days.
  CONSTRAINT exports_whole CHECK (
    (status IN ('completed', 'expired')) = (sha256 IS NOT NULL AND expires_at IS NOT NULL))
) WITH (fillfactor = 50);
CREATE INDEX exports_workspace ON exports (workspace_id, id DESC);
-- What is kept for a workspace.
CREATE INDEX exports_kept ON exports (workspace_id) WHERE status IN ('running', 'completed');
CREATE INDEX exports_expiring ON exports (expires_at) WHERE status = 'completed';

GRANT SELECT ON exports TO authenticated, bullwark_tenant;
GRANT ALL ON exports TO service_role;
ALTER TABLE exports ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view exports of their workspace" ON exports FOR SELECT TO authenticated
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its exports" ON exports FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- Links to files of jobs. Only the hash of a link's secret is here: whoever reads the table can
-- open nothing. Nobody who reads for callers sees any of it.
CREATE TABLE bullwark.download_links (
  token_hash      bytea PRIMARY KEY,
  workspace_id    uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  job_id          uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  -- which of the job's files
  kind            text NOT NULL,
  created_by_kind text NOT NULL,
  created_by      uuid,
  created_at      timestamptz NOT NULL DEFAULT now(),
  expires_at      timestamptz NOT NULL,
  last_used_at    timestamptz,
  CONSTRAINT download_links_hash CHECK (octet_length(token_hash) = 32),
  CONSTRAINT download_links_kind CHECK (kind IN ('export', 'report'))
);
CREATE INDEX download_links_job ON bullwark.download_links (job_id);
CREATE INDEX download_links_expiring ON bullwark.download_links (expires_at);
GRANT ALL ON bullwark.download_links TO service_role;
ALTER TABLE bullwark.download_links ENABLE ROW LEVEL SECURITY;
