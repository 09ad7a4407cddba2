//! The worker against real stores: how runs end, what they may write, what is claimed, how a
//! worker stops, and what outages cost.

pub(crate) mod answers;
mod claims;
mod coded;
mod effects;
mod endings;
mod foreign;
mod made_jobs;
mod outages;
pub(crate) mod probe;
mod quotas;
mod restarts;
pub(crate) mod rig;
mod schedules;
pub(crate) mod script;
mod shutdown;
mod steering;
mod steps;
mod transactions;
mod writes;
mod zombies;
