//! Bullwark: a durable job queue and data-pipeline engine.
//!
//! Jobs move through Redis in `BullMQ`'s own key layout; every job is first written to PostgreSQL,
//! which is the record. `docs/ARCHITECTURE.md` is the map of this crate.

pub mod app;
#[cfg(feature = "cli")]
pub mod bench;
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod enqueue;
pub mod fault;
#[cfg(feature = "handlers")]
pub mod handlers;
#[cfg(feature = "server")]
pub mod http;
pub mod job;
#[cfg(any(feature = "handlers", feature = "server"))]
pub mod outbound;
pub mod periodic;
pub mod quota;
pub mod reconcile;
pub mod record;
pub mod sealed;
pub mod secret;
pub mod settle;
#[cfg(feature = "cli")]
pub mod soak;
pub mod storage;
pub mod stores;
pub mod tasks;
#[cfg(feature = "cli")]
pub mod telemetry;
pub mod upkeep;
#[cfg(any(feature = "handlers", feature = "server"))]
pub mod uploads;
pub mod worker;

/// The examples of the page are compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/guarantees.md")]
mod guarantees {}
