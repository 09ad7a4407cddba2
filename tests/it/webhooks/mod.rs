//! Webhooks: what is noted of jobs that end, the jobs that come of it, and what receivers get.

mod attempts;
mod delivery;
mod events;
mod failing;
mod jobs;
pub(crate) mod receiver;
pub(crate) mod rig;
