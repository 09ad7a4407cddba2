//! Stock `BullMQ` clients and Bullwark on the same queues: the Node packages of versions 5 and 6,
//! the Python and Rust ports, bull-board. And the HTTP API, asked by schemathesis.
//!
//! `make clients` installs them; a missing client fails the tests, none is skipped. One thing is
//! not tested everywhere: where there is no Go, the example in Go is only read for its job names,
//! neither built nor run. The servers are private to this process, and each test has a database and
//! a key prefix of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::disallowed_methods, reason = "tests wait for what they spawn")]

mod add;
mod adopted;
mod answers;
mod api_examples;
mod clocks;
mod dashboard;
mod dedup;
mod delay;
mod differential;
mod driver;
mod events;
mod examples;
mod fair_queues;
mod fleet;
mod flow;
mod flow_record;
mod forward;
mod forward_admin;
mod forward_connections;
mod forward_events;
mod forward_limits;
mod forwarder;
mod keep;
mod limits;
mod logs;
mod node;
mod order;
mod outage;
mod pause;
mod process;
mod retry;
mod schedule;
mod schemathesis;
mod sides;
mod stage;
mod stalled;
mod steps;
mod wait;
