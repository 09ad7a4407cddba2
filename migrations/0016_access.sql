-- Who may do what in a workspace.
--
-- A key may what its scopes say: `read`, `write` (accept and run jobs again) and `admin` (take
-- jobs away, steer queues, make keys). `prefix` is the beginning of the key, by which people tell
-- keys apart; of older keys it is not known. What was made before goes on to be allowed everything.
ALTER TABLE bullwark.api_keys
  ADD COLUMN prefix text NOT NULL DEFAULT '',
  ADD COLUMN scopes text[] NOT NULL DEFAULT '{read,write,admin}',
  ADD COLUMN expires_at timestamptz,
  ADD COLUMN last_used_at timestamptz,
  ADD CONSTRAINT api_keys_scopes CHECK (
    scopes <@ '{read,write,admin}' AND cardinality(scopes) > 0);
CREATE INDEX api_keys_workspace ON bullwark.api_keys (workspace_id, id DESC);

-- Who did what: one row per privileged action, written in the transaction of the action itself.
--
-- `actor` is a key, a user, the service (a token of the database's service role) or the operator
-- (the command line). Nothing here refers to other rows: it must outlive what it tells of.
CREATE TABLE bullwark.audit_log (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id uuid NOT NULL,
  actor_kind   text NOT NULL,
  actor_id     uuid,
  action       text NOT NULL,
  target_kind  text NOT NULL,
  target_id    text NOT NULL,
  reason       text,
  before       jsonb,
  after        jsonb,
  request_id   text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT audit_log_actor CHECK (actor_kind IN ('api_key', 'user', 'service', 'operator'))
);
CREATE INDEX audit_log_workspace ON bullwark.audit_log (workspace_id, id DESC);
CREATE INDEX audit_log_target ON bullwark.audit_log (target_kind, target_id, id DESC);
-- Written and read, never rewritten.
REVOKE ALL ON bullwark.audit_log FROM service_role;
GRANT SELECT, INSERT ON bullwark.audit_log TO service_role;
