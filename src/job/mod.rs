//! What a job is, without any store: types, states, options and formulas.
//!
//! This module is pure. It imports nothing else of the crate, does no input or output and reads no
//! clock but to make ids, so that every rule in it can be tested as a table of cases.

pub mod backoff;
pub mod bullmq_options;
mod change;
pub mod connection;
pub mod flow;
mod foreign_options;
mod outcome;
pub mod period;
mod priority;
mod progress;
mod queue_name;
mod queue_settings;
pub mod quota;
pub mod request;
pub mod retention;
pub mod schedule;
pub mod smtp_probe;
mod status;
mod types;
pub mod webhook;
pub mod wire;
mod wire_form;

pub use backoff::Backoff;
pub use change::{Change, Unfit};
pub use foreign_options::{ForeignOptions, KeepFinished, append_stack_trace};
pub use outcome::{
    ERROR_MESSAGE_MAX, Ending, JobError, Outcome, Report, RetryRule, RetryWish, Telling,
};
pub use priority::{Priority, PriorityOutOfRange};
pub use progress::Progress;
pub use queue_name::{InvalidQueueName, QUEUE_NAME_MAX, QueueName};
pub use queue_settings::{QueueChange, QueueSettings};
pub use request::{Due, JobRequest, NewJob};
pub use schedule::{InvalidSchedule, Rhythm, Schedule, Template};
pub use status::{Event, IllegalTransition, Status, UnknownStatus};
pub use types::{InvalidType, JobType, JobTypes, Problem, Refused, TIMEOUT};
pub use wire_form::WireForm;
