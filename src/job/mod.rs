//! What a job is, without any store: types, states, options and formulas.
//!
//! This module is pure. It imports nothing else of the crate, does no input or output and reads no
//! clock, so that every rule in it can be tested as a table of cases.

mod queue_name;

pub use queue_name::{InvalidQueueName, QueueName};
