-- contacts: bring existing rows up to date; the answer names those that really changed.
--
-- $1 ids, $2 columns of which only gaps are filled, $3 columns that an empty value clears, $4
-- account ids, then one array per column, $16 columns that stay as they are. A custom field is the
-- column `custom.x`.
WITH wanted AS (
  -- The lock makes "existing value" the newest one; its order prevents deadlocks.
  SELECT
    a.id,
    CASE WHEN 'account_id' = ANY($16) THEN a.account_id
         ELSE COALESCE(a.account_id, n.account_id) END AS account_id,
    CASE WHEN 'external_id' = ANY($16) THEN a.external_id
         WHEN 'external_id' = ANY($2) THEN COALESCE(a.external_id, n.external_id)
         WHEN n.external_id IS NULL AND 'external_id' = ANY($3) THEN NULL
         ELSE COALESCE(n.external_id, a.external_id) END AS external_id,
    CASE WHEN 'email' = ANY($16) THEN a.email
         WHEN 'email' = ANY($2) THEN COALESCE(a.email, n.email)
         WHEN n.email IS NULL AND 'email' = ANY($3) THEN NULL
         ELSE COALESCE(n.email, a.email) END AS email,
    CASE WHEN 'first_name' = ANY($16) THEN a.first_name
         WHEN 'first_name' = ANY($2) THEN COALESCE(a.first_name, n.first_name)
         WHEN n.first_name IS NULL AND 'first_name' = ANY($3) THEN NULL
         ELSE COALESCE(n.first_name, a.first_name) END AS first_name,
    CASE WHEN 'last_name' = ANY($16) THEN a.last_name
         WHEN 'last_name' = ANY($2) THEN COALESCE(a.last_name, n.last_name)
         WHEN n.last_name IS NULL AND 'last_name' = ANY($3) THEN NULL
         ELSE COALESCE(n.last_name, a.last_name) END AS last_name,
    CASE WHEN 'title' = ANY($16) THEN a.title
         WHEN 'title' = ANY($2) THEN COALESCE(a.title, n.title)
         WHEN n.title IS NULL AND 'title' = ANY($3) THEN NULL
         ELSE COALESCE(n.title, a.title) END AS title,
    CASE WHEN 'phone' = ANY($16) THEN a.phone
         WHEN 'phone' = ANY($2) THEN COALESCE(a.phone, n.phone)
         WHEN n.phone IS NULL AND 'phone' = ANY($3) THEN NULL
         ELSE COALESCE(n.phone, a.phone) END AS phone,
    CASE WHEN 'linkedin_url' = ANY($16) THEN a.linkedin_url
         WHEN 'linkedin_url' = ANY($2) THEN COALESCE(a.linkedin_url, n.linkedin_url)
         WHEN n.linkedin_url IS NULL AND 'linkedin_url' = ANY($3) THEN NULL
         ELSE COALESCE(n.linkedin_url, a.linkedin_url) END AS linkedin_url,
    CASE WHEN 'company' = ANY($16) THEN a.company
         WHEN 'company' = ANY($2) THEN COALESCE(a.company, n.company)
         WHEN n.company IS NULL AND 'company' = ANY($3) THEN NULL
         ELSE COALESCE(n.company, a.company) END AS company,
    CASE WHEN 'country' = ANY($16) THEN a.country
         WHEN 'country' = ANY($2) THEN COALESCE(a.country, n.country)
         WHEN n.country IS NULL AND 'country' = ANY($3) THEN NULL
         ELSE COALESCE(n.country, a.country) END AS country,
    CASE WHEN 'city' = ANY($16) THEN a.city
         WHEN 'city' = ANY($2) THEN COALESCE(a.city, n.city)
         WHEN n.city IS NULL AND 'city' = ANY($3) THEN NULL
         ELSE COALESCE(n.city, a.city) END AS city,
    a.custom || COALESCE((
      SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(n.custom) e
      WHERE 'custom.' || e.key <> ALL($16)
        AND NOT ('custom.' || e.key = ANY($2) AND a.custom ? e.key)), '{}') AS custom
  FROM unnest(
    $1::uuid[], $4::uuid[],
    $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
    $12::text[], $13::text[], $14::text[], $15::jsonb[]
  ) AS n (id, account_id,
    external_id, email, first_name, last_name, title, phone, linkedin_url, company, country,
    city, custom)
  JOIN contacts a ON a.id = n.id
  ORDER BY a.id
  FOR NO KEY UPDATE OF a
)
UPDATE contacts a
SET
  account_id = w.account_id, external_id = w.external_id, email = w.email,
  first_name = w.first_name, last_name = w.last_name, title = w.title, phone = w.phone,
  linkedin_url = w.linkedin_url, company = w.company, country = w.country, city = w.city,
  custom = w.custom,
  updated_at = now()
FROM wanted w
WHERE a.id = w.id AND (
  a.account_id, a.external_id, a.email, a.first_name, a.last_name, a.title, a.phone,
  a.linkedin_url, a.company, a.country, a.city, a.custom
) IS DISTINCT FROM (
  w.account_id, w.external_id, w.email, w.first_name, w.last_name, w.title, w.phone,
  w.linkedin_url, w.company, w.country, w.city, w.custom
)
RETURNING a.id
