-- Templates of mappings: how a workspace maps files with these headers. Custom fields of a kind.
SET LOCAL search_path = public;

CREATE TABLE import_templates (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  entity_type  text NOT NULL,
  name         text NOT NULL,
  -- of the headers, in any order (src/handlers/import_csv/template.rs): which files it is for
  fingerprint  text NOT NULL,
  headers      text[] NOT NULL,
  -- header → field, as in the payload of an import
  mapping      jsonb NOT NULL,
  created_by   uuid REFERENCES auth.users (id) ON DELETE SET NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  -- One for a kind of file: saving another one replaces it.
  CONSTRAINT import_templates_once UNIQUE (workspace_id, entity_type, fingerprint),
  CONSTRAINT import_templates_entity_type CHECK (entity_type IN ('accounts', 'contacts')),
  CONSTRAINT import_templates_name CHECK (char_length(name) BETWEEN 1 AND 100),
  CONSTRAINT import_templates_fingerprint CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
  CONSTRAINT import_templates_headers CHECK (cardinality(headers) BETWEEN 1 AND 1000),
  CONSTRAINT import_templates_mapping CHECK (jsonb_typeof(mapping) = 'object')
);
CREATE INDEX import_templates_created_by ON import_templates (created_by);

GRANT SELECT ON import_templates TO authenticated, bullwark_tenant;
GRANT ALL ON import_templates TO service_role;
ALTER TABLE import_templates ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view import templates of their workspace" ON import_templates
  FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its import templates" ON import_templates
  FOR SELECT TO bullwark_tenant USING (workspace_id = bullwark.tenant());

-- What the values of a custom field are. One that is not declared takes any text.
CREATE TABLE custom_fields (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  entity_type  text NOT NULL,
  name         text NOT NULL,
  kind         text NOT NULL,
  created_by   uuid REFERENCES auth.users (id) ON DELETE SET NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT custom_fields_once UNIQUE (workspace_id, entity_type, name),
  CONSTRAINT custom_fields_entity_type CHECK (entity_type IN ('accounts', 'contacts')),
  CONSTRAINT custom_fields_name CHECK (octet_length(name) BETWEEN 1 AND 100),
  CONSTRAINT custom_fields_kind CHECK (kind IN ('text', 'number', 'boolean', 'date'))
);
CREATE INDEX custom_fields_created_by ON custom_fields (created_by);

GRANT SELECT ON custom_fields TO authenticated, bullwark_tenant;
GRANT ALL ON custom_fields TO service_role;
ALTER TABLE custom_fields ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view custom fields of their workspace" ON custom_fields
  FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its custom fields" ON custom_fields
  FOR SELECT TO bullwark_tenant USING (workspace_id = bullwark.tenant());
