-- What a caller of the HTTP API may see is decided here.
--
-- Whoever reads for a user does so as `authenticated`, with the user's claims; whoever reads for an
-- API key as `bullwark_tenant`, which sees the one workspace that the transaction names. Neither
-- owns a table, so row level security holds for both, whatever the statement forgets to say.
-- Policies are evaluated with the rights of the reader: each is made for one of the two.
SET LOCAL search_path = public;

-- Roles belong to the whole server: another database may just be making them.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'bullwark_tenant') THEN
    CREATE ROLE bullwark_tenant NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;
END
$$;

-- The server's own role becomes one of them for a transaction. PostgreSQL 16 tells membership and
-- the right to do that apart.
DO $$
DECLARE
  needed text := CASE WHEN current_setting('server_version_num')::int >= 160000
                 THEN 'SET' ELSE 'MEMBER' END;
  reader text;
BEGIN
  FOREACH reader IN ARRAY '{authenticated,bullwark_tenant}'::text[] LOOP
    IF NOT pg_has_role(current_user, reader, needed) THEN
      BEGIN
        EXECUTE format('GRANT %I TO %I', reader, current_user);
      EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role % must be able to become %', current_user, reader
          USING HINT = format('As an administrator of the server: GRANT %I TO %I; then run '
            '`bullwark migrate` again.', reader, current_user);
      END;
    END IF;
  END LOOP;
END
$$;

-- The workspace that a transaction of `bullwark_tenant` is about; none sees nothing.
CREATE FUNCTION bullwark.tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT nullif(current_setting('bullwark.workspace_id', true), '')::uuid
$$;

GRANT USAGE ON SCHEMA public, bullwark TO authenticated, bullwark_tenant;

-- Users write little by themselves. Above all not `wire`, which names parents and children that
-- could be another workspace's, and not `id`, whose order tells where open jobs are looked for.
REVOKE ALL ON jobs, job_logs, job_failures, job_steps, job_effects, workspaces, workspace_members,
  imports, import_rows FROM authenticated;
GRANT SELECT ON jobs, job_logs, job_failures, job_steps, job_effects, workspaces,
  workspace_members, imports, import_rows TO authenticated, bullwark_tenant;
GRANT INSERT (workspace_id, job_type, job_queue, payload, priority, scheduled_for, max_attempts,
  retry_delay_seconds, created_by) ON jobs TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON accounts, contacts TO authenticated;
GRANT SELECT ON accounts, contacts TO bullwark_tenant;
ALTER POLICY "Users can create jobs in their workspace" ON jobs TO authenticated
  WITH CHECK (
    (created_by IS NULL OR created_by = auth.uid())
    AND workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));

-- What was for everybody is for users.
ALTER POLICY "Users can view jobs in their workspace" ON jobs TO authenticated;
ALTER POLICY "Users can view logs for accessible jobs" ON job_logs TO authenticated;
ALTER POLICY "Users can view failures of accessible jobs" ON job_failures TO authenticated;
ALTER POLICY "Users can view steps of accessible jobs" ON job_steps TO authenticated;
ALTER POLICY "Users can view effects of accessible jobs" ON job_effects TO authenticated;
ALTER POLICY "Users can view their workspaces" ON workspaces TO authenticated;
ALTER POLICY "Users can view their memberships" ON workspace_members TO authenticated;
ALTER POLICY "Members can view imports of their workspace" ON imports TO authenticated;
ALTER POLICY "Members can view rows of accessible imports" ON import_rows TO authenticated;
ALTER POLICY "Members can view accounts of their workspace" ON accounts TO authenticated;
ALTER POLICY "Members can create accounts in their workspace" ON accounts TO authenticated;
ALTER POLICY "Members can change accounts of their workspace" ON accounts TO authenticated;
ALTER POLICY "Members can delete accounts of their workspace" ON accounts TO authenticated;
ALTER POLICY "Members can view contacts of their workspace" ON contacts TO authenticated;
ALTER POLICY "Members can create contacts in their workspace" ON contacts TO authenticated;
ALTER POLICY "Members can change contacts of their workspace" ON contacts TO authenticated;
ALTER POLICY "Members can delete contacts of their workspace" ON contacts TO authenticated;

