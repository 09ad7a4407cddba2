-- $1 the contact, $2 its new values by field, $3 the providers they came from, for the
-- lineage (migration 0060). What is not named stays. Returns the row.
UPDATE contacts c SET
  email = CASE WHEN $2 ? 'email' THEN $2 ->> 'email' ELSE c.email END,
  first_name = CASE WHEN $2 ? 'first_name' THEN $2 ->> 'first_name' ELSE c.first_name END,
  last_name = CASE WHEN $2 ? 'last_name' THEN $2 ->> 'last_name' ELSE c.last_name END,
  title = CASE WHEN $2 ? 'title' THEN $2 ->> 'title' ELSE c.title END,
  phone = CASE WHEN $2 ? 'phone' THEN $2 ->> 'phone' ELSE c.phone END,
  linkedin_url = CASE WHEN $2 ? 'linkedin_url'
    THEN $2 ->> 'linkedin_url' ELSE c.linkedin_url END,
  company = CASE WHEN $2 ? 'company' THEN $2 ->> 'company' ELSE c.company END,
  country = CASE WHEN $2 ? 'country' THEN $2 ->> 'country' ELSE c.country END,
  city = CASE WHEN $2 ? 'city' THEN $2 ->> 'city' ELSE c.city END,
  enriched_at = now(), updated_at = now()
FROM (SELECT set_config('bullwark.source',
    split_part(current_setting('bullwark.source', true), ':', 1) || ':' || $3, true) AS source) said
-- Named, so that it is said; the triggers of this statement read it.
WHERE c.id = $1 AND said.source IS NOT NULL
RETURNING to_jsonb(c)
