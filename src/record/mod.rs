//! The record: everything that must not be lost, in PostgreSQL.

pub mod accounts;
pub mod contacts;
