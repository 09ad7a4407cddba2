//! Degraded stores under a whole Bullwark: what is accepted, what is told, and that nothing is lost
//! and nothing runs twice when they are well again.

mod conflicts;
mod descriptors;
mod load;
mod lost_answers;
mod ready;
mod record_cut;
mod record_full;
mod redis_full;
mod redis_stuck;
mod redis_unwritable;
mod restarts;
mod site;
mod standby;
