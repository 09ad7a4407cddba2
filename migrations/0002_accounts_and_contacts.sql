-- Accounts and contacts: what imports, enrichment and CRM syncs write, and exports read.
--
-- `workspace_id` may be NULL where Bullwark serves a single tenant. SQL's unique constraints take
-- two NULLs for different, so every key is unique over COALESCE(workspace_id, nil uuid): the rows
-- without a workspace are one tenant of their own. (NULLS NOT DISTINCT would say the same, from
-- PostgreSQL 15 on.)

SET LOCAL search_path = public;

-- A company. A row is found again by `external_id`, else by `domain` (registrable, lower case,
-- ASCII), else by its name: the key of a row that has neither of the two. Typed columns hold what
-- is filtered and sorted by; everything else that a workspace wants to keep goes into `custom`.
CREATE TABLE accounts (
  id             uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id   uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  external_id    text,
  name           text NOT NULL,
  -- compared instead of the name; cut, because an index row must fit a third of a page
  name_key       text NOT NULL GENERATED ALWAYS AS (lower(left(name, 200))) STORED,
  domain         text,
  website        text,
  industry       text,
  employee_count int,
  -- whole units of the account's currency
  annual_revenue bigint,
  -- ISO 3166-1 alpha-2 where the country is known, else the text as it came
  country        text,
  city           text,
  phone          text,
  linkedin_url   text,
  description    text,
  technologies   jsonb,
  social_links   jsonb,
  custom         jsonb NOT NULL DEFAULT '{}',
  -- who made the row: import_csv, sync_crm, api …
  source         text NOT NULL DEFAULT 'api',
  enriched_at    timestamptz,
  created_at     timestamptz NOT NULL DEFAULT now(),
  updated_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT accounts_name_not_empty CHECK (name <> ''),
  CONSTRAINT accounts_name_length CHECK (char_length(name) <= 300),
  CONSTRAINT accounts_domain_form CHECK (domain = lower(domain) AND domain LIKE '%.%'
    AND length(domain) <= 253),
  CONSTRAINT accounts_external_id_length CHECK (char_length(external_id) BETWEEN 1 AND 255),
  CONSTRAINT accounts_employee_count CHECK (employee_count >= 0),
  CONSTRAINT accounts_custom_is_object CHECK (jsonb_typeof(custom) = 'object')
);
-- Each unique index names its key in a condition, also where that is always true: an index whose
-- condition the query does not imply is out of the question, so a look-up by one key has one
-- possible plan. Without that, plans made while the table was empty read the whole workspace by
-- another index.
--
-- Lists, exports and the deletion of a workspace.
CREATE INDEX accounts_workspace ON accounts (workspace_id, id);
CREATE UNIQUE INDEX accounts_domain_unique ON accounts
  (domain, COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
  WHERE domain IS NOT NULL;
CREATE UNIQUE INDEX accounts_external_id_unique ON accounts
  (external_id, COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
  WHERE external_id IS NOT NULL;
-- Finds every account by name, and makes the name unique where nothing else tells two rows apart.
CREATE UNIQUE INDEX accounts_name_unique ON accounts
  (name_key, COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid),
   COALESCE(domain, ''), COALESCE(external_id, ''))
  WHERE name_key IS NOT NULL;

-- A person. Found again by `external_id`, else by e-mail address in any case, else by LinkedIn
-- page. `account_id` is the employer, linked by the domain of the company or of the address, else
-- by name.
CREATE TABLE contacts (
  id             uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id   uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  account_id     uuid REFERENCES accounts (id) ON DELETE SET NULL,
  external_id    text,
  email          text,
  first_name     text,
  last_name      text,
  title          text,
  phone          text,
  linkedin_url   text,
  -- the employer as the source names it, also when no account was found
  company        text,
  country        text,
  city           text,
  -- the answer of the newest verification of the address, and when it came
  email_status   text,
  email_checked_at timestamptz,
  custom         jsonb NOT NULL DEFAULT '{}',
  source         text NOT NULL DEFAULT 'api',
  enriched_at    timestamptz,
  created_at     timestamptz NOT NULL DEFAULT now(),
  updated_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT contacts_has_key CHECK (
    email IS NOT NULL OR linkedin_url IS NOT NULL OR external_id IS NOT NULL),
  CONSTRAINT contacts_email_form CHECK (email LIKE '_%@_%' AND length(email) <= 254),
  CONSTRAINT contacts_external_id_length CHECK (char_length(external_id) BETWEEN 1 AND 255),
  CONSTRAINT contacts_linkedin_length CHECK (octet_length(linkedin_url) <= 2000),
  CONSTRAINT contacts_custom_is_object CHECK (jsonb_typeof(custom) = 'object')
);
CREATE INDEX contacts_workspace ON contacts (workspace_id, id);
CREATE INDEX contacts_account ON contacts (account_id) WHERE account_id IS NOT NULL;
CREATE UNIQUE INDEX contacts_email_unique ON contacts
  (lower(email), COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
  WHERE email IS NOT NULL;
CREATE UNIQUE INDEX contacts_external_id_unique ON contacts
  (external_id, COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
  WHERE external_id IS NOT NULL;
CREATE UNIQUE INDEX contacts_linkedin_unique ON contacts
  (linkedin_url, COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid))
  WHERE linkedin_url IS NOT NULL;

-- Members see and change what belongs to their workspaces; Bullwark's own connection owns the
-- tables.
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view accounts of their workspace" ON accounts FOR SELECT
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can create accounts in their workspace" ON accounts FOR INSERT
  WITH CHECK (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can change accounts of their workspace" ON accounts FOR UPDATE
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can delete accounts of their workspace" ON accounts FOR DELETE
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));

ALTER TABLE contacts ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view contacts of their workspace" ON contacts FOR SELECT
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can create contacts in their workspace" ON contacts FOR INSERT
  WITH CHECK (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can change contacts of their workspace" ON contacts FOR UPDATE
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Members can delete contacts of their workspace" ON contacts FOR DELETE
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
