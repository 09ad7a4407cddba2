//! `send_email_batch`, against small servers that speak SMTP, and as SendGrid and SES do.

mod crash;
mod events;
mod post;
mod providers;
mod routes;
mod sending;
mod smtp;
mod trouble;
mod unsubscribe;
mod warm_up;
