-- Jobs that a person deleted.
--
-- The row stays for some days without what it held, over and seen by nobody, so that a worker that
-- comes late, or a Redis that was put back to an older state, finds that the job is over. `graves`
-- says when each row may go.
SET LOCAL search_path = public;

ALTER TABLE jobs ADD COLUMN deleted_at timestamptz;

CREATE TABLE bullwark.graves (
  job_id     uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  deleted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX graves_deleted ON bullwark.graves (deleted_at);
GRANT ALL ON bullwark.graves TO service_role;

ALTER POLICY "Users can view jobs in their workspace" ON jobs
  USING (deleted_at IS NULL AND workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));

-- What the operator does to a client's job belongs to no workspace.
ALTER TABLE bullwark.audit_log ALTER COLUMN workspace_id DROP NOT NULL;
