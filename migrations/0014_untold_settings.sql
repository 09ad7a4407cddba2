-- Which settings of a queue Redis has not been told of. Only those are written there: of the others
-- a BullMQ client may have the last word, which the record hears of a moment later.
ALTER TABLE bullwark.queues ADD COLUMN untold text[] NOT NULL DEFAULT '{}';
UPDATE bullwark.queues SET untold = '{paused,concurrency,rate_limit}' WHERE NOT is_told;
