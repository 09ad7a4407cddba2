//! Job types that Bullwark brings along: one folder or file per type.
//!
//! A handler decides what a job does. It reaches the record only through functions of
//! `crate::record` and never sees the broker, the queue layout or the HTTP server.

pub mod import_csv;
