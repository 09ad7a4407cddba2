-- Fair queues: those who share one take turns, however many jobs each has.
ALTER TABLE bullwark.queues ADD COLUMN is_fair boolean NOT NULL DEFAULT false;