-- The same for keys.
CREATE POLICY "A tenant sees its jobs" ON jobs FOR SELECT TO bullwark_tenant
  USING (deleted_at IS NULL AND workspace_id = bullwark.tenant());
CREATE POLICY "A tenant sees logs of its jobs" ON job_logs FOR SELECT TO bullwark_tenant
  USING (EXISTS (SELECT FROM jobs WHERE jobs.id = job_id));
CREATE POLICY "A tenant sees failures of its jobs" ON job_failures FOR SELECT TO bullwark_tenant
  USING (EXISTS (SELECT FROM jobs WHERE jobs.id = job_id));
CREATE POLICY "A tenant sees steps of its jobs" ON job_steps FOR SELECT TO bullwark_tenant
  USING (EXISTS (SELECT FROM jobs WHERE jobs.id = job_id));
CREATE POLICY "A tenant sees effects of its jobs" ON job_effects FOR SELECT TO bullwark_tenant
  USING (EXISTS (SELECT FROM jobs WHERE jobs.id = job_id));
CREATE POLICY "A tenant sees itself" ON workspaces FOR SELECT TO bullwark_tenant
  USING (id = bullwark.tenant());
CREATE POLICY "A tenant sees its members" ON workspace_members FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
CREATE POLICY "A tenant sees its imports" ON imports FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
CREATE POLICY "A tenant sees rows of its imports" ON import_rows FOR SELECT TO bullwark_tenant
  USING (EXISTS (SELECT FROM imports WHERE imports.id = import_id));
CREATE POLICY "A tenant sees its accounts" ON accounts FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
CREATE POLICY "A tenant sees its contacts" ON contacts FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- Bullwark's own tables, so far as answers are made of them. All others stay closed.
GRANT SELECT ON bullwark.dead_letters, bullwark.ended_attempts, bullwark.rollups,
  bullwark.stragglers, bullwark.audit_log, bullwark.watermarks, bullwark.job_types
  TO authenticated, bullwark_tenant;
-- Not the hashes.
GRANT SELECT (id, workspace_id, name, prefix, scopes, created_at, expires_at, last_used_at,
  revoked_at) ON bullwark.api_keys TO authenticated, bullwark_tenant;

ALTER TABLE bullwark.dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.dead_letters FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.dead_letters FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

ALTER TABLE bullwark.ended_attempts ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.ended_attempts FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.ended_attempts FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

ALTER TABLE bullwark.rollups ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.rollups FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.rollups FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- One look by primary key per open job that is old: lists and counts join `jobs` there anyway.
ALTER TABLE bullwark.stragglers ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON bullwark.stragglers FOR SELECT TO authenticated, bullwark_tenant
  USING (EXISTS (SELECT FROM jobs WHERE jobs.id = job_id));

-- What was done to a job belongs to its history, which every member sees; the rest is for admins.
ALTER TABLE bullwark.audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY admins ON bullwark.audit_log FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members
    WHERE user_id = auth.uid() AND role IN ('owner', 'admin')));
CREATE POLICY members ON bullwark.audit_log FOR SELECT TO authenticated
  USING (target_kind = 'job' AND workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.audit_log FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

ALTER TABLE bullwark.api_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY admins ON bullwark.api_keys FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members
    WHERE user_id = auth.uid() AND role IN ('owner', 'admin')));
CREATE POLICY tenant ON bullwark.api_keys FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- `SELECT bullwark.enqueue(…)` for users, too: its note to the relay goes with the job.
GRANT INSERT (job_id) ON bullwark.outbox TO authenticated;
ALTER TABLE bullwark.outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.outbox FOR INSERT TO authenticated
  WITH CHECK (EXISTS (SELECT FROM jobs WHERE jobs.id = job_id));

-- Supabase opens every table of `public` to its web API: this one is nobody's business. The
-- migrations keep their own books there.
DO $$
BEGIN
  IF to_regclass('public._sqlx_migrations') IS NOT NULL THEN
    ALTER TABLE public._sqlx_migrations ENABLE ROW LEVEL SECURITY;
  END IF;
END
$$;
