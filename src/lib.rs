//! Bullwark: a durable job queue and data-pipeline engine.
//!
//! Jobs move through Redis in BullMQ's own key layout; every job is first written to PostgreSQL,
//! which is the record. `docs/ARCHITECTURE.md` is the map of this crate.

#[cfg(feature = "handlers")]
pub mod handlers;
pub mod job;
