-- Reports: their files are kept as those of exports are, and stand in the same table.
SET LOCAL search_path = public;

-- Looser than before, so no row has to be looked at. Servers of an older version list reports among
-- the exports and give out nothing of them.
ALTER TABLE exports DROP CONSTRAINT exports_entity_type;
ALTER TABLE exports ADD CONSTRAINT exports_entity_type
  CHECK (entity_type IN ('accounts', 'contacts', 'pipeline')) NOT VALID;
ALTER TABLE exports DROP CONSTRAINT exports_format;
ALTER TABLE exports ADD CONSTRAINT exports_format
  CHECK (format IN ('csv', 'json', 'ndjson', 'xlsx', 'html')) NOT VALID;
