-- The warm-up of sending domains: how much may be sent from each on a day.
--
-- Counted here, so that it survives all of Redis: reserved in the transaction that claims a mail,
-- before anything is handed over, behind a lock of the domain's row. A day is one in the zone of
-- the sender. It ends at a moment that was settled when it began, so no change of clocks, zones or
-- summer time begins it twice.
SET LOCAL search_path = public;

CREATE TABLE email_domains (
  workspace_id  uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  domain        text NOT NULL,
  zone          text NOT NULL DEFAULT 'UTC',
  -- warm: it has no cap
  is_warm       boolean NOT NULL DEFAULT false,
  -- nothing is sent until somebody takes it away
  paused_reason text,
  -- the cap of each day of warming
  curve         int[] NOT NULL DEFAULT '{50,100,250,500,1000,2500,5000,7500,10000,15000,20000,30000,
    40000,55000,70000,100000}',
  -- where in it the day stands, from 1; why it did not move on
  step          int NOT NULL DEFAULT 1,
  held_reason   text,
  -- none: nothing was sent yet
  day           date,
  day_ends_at   timestamptz,
  used          int NOT NULL DEFAULT 0,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workspace_id, domain),
  CONSTRAINT email_domains_domain CHECK (domain = lower(domain) AND length(domain) <= 253),
  CONSTRAINT email_domains_curve CHECK (cardinality(curve) BETWEEN 1 AND 100
    AND 0 < ALL (curve)),
  CONSTRAINT email_domains_step CHECK (step BETWEEN 1 AND 101),
  CONSTRAINT email_domains_used CHECK (used >= 0),
  CONSTRAINT email_domains_day CHECK ((day IS NULL) = (day_ends_at IS NULL))
) WITH (fillfactor = 50);

-- What was sent on each day, and what came of it.
CREATE TABLE email_domain_days (
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  domain       text NOT NULL,
  day          date NOT NULL,
  -- none: it was warm
  cap          int,
  used         int NOT NULL DEFAULT 0,
  bounced      int NOT NULL DEFAULT 0,
  complained   int NOT NULL DEFAULT 0,
  PRIMARY KEY (workspace_id, domain, day)
) WITH (fillfactor = 50);

-- What a day says of its domain: nothing, `held` (stay where you are) or `paused` (stop). The rates
-- are those that mailbox providers act on; one single answer proves nothing.
CREATE FUNCTION bullwark.email_verdict(d email_domain_days) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN d.used > 0 AND (d.bounced >= 3 AND d.bounced > d.used * 0.05
      OR d.complained >= 2 AND d.complained > d.used * 0.003) THEN 'paused'
    WHEN d.used > 0 AND (d.bounced >= 2 AND d.bounced > d.used * 0.02
      OR d.complained >= 1 AND d.complained > d.used * 0.001) THEN 'held'
  END
$$;

-- Reserves up to `wanted` mails of a domain: how many are granted, on which day, and when the next
-- day begins. Locks the domain until the transaction ends. `at` is for tests.
CREATE FUNCTION bullwark.reserve_email(ws uuid, dom text, wanted int,
  at timestamptz DEFAULT clock_timestamp(),
  OUT granted int, OUT on_day date, OUT next_at timestamptz, OUT paused text,
  OUT later int[]) LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  d public.email_domains;
  last public.email_domain_days;
  today date;
  verdict text;
