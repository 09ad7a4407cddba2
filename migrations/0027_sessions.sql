-- Sessions of browsers: whoever showed a key or a token goes on with a cookie.
--
-- Of a cookie there is a hash only. A session has the rights of its key or its user at each request,
-- never those of the time when it began, and ends with them. It is read by the server alone.
SET LOCAL search_path = public;

CREATE TABLE bullwark.sessions (
  hash         bytea PRIMARY KEY,
  api_key_id   uuid REFERENCES bullwark.api_keys (id) ON DELETE CASCADE,
  user_id      uuid,
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz NOT NULL,
  CONSTRAINT sessions_hash_length CHECK (octet_length(hash) = 32),
  CONSTRAINT sessions_of_one CHECK (num_nonnulls(api_key_id, user_id) = 1)
);
CREATE INDEX sessions_owner ON bullwark.sessions
  (workspace_id, coalesce(api_key_id, user_id), created_at DESC);
CREATE INDEX sessions_expires ON bullwark.sessions (expires_at);
