//! The integration tests: one binary, so that the crate is linked once and all tests share one pair
//! of private servers.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod stores;
mod stores_orphans;
mod support;
mod worker;
