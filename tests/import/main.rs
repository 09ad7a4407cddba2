//! Integration tests of the CSV import against a real PostgreSQL.
#![cfg(feature = "handlers")]

mod chunks;
mod examples;
mod modes;
mod resume;
mod source;
mod speed;
mod support;
mod tenants;
