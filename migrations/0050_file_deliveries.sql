-- Who is told that the file of an export or a report is ready, and what became of that: each
-- recipient once per file, whatever dies.
SET LOCAL search_path = public;

-- planned -> claimed -> sent | failed | unknown
--               |-> planned (it certainly was not sent)
CREATE TABLE bullwark.file_deliveries (
  -- of the mail, too
  id            uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  export_id     uuid NOT NULL REFERENCES exports (id) ON DELETE CASCADE,
  channel       text NOT NULL,
  -- an address of mail, or the id of a connection
  recipient     text NOT NULL,
  -- the connection that sends; none: the oldest that sends mails
  connection_id uuid,
  from_address  text,
  from_name     text NOT NULL DEFAULT '',
  state         text NOT NULL DEFAULT 'planned',
  -- the start of the job that claimed it
  job_id        uuid,
  attempt       int,
  claimed_at    timestamptz,
  provider_id   text,
  message       text,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT file_deliveries_once UNIQUE (export_id, channel, recipient),
  CONSTRAINT file_deliveries_channel CHECK (channel IN ('email', 'webhook')),
  CONSTRAINT file_deliveries_recipient CHECK (length(recipient) BETWEEN 1 AND 254),
  CONSTRAINT file_deliveries_state CHECK (state IN
    ('planned', 'claimed', 'sent', 'failed', 'unknown')),
  CONSTRAINT file_deliveries_claimed CHECK (state <> 'claimed'
    OR (job_id IS NOT NULL AND attempt IS NOT NULL AND claimed_at IS NOT NULL)),
  CONSTRAINT file_deliveries_message CHECK (length(message) <= 500)
);
CREATE INDEX file_deliveries_workspace ON bullwark.file_deliveries (workspace_id);
GRANT ALL ON bullwark.file_deliveries TO service_role;
-- Nobody who reads for callers sees any of it: addresses of people are in it.
ALTER TABLE bullwark.file_deliveries ENABLE ROW LEVEL SECURITY;
