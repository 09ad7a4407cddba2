//! The integration tests: one binary, so that the crate is linked once and all tests share one pair
//! of private servers.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod agreement;
mod control;
mod deleted;
mod enqueue;
mod flow;
mod http;
mod http_actions;
mod http_bounds;
mod http_control;
mod http_dead_letters;
mod http_details;
mod http_enqueue;
mod http_events;
mod http_events_gaps;
mod http_flows;
mod http_imports;
mod http_keys;
mod http_limits;
mod http_openapi;
mod http_operations;
mod http_outage;
mod http_privacy;
mod http_queues;
mod http_schedules;
mod http_search;
mod http_sessions;
mod http_stats;
mod http_tokens;
mod http_uploads;
mod http_workers;
mod isolation;
mod mirror;
mod outages;
mod over;
mod queues;
mod rebuild;
mod reconcile;
mod reconcile_spoiled;
mod record_enqueue;
mod record_list;
mod record_open;
mod record_rules;
mod record_settle;
mod record_start;
mod recover;
mod rollups;
mod silence;
mod stage;
mod stores;
mod stores_orphans;
mod support;
mod verify;
mod worker;
