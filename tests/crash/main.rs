//! Worker processes that are killed, stopped and frozen, on private stores.
//!
//! `cargo test --test crash` runs a small storm; `BULLWARK_CRASH_JOBS=10000 cargo test --test crash
//! -- storm --nocapture` runs a larger one and prints its figures.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod committed;
mod crash_loop;
mod faults;
mod frozen;
mod killed;
mod own_worker;
mod snapshot;
mod stage;
mod steered;
mod storm;
mod terminated;
