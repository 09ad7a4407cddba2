-- What a workspace lets `cleanup_data` jobs remove, and after how many days.
--
-- Everybody who may enqueue can make such a job, in many ways; only admins may delete. So what a
-- job may remove is written here, by admins, and a job without a row here removes nothing.
SET LOCAL search_path = public;

CREATE TABLE bullwark.retention (
  workspace_id       uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
  -- days after the end, or the line, or the file; none: it is kept
  completed_jobs     int,
  cancelled_jobs     int,
  dead_letters       int,
  job_logs           int,
  exports            int,
  webhook_deliveries int,
  updated_at         timestamptz NOT NULL DEFAULT now(),
  -- both pass over NULL
  CONSTRAINT retention_days CHECK (
    least(completed_jobs, cancelled_jobs, dead_letters, job_logs, exports, webhook_deliveries) >= 1
    AND greatest(completed_jobs, cancelled_jobs, dead_letters, job_logs, exports,
      webhook_deliveries) <= 3650)
);

GRANT ALL ON bullwark.retention TO service_role;
GRANT SELECT ON bullwark.retention TO authenticated, bullwark_tenant;
ALTER TABLE bullwark.retention ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.retention FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.retention FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- A job that removes is noted in the audit, too. Looser than before, so no row has to be looked at.
ALTER TABLE bullwark.audit_log DROP CONSTRAINT audit_log_actor;
ALTER TABLE bullwark.audit_log ADD CONSTRAINT audit_log_actor
  CHECK (actor_kind IN ('api_key', 'user', 'service', 'operator', 'job')) NOT VALID;
