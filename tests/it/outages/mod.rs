//! Degraded stores under a whole Bullwark: what is accepted, what is told, and that nothing is lost
//! and nothing runs twice when they are well again.

mod load;
mod ready;
mod redis_full;
mod redis_stuck;
mod redis_unwritable;
mod site;
