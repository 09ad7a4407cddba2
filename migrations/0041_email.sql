-- Email: sequences of mails, what becomes of each one, and whom nothing is sent to.
--
-- A mail is sent to a recipient of a step once, whatever dies: its row is committed as `claimed`
-- before anything is handed over, and what a worker left claimed is never sent again by itself.
SET LOCAL search_path = public;

CREATE TABLE sequences (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  name         text NOT NULL,
  -- Marketing has a link to unsubscribe in its headers, and nothing goes to who used it.
  kind         text NOT NULL DEFAULT 'marketing',
  -- false: its jobs wait
  is_active    boolean NOT NULL DEFAULT true,
  created_by   uuid REFERENCES auth.users (id) ON DELETE SET NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT sequences_name_once UNIQUE (workspace_id, name),
  CONSTRAINT sequences_name CHECK (name <> '' AND length(name) <= 100),
  CONSTRAINT sequences_kind CHECK (kind IN ('marketing', 'transactional'))
);
CREATE INDEX sequences_created_by ON sequences (created_by);

-- One mail of a sequence. Its texts are templates of the contact's fields.
CREATE TABLE sequence_steps (
  id            uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  sequence_id   uuid NOT NULL REFERENCES sequences (id) ON DELETE CASCADE,
  position      int NOT NULL,
  connection_id uuid NOT NULL,
  provider      text NOT NULL,
  from_address  text NOT NULL,
  from_name     text NOT NULL DEFAULT '',
  reply_to      text,
  subject       text NOT NULL,
  text_body     text,
  html_body     text,
  -- what stands in for fields that a contact has not
  defaults      jsonb NOT NULL DEFAULT '{}',
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT sequence_steps_position_once UNIQUE (sequence_id, position),
  CONSTRAINT sequence_steps_position CHECK (position BETWEEN 1 AND 100),
  CONSTRAINT sequence_steps_provider CHECK (provider IN ('smtp', 'sendgrid', 'ses')),
  CONSTRAINT sequence_steps_from CHECK (from_address LIKE '_%@_%' AND length(from_address) <= 254),
  CONSTRAINT sequence_steps_from_name CHECK (length(from_name) <= 100),
  CONSTRAINT sequence_steps_reply_to CHECK (reply_to LIKE '_%@_%' AND length(reply_to) <= 254),
  CONSTRAINT sequence_steps_subject CHECK (subject <> '' AND length(subject) <= 1000),
  CONSTRAINT sequence_steps_body CHECK (text_body IS NOT NULL OR html_body IS NOT NULL),
  CONSTRAINT sequence_steps_size CHECK (coalesce(octet_length(text_body), 0) <= 262144
    AND coalesce(octet_length(html_body), 0) <= 262144),
  CONSTRAINT sequence_steps_defaults CHECK (jsonb_typeof(defaults) = 'object')
);
CREATE INDEX sequence_steps_workspace ON sequence_steps (workspace_id, sequence_id);

-- How far a contact is in a sequence. `stopped`: it unsubscribed, or its address does not work.
CREATE TABLE sequence_enrollments (
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  sequence_id   uuid NOT NULL REFERENCES sequences (id) ON DELETE CASCADE,
  contact_id    uuid NOT NULL REFERENCES contacts (id) ON DELETE CASCADE,
  state         text NOT NULL DEFAULT 'active',
  -- the highest position of which a mail was handed over, and when the last was
  last_position int NOT NULL,
  last_sent_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (sequence_id, contact_id),
  CONSTRAINT sequence_enrollments_state CHECK (state IN ('active', 'completed', 'stopped'))
) WITH (fillfactor = 80);
CREATE INDEX sequence_enrollments_contact ON sequence_enrollments (contact_id);
CREATE INDEX sequence_enrollments_workspace ON sequence_enrollments (workspace_id);

