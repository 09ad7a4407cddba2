-- $1 the account, $2 its new values by field, $3 the providers they came from, for the
-- lineage (migration 0060). What is not named stays. Returns the row.
UPDATE accounts a SET
  website = CASE WHEN $2 ? 'website' THEN $2 ->> 'website' ELSE a.website END,
  industry = CASE WHEN $2 ? 'industry' THEN $2 ->> 'industry' ELSE a.industry END,
  employee_count = CASE WHEN $2 ? 'employee_count'
    THEN ($2 ->> 'employee_count')::int ELSE a.employee_count END,
  annual_revenue = CASE WHEN $2 ? 'annual_revenue'
    THEN ($2 ->> 'annual_revenue')::bigint ELSE a.annual_revenue END,
  country = CASE WHEN $2 ? 'country' THEN $2 ->> 'country' ELSE a.country END,
  city = CASE WHEN $2 ? 'city' THEN $2 ->> 'city' ELSE a.city END,
  phone = CASE WHEN $2 ? 'phone' THEN $2 ->> 'phone' ELSE a.phone END,
  linkedin_url = CASE WHEN $2 ? 'linkedin_url'
    THEN $2 ->> 'linkedin_url' ELSE a.linkedin_url END,
  description = CASE WHEN $2 ? 'description' THEN $2 ->> 'description' ELSE a.description END,
  technologies = CASE WHEN $2 ? 'technologies'
    THEN $2 -> 'technologies' ELSE a.technologies END,
  social_links = CASE WHEN $2 ? 'social_links'
    THEN $2 -> 'social_links' ELSE a.social_links END,
  enriched_at = now(), updated_at = now()
FROM (SELECT set_config('bullwark.source',
    split_part(current_setting('bullwark.source', true), ':', 1) || ':' || $3, true) AS source) said
-- Named, so that it is said; the triggers of this statement read it.
WHERE a.id = $1 AND said.source IS NOT NULL
RETURNING to_jsonb(a)
