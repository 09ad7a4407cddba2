-- What was deleted in a CRM has a place of its own to go on from, and a mark until it is deleted
-- here as well: a run that the brake stops forgets nothing.
SET LOCAL search_path = public;

-- A link may be `leaving`: deleted there, and to be deleted here by a run that mirrors.
ALTER TABLE crm_links DROP CONSTRAINT crm_links_state,
  ADD CONSTRAINT crm_links_state CHECK (state IN ('linked', 'gone', 'leaving')) NOT VALID;
-- Only looks: nothing is locked against writers meanwhile.
ALTER TABLE crm_links VALIDATE CONSTRAINT crm_links_state;
CREATE INDEX crm_links_leaving ON crm_links (connection_id, entity_type, local_id)
  WHERE state = 'leaving';

ALTER TABLE crm_cursors DROP CONSTRAINT crm_cursors_direction,
  ADD CONSTRAINT crm_cursors_direction CHECK (direction IN ('push', 'pull', 'deletions'));

-- Which job syncs a connection now: one at a time. It holds until it ends, or for some minutes
-- after its last page.
CREATE TABLE bullwark.crm_runs (
  connection_id uuid PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  job_id        uuid NOT NULL,
  held_until    timestamptz NOT NULL
);
CREATE INDEX crm_runs_workspace ON bullwark.crm_runs (workspace_id);
ALTER TABLE bullwark.crm_runs ENABLE ROW LEVEL SECURITY;
GRANT ALL ON bullwark.crm_runs TO service_role;
