//! Integration tests of the CSV import against a real PostgreSQL.
#![cfg(feature = "handlers")]
#![expect(clippy::unwrap_used, reason = "a test ends when its support fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait for what they spawn")]

mod ahead;
mod chunks;
mod custom_fields;
mod examples;
mod export_resume;
mod export_rows;
mod exports;
mod lineage;
mod modes;
mod packed;
mod policies;
mod resume;
mod source;
mod support;
mod templates;
mod tenants;
mod trouble;
mod undo;
