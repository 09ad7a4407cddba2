//! The protocol as a model, and every way through it within a bound. See `docs/model.md`.
//!
//! A specification in code: it shares nothing with the crate but the table of transitions.

mod enqueuer;
mod mutants;
mod properties;
mod protocol;
mod redis;
mod repair;
mod scenes;
mod state;
mod worker;
