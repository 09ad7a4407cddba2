-- accounts: bring existing rows up to date; the answer names those that really changed.
--
-- $1 ids, $2 columns of which only gaps are filled, $3 columns that an empty value clears, then
-- one array per column, $18 columns that stay as they are. A custom field is the column `custom.x`.
WITH wanted AS (
  -- The lock makes "existing value" the newest one; its order prevents deadlocks.
  SELECT
    a.id,
    CASE WHEN 'external_id' = ANY($18) THEN a.external_id
         WHEN 'external_id' = ANY($2) THEN COALESCE(a.external_id, n.external_id)
         WHEN n.external_id IS NULL AND 'external_id' = ANY($3) THEN NULL
         ELSE COALESCE(n.external_id, a.external_id) END AS external_id,
    CASE WHEN 'name' = ANY($18) THEN a.name
         WHEN 'name' = ANY($2) THEN COALESCE(a.name, n.name)
         WHEN n.name IS NULL AND 'name' = ANY($3) THEN NULL
         ELSE COALESCE(n.name, a.name) END AS name,
    CASE WHEN 'domain' = ANY($18) THEN a.domain
         WHEN 'domain' = ANY($2) THEN COALESCE(a.domain, n.domain)
         WHEN n.domain IS NULL AND 'domain' = ANY($3) THEN NULL
         ELSE COALESCE(n.domain, a.domain) END AS domain,
    CASE WHEN 'website' = ANY($18) THEN a.website
         WHEN 'website' = ANY($2) THEN COALESCE(a.website, n.website)
         WHEN n.website IS NULL AND 'website' = ANY($3) THEN NULL
         ELSE COALESCE(n.website, a.website) END AS website,
    CASE WHEN 'industry' = ANY($18) THEN a.industry
         WHEN 'industry' = ANY($2) THEN COALESCE(a.industry, n.industry)
         WHEN n.industry IS NULL AND 'industry' = ANY($3) THEN NULL
         ELSE COALESCE(n.industry, a.industry) END AS industry,
    CASE WHEN 'employee_count' = ANY($18) THEN a.employee_count
         WHEN 'employee_count' = ANY($2) THEN COALESCE(a.employee_count, n.employee_count)
         WHEN n.employee_count IS NULL AND 'employee_count' = ANY($3) THEN NULL
         ELSE COALESCE(n.employee_count, a.employee_count) END AS employee_count,
    CASE WHEN 'annual_revenue' = ANY($18) THEN a.annual_revenue
         WHEN 'annual_revenue' = ANY($2) THEN COALESCE(a.annual_revenue, n.annual_revenue)
         WHEN n.annual_revenue IS NULL AND 'annual_revenue' = ANY($3) THEN NULL
         ELSE COALESCE(n.annual_revenue, a.annual_revenue) END AS annual_revenue,
    CASE WHEN 'country' = ANY($18) THEN a.country
         WHEN 'country' = ANY($2) THEN COALESCE(a.country, n.country)
         WHEN n.country IS NULL AND 'country' = ANY($3) THEN NULL
         ELSE COALESCE(n.country, a.country) END AS country,
    CASE WHEN 'city' = ANY($18) THEN a.city
         WHEN 'city' = ANY($2) THEN COALESCE(a.city, n.city)
         WHEN n.city IS NULL AND 'city' = ANY($3) THEN NULL
         ELSE COALESCE(n.city, a.city) END AS city,
    CASE WHEN 'phone' = ANY($18) THEN a.phone
         WHEN 'phone' = ANY($2) THEN COALESCE(a.phone, n.phone)
         WHEN n.phone IS NULL AND 'phone' = ANY($3) THEN NULL
         ELSE COALESCE(n.phone, a.phone) END AS phone,
    CASE WHEN 'linkedin_url' = ANY($18) THEN a.linkedin_url
         WHEN 'linkedin_url' = ANY($2) THEN COALESCE(a.linkedin_url, n.linkedin_url)
         WHEN n.linkedin_url IS NULL AND 'linkedin_url' = ANY($3) THEN NULL
         ELSE COALESCE(n.linkedin_url, a.linkedin_url) END AS linkedin_url,
    CASE WHEN 'description' = ANY($18) THEN a.description
         WHEN 'description' = ANY($2) THEN COALESCE(a.description, n.description)
         WHEN n.description IS NULL AND 'description' = ANY($3) THEN NULL
         ELSE COALESCE(n.description, a.description) END AS description,
    CASE WHEN 'technologies' = ANY($18) THEN a.technologies
         WHEN 'technologies' = ANY($2) THEN COALESCE(a.technologies, n.technologies)
         WHEN n.technologies IS NULL AND 'technologies' = ANY($3) THEN NULL
         ELSE COALESCE(n.technologies, a.technologies) END AS technologies,
    a.custom || COALESCE((
      SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(n.custom) e
      WHERE 'custom.' || e.key <> ALL($18)
        AND NOT ('custom.' || e.key = ANY($2) AND a.custom ? e.key)), '{}') AS custom
  FROM unnest(
    $1::uuid[],
    $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::bigint[],
    $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::jsonb[],
    $17::jsonb[]
  ) AS n (id,
    external_id, name, domain, website, industry, employee_count, annual_revenue, country,
    city, phone, linkedin_url, description, technologies, custom)
  JOIN accounts a ON a.id = n.id
  ORDER BY a.id
  FOR NO KEY UPDATE OF a
)
UPDATE accounts a
SET
  external_id = w.external_id, name = w.name, domain = w.domain, website = w.website,
  industry = w.industry, employee_count = w.employee_count,
  annual_revenue = w.annual_revenue, country = w.country, city = w.city, phone = w.phone,
  linkedin_url = w.linkedin_url, description = w.description, technologies = w.technologies,
  custom = w.custom,
  updated_at = now()
FROM wanted w
WHERE a.id = w.id AND (
  a.external_id, a.name, a.domain, a.website, a.industry, a.employee_count,
  a.annual_revenue, a.country, a.city, a.phone, a.linkedin_url, a.description,
  a.technologies, a.custom
) IS DISTINCT FROM (
  w.external_id, w.name, w.domain, w.website, w.industry, w.employee_count,
  w.annual_revenue, w.country, w.city, w.phone, w.linkedin_url, w.description,
  w.technologies, w.custom
)
RETURNING a.id