BEGIN
  INSERT INTO public.email_domains (workspace_id, domain) VALUES (ws, dom) ON CONFLICT DO NOTHING;
  SELECT * INTO d FROM public.email_domains e
    WHERE e.workspace_id = ws AND e.domain = dom FOR UPDATE;
  IF d.day IS NULL OR at >= d.day_ends_at THEN
    today := (at AT TIME ZONE d.zone)::date;
    IF d.day IS NOT NULL THEN
      SELECT * INTO last FROM public.email_domain_days e
        WHERE e.workspace_id = ws AND e.domain = dom AND e.day = d.day;
      verdict := bullwark.email_verdict(last);
      d.held_reason := NULL;
      -- A zone that was changed must not give the same date again.
      today := greatest(today, d.day + 1);
      IF today - d.day > 30 THEN
        -- Who was silent for so long is new again.
        d.is_warm := false;
        d.step := 1;
      ELSIF d.is_warm OR d.used = 0 THEN
        NULL;
      ELSIF verdict IS NOT NULL THEN
        d.held_reason := format('%s of %s mails bounced and %s were complained about on %s',
          last.bounced, last.used, last.complained, d.day);
      ELSIF d.step >= cardinality(d.curve) THEN
        d.is_warm := true;
      ELSE
        d.step := d.step + 1;
      END IF;
    END IF;
    d.day := today;
    d.day_ends_at := (today + 1)::timestamp AT TIME ZONE d.zone;
    d.used := 0;
  END IF;
  on_day := d.day;
  next_at := d.day_ends_at;
  paused := d.paused_reason;
  later := CASE WHEN d.is_warm THEN NULL ELSE d.curve[d.step + 1:] END;
  granted := CASE WHEN d.paused_reason IS NOT NULL THEN 0 WHEN d.is_warm THEN wanted
    ELSE least(wanted, greatest(d.curve[least(d.step, cardinality(d.curve))] - d.used, 0)) END;
  d.used := d.used + granted;
  UPDATE public.email_domains e SET day = d.day, day_ends_at = d.day_ends_at, used = d.used,
    step = d.step, is_warm = d.is_warm, held_reason = d.held_reason, updated_at = now()
    WHERE e.workspace_id = ws AND e.domain = dom;
  INSERT INTO public.email_domain_days AS e (workspace_id, domain, day, cap, used)
    VALUES (ws, dom, d.day, CASE WHEN d.is_warm THEN NULL
      ELSE d.curve[least(d.step, cardinality(d.curve))] END, granted)
    ON CONFLICT (workspace_id, domain, day) DO UPDATE SET used = e.used + excluded.used;
END $$;

-- Gives back what certainly was not sent. A day that is over keeps what it has: the next one has a
-- count of its own.
CREATE FUNCTION bullwark.release_email(ws uuid, dom text, of_day date, mails int) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.email_domains SET used = greatest(used - mails, 0)
    WHERE workspace_id = ws AND domain = dom AND day = of_day;
  UPDATE public.email_domain_days SET used = greatest(used - mails, 0)
    WHERE workspace_id = ws AND domain = dom AND day = of_day;
$$;

-- Counts what came of mails, and stops a domain that goes wrong.
CREATE FUNCTION bullwark.count_email(ws uuid, dom text, of_day date, bounces int, complaints int)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  now_is public.email_domain_days;
BEGIN
  -- In the order of reserve_email: the domain, then its day.
  PERFORM FROM public.email_domains e WHERE e.workspace_id = ws AND e.domain = dom FOR UPDATE;
  UPDATE public.email_domain_days e SET bounced = e.bounced + bounces,
    complained = e.complained + complaints
    WHERE e.workspace_id = ws AND e.domain = dom AND e.day = of_day RETURNING * INTO now_is;
  IF bullwark.email_verdict(now_is) = 'paused' THEN
    UPDATE public.email_domains e SET updated_at = now(), paused_reason = coalesce(e.paused_reason,
      format('%s of %s mails bounced and %s were complained about on %s', now_is.bounced,
        now_is.used, now_is.complained, of_day))
      WHERE e.workspace_id = ws AND e.domain = dom AND NOT e.is_warm;
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION bullwark.reserve_email, bullwark.release_email, bullwark.count_email
  FROM public;

REVOKE ALL ON email_domains, email_domain_days FROM authenticated;
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
    REVOKE ALL ON email_domains, email_domain_days FROM anon;
  END IF;
END $$;
GRANT ALL ON email_domains, email_domain_days TO service_role;
GRANT SELECT ON email_domains, email_domain_days TO authenticated, bullwark_tenant;
ALTER TABLE email_domains ENABLE ROW LEVEL SECURITY;
ALTER TABLE email_domain_days ENABLE ROW LEVEL SECURITY;
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['email_domains', 'email_domain_days'] LOOP
    EXECUTE format('CREATE POLICY members ON %I FOR SELECT TO authenticated
      USING (workspace_id IN (SELECT workspace_id FROM workspace_members
        WHERE user_id = auth.uid()))', t);
    EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO bullwark_tenant
      USING (workspace_id = bullwark.tenant())', t);
  END LOOP;
END $$;
