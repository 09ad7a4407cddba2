-- Events of mails that providers tell of: each once, however often it is told.
SET LOCAL search_path = public;

-- Forgotten after 30 days: told again then, an event finds its mail as it left it.
CREATE TABLE bullwark.email_events (
  connection_id uuid NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
  -- the provider's
  event_id      text NOT NULL,
  seen_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (connection_id, event_id),
  CONSTRAINT email_events_id CHECK (event_id <> '' AND octet_length(event_id) <= 200)
);
CREATE INDEX email_events_seen ON bullwark.email_events (seen_at);
GRANT ALL ON bullwark.email_events TO service_role;
-- Nobody who reads for callers sees any of it.
ALTER TABLE bullwark.email_events ENABLE ROW LEVEL SECURITY;
