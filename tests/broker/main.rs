//! The broker against a real Redis: each script alone, every key compared.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::disallowed_methods, reason = "tests wait for what they spawn")]

mod add;
mod cancel;
mod claim;
mod connection;
mod extend;
mod fail;
mod finish;
mod flow;
mod golden;
mod inspect;
mod linked;
mod parents;
mod pause;
mod progress;
mod promote;
mod release;
mod requeue;
mod rescue;
mod retry;
mod support;
mod waker;
