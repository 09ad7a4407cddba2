//! `sync_crm`: keeps accounts, contacts and opportunities the same here and in a CRM.

pub mod client;
