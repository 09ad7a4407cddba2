//! Bullwark on a Redis Cluster and behind Sentinel: real servers that move, die and take over.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod broker;
mod failover;
mod moving;
mod nodes;
mod rig;
mod sentinel;
mod server;
