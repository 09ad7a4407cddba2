-- What a person must know, and what the record says of itself.

CREATE TABLE bullwark.alerts (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  kind         text NOT NULL,
  message      text NOT NULL,
  details      jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now(),
  -- when a person had seen to it
  resolved_at  timestamptz,
  CONSTRAINT alerts_kind CHECK (kind IN ('record_lost_its_tail'))
);

-- Grows all the time, and Redis is told of it. A record that is behind what Redis was told has lost
-- its tail: it was restored from a backup, or a standby that lagged was promoted.
CREATE TABLE bullwark.beats (
  prefix text PRIMARY KEY,
  beat   bigint NOT NULL
);