-- One mail to one recipient. No reference to job, step or contact: what was sent stays known when
-- they are gone, and its link to unsubscribe works.
--
-- planned -> claimed -> handed_over -> delivered | bounced | complained
--               |-> planned (it certainly was not sent) | failed | unknown
-- planned -> suppressed | failed
CREATE TABLE email_sends (
  id               uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id     uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  sequence_id      uuid NOT NULL,
  step_id          uuid NOT NULL,
  contact_id       uuid NOT NULL,
  -- in small letters
  recipient        text NOT NULL,
  state            text NOT NULL DEFAULT 'planned',
  -- who sends it, and its place there
  job_id           uuid NOT NULL,
  place            int NOT NULL,
  -- how often it was handed over and certainly not taken
  tries            int NOT NULL DEFAULT 0,
  -- the start of the job that claimed it
  attempt          int,
  claimed_at       timestamptz,
  handed_over_at   timestamptz,
  provider         text,
  -- what the provider calls it
  provider_id      text,
  -- why it is as it is, for machines and for people
  code             text,
  message          text,
  -- whose warm-up it counts for, and on which day
  domain           text,
  sent_day         date,
  -- of the secret in its link to unsubscribe
  unsubscribe_hash bytea,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT email_sends_once UNIQUE (workspace_id, step_id, recipient),
  CONSTRAINT email_sends_state CHECK (state IN ('planned', 'claimed', 'handed_over', 'delivered',
    'bounced', 'complained', 'suppressed', 'failed', 'unknown')),
  CONSTRAINT email_sends_claimed CHECK (state <> 'claimed'
    OR (attempt IS NOT NULL AND claimed_at IS NOT NULL)),
  CONSTRAINT email_sends_message CHECK (length(message) <= 500)
) WITH (fillfactor = 70);
-- The next ones of a job: the least tried first.
CREATE INDEX email_sends_job ON email_sends (job_id, state, tries, place);
CREATE INDEX email_sends_workspace ON email_sends (workspace_id, id DESC);
CREATE INDEX email_sends_contact ON email_sends (workspace_id, contact_id, id DESC);
CREATE UNIQUE INDEX email_sends_unsubscribe ON email_sends (unsubscribe_hash)
  WHERE unsubscribe_hash IS NOT NULL;
CREATE INDEX email_sends_claimed_at ON email_sends (claimed_at) WHERE state = 'claimed';

-- Addresses, and domains, that nothing is sent to: a row for each reason, so that taking one away
-- leaves the others.
CREATE TABLE email_suppressions (
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  -- in small letters; without an @ it is a domain
  target       text NOT NULL,
  reason       text NOT NULL,
  -- who says so: api, link, smtp, sendgrid …
  source       text NOT NULL,
  note         text NOT NULL DEFAULT '',
  -- the mail that brought it
  send_id      uuid,
  created_by   uuid REFERENCES auth.users (id) ON DELETE SET NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workspace_id, target, reason),
  CONSTRAINT email_suppressions_target CHECK (target = lower(target) AND target <> ''
    AND length(target) <= 254),
  CONSTRAINT email_suppressions_reason CHECK (reason IN
    ('unsubscribed', 'bounced', 'complained', 'manual')),
  CONSTRAINT email_suppressions_note CHECK (length(note) <= 500)
);
CREATE INDEX email_suppressions_created_by ON email_suppressions (created_by);

-- Supabase may have given rights to whole tables.
REVOKE ALL ON sequences, sequence_steps, sequence_enrollments, email_sends, email_suppressions
  FROM authenticated;
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
    REVOKE ALL ON sequences, sequence_steps, sequence_enrollments, email_sends,
      email_suppressions FROM anon;
  END IF;
END $$;
GRANT ALL ON sequences, sequence_steps, sequence_enrollments, email_sends, email_suppressions
  TO service_role;
GRANT SELECT ON sequences, sequence_steps, sequence_enrollments, email_suppressions
  TO authenticated, bullwark_tenant;
-- All but the hash.
GRANT SELECT (id, workspace_id, sequence_id, step_id, contact_id, recipient, state, job_id, place,
  tries, attempt, claimed_at, handed_over_at, provider, provider_id, code, message, domain,
  sent_day, created_at, updated_at) ON email_sends TO authenticated, bullwark_tenant;

ALTER TABLE sequences ENABLE ROW LEVEL SECURITY;
ALTER TABLE sequence_steps ENABLE ROW LEVEL SECURITY;
ALTER TABLE sequence_enrollments ENABLE ROW LEVEL SECURITY;
ALTER TABLE email_sends ENABLE ROW LEVEL SECURITY;
ALTER TABLE email_suppressions ENABLE ROW LEVEL SECURITY;
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['sequences', 'sequence_steps', 'sequence_enrollments', 'email_sends',
    'email_suppressions'] LOOP
    EXECUTE format('CREATE POLICY members ON %I FOR SELECT TO authenticated
      USING (workspace_id IN (SELECT workspace_id FROM workspace_members
        WHERE user_id = auth.uid()))', t);
    EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO bullwark_tenant
      USING (workspace_id = bullwark.tenant())', t);
  END LOOP;
END $$;
