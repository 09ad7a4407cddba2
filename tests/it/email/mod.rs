//! `send_email_batch`, against small servers that speak SMTP, and as SendGrid and SES do.

mod crash;
pub(crate) mod events;
pub(crate) mod post;
mod providers;
mod routes;
mod sending;
mod ses_events;
mod ses_quota;
pub(crate) mod smtp;
mod throttled;
mod trouble;
mod unsubscribe;
mod warm_up;
