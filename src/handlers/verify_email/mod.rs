//! `verify_email`: whether the addresses of contacts can get mail at all.
//!
//! An address is looked at (its form, a list of services for addresses that are thrown away, names
//! of functions), then DNS is asked who takes mail for its domain ([`mail_hosts`]). Mail servers
//! are asked only where whoever runs the server and the job want it ([`probe`]). What is found, and
//! why, is written to the contact: `email_status`, `email_reasons`, `email_checked_at`;
//! `send_email_batch` sends nothing to what is `invalid`.
//!
//! Promises: an address that nobody could be asked about is `unknown`, and replaces nothing that is
//! known, nor does a mail server that says nothing; a contact that got another address meanwhile is
//! left alone; each contact is verified and counted once per job, whatever dies.
//!
//! Contacts are gone through in the order of their ids, some at a time. Where the worker may die:
//!
//! | between | finds | does |
//! |---|---|---|
//! | the start and the first checkpoint | nothing | begins anew |
//! | the questions and their commit | the last checkpoint | asks again, for these |
//! | two checkpoints | the last contact that is done, and the counts | goes on behind it |
//! | the last questions and the end, one commit | the same | asks again, for these |

mod address;
mod mail_hosts;
mod probe;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::smtp_probe::SmtpProbe;
use crate::job::{JobError, Progress};
use crate::record::Tx;
use crate::record::logs::LogLevel;
use crate::record::verified_emails::{self, ToVerify, Verified};
use crate::worker::{Handler, JobContext};
use address::Address;
use mail_hosts::Dns;
use probe::{Known, Probe, Probing};
pub use verdict::{Status, Verdict};

/// Contacts of one job.
const CONTACTS_MAX: usize = 1000;
/// Contacts between two checkpoints.
const CHUNK: usize = 64;
/// Addresses of a job that are looked at together; how many questions that are at once for the
/// whole process is told in [`mail_hosts`].
const AT_ONCE: usize = 8;
/// How long a verification is good, in days, when nothing else is said.
const MAX_AGE_DAYS: i32 = 30;
/// What a job is told that wants mail servers asked.
const NO_PROBE: &str = "this server asks no mail servers: whoever runs it sets \
    BULLWARK_SMTP_PROBE_FROM to the sender that they are told, such as probe@mail.example.com, or \
    the job is given without `probe`";
/// What its log is told when none can be connected to.
const SHUT_IN: &str = "no mail server could be connected to, of any domain that was tried; no more \
    are tried. Many networks let nobody out to port 25";
/// Each address takes some questions, of some seconds at most.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Verifies addresses of contacts.
#[derive(Debug, Clone)]
pub struct VerifyEmail {
    dns: Dns,
    /// None: no mail server is asked.
    probe: Option<Probe>,
}

impl VerifyEmail {
    /// Asks these servers of DNS; without any, those that this machine asks.
    pub fn new(dns_servers: &[SocketAddr]) -> Self {
        Self {
            dns: Dns::new(dns_servers),
            probe: None,
        }
    }

    /// The same, and jobs may have mail servers asked; with `allow_private` those inside of this
    /// network, too.
    pub fn probing(mut self, probe: &SmtpProbe, allow_private: bool) -> Self {
        self.probe = Probe::new(probe, allow_private);
        self
    }
}

/// Addresses that are to be verified.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    #[serde(alias = "contactIds")]
    #[schemars(length(min = 1, max = 1000))]
    contact_ids: Vec<Uuid>,
    /// Those that were verified in the last so many days are left alone; 0: none is. 30 if not
    /// said.
    #[serde(default, alias = "maxAgeDays")]
    #[schemars(range(min = 0, max = 365))]
    max_age_days: Option<i32>,
    /// Also ask mail servers whether the mailboxes are there, if this server does such a thing.
    #[serde(default)]
    probe: bool,
}

/// What it came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// By status, how many addresses were verified.
    verified: BTreeMap<String, usize>,
    /// By reason, how many.
    reasons: BTreeMap<String, usize>,
    /// Were verified not long ago.
    fresh: usize,
    /// Have no address.
    without_address: usize,
    /// Are not of this workspace, or not any more.
    unknown_contacts: usize,
    /// Nobody could be asked, and what was known before stays.
    kept: usize,
    /// Got another address meanwhile, or are gone.
    changed: usize,
}

/// Where the next attempt goes on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    /// Contacts up to this one are done.
    after: Option<Uuid>,
    /// What they came to.
    so_far: Summary,
    /// Of the domains whose mail servers were asked.
    #[serde(default)]
    known: Known,
}

impl Handler for VerifyEmail {
    const TYPE: &'static str = "verify_email";
    type Payload = Payload;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Summary, JobError> {
        let mut ids = payload.contact_ids;
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() || ids.len() > CONTACTS_MAX {
            let why = format!("`contact_ids` names 1 to {CONTACTS_MAX} contacts");
            return Err(JobError::Permanent(why));
        }
        let Some(workspace_id) = ctx.workspace_id() else {
            let why = "the job has no workspace: contacts belong to one";
            return Err(JobError::Permanent(why.to_owned()));
        };
        let probe = match (payload.probe, &self.probe) {
            (false, _) => None,
            (true, Some(probe)) => Some(probe),
            (true, None) => return Err(JobError::Permanent(NO_PROBE.to_owned())),
        };
        let days = payload.max_age_days.unwrap_or(MAX_AGE_DAYS).clamp(0, 365);
        let place = ctx.checkpoint().cloned().unwrap_or_default();
        // What says nothing is as none: it is begun anew, which does no harm.
        let place: Place = serde_json::from_value(place).unwrap_or_default();
        let done = ids.partition_point(|id| Some(*id) <= place.after);
        let (mut done, mut open) = (done, &ids[done..]);
        let mut summary = place.so_far;
        let mut probing = probe.map(|probe| probe.begin(place.known));
        loop {
            let (some, rest) = open.split_at(open.len().min(CHUNK));
            let rows = self
                .chunk(
                    &ctx,
                    (workspace_id, some, days),
                    (done, ids.len()),
                    (&mut probing, &mut summary),
                )
                .await?;
            (done, open) = (done + some.len(), rest);
            if rest.is_empty() {
                return ctx
                    .transaction(async |tx| {
                        write(tx, workspace_id, &rows, &mut summary).await?;
                        Ok(summary)
                    })
                    .await;
            }
            let mut checkpoint = ctx.begin_checkpoint().await?;
            write(checkpoint.tx(), workspace_id, &rows, &mut summary).await?;
            let place = Place {
                after: some.last().copied(),
                so_far: summary.clone(),
                known: probing
                    .as_ref()
                    .map(|probing| probing.known().clone())
                    .unwrap_or_default(),
            };
            checkpoint
                .commit(json!(place), progress(ids.len(), done))
                .await?;
        }
    }
}

/// Writes what was found, and counts what could not be written.
async fn write(
    tx: &mut Tx,
    workspace_id: Uuid,
    rows: &[Verified],
    summary: &mut Summary,
) -> Result<(), JobError> {
    let written = verified_emails::write(tx, workspace_id, rows).await;
    let written = written.map_err(JobError::retry)?;
    let (kept, new) = (written.kept as usize, written.written as usize);
    summary.kept += kept;
    summary.changed += rows.len() - kept - new;
    Ok(())
}

fn progress(total: usize, done: usize) -> Progress {
    Progress::new(total as u64, done as u64, 0, "looking at addresses")
}

type Looked = Vec<((Uuid, String), Verdict)>;

impl VerifyEmail {
    /// Looks at the addresses of some contacts, and counts what they are.
    async fn chunk(
        &self,
        ctx: &JobContext,
        (workspace_id, ids, days): (Uuid, &[Uuid], i32),
        (done, total): (usize, usize),
        (probing, summary): (&mut Option<Probing>, &mut Summary),
    ) -> Result<Vec<Verified>, JobError> {
        let all = verified_emails::to_verify(ctx.record(), workspace_id, ids, days).await;
        let all = all.map_err(JobError::retry)?;
        let count = |is_so: fn(&ToVerify) -> bool| all.iter().filter(|one| is_so(one)).count();
        let (fresh, without_address) = (
            count(|one| one.email.is_some() && one.is_fresh),
            count(|one| one.email.is_none()),
        );
        let unknown_contacts = ids.len() - all.len();
        let open: Vec<(Uuid, String)> = all
            .into_iter()
            .filter(|one| !one.is_fresh)
            .filter_map(|one| Some((one.id, one.email?)))
            .collect();
        let mut looked = self.look(ctx, open, (done, total)).await?;
        if let Some(probing) = probing {
            self.ask(ctx, probing, &mut looked).await?;
        }
        summary.fresh += fresh;
        summary.without_address += without_address;
        summary.unknown_contacts += unknown_contacts;
        let rows = looked.into_iter().map(|((id, email), verdict)| {
            let status = verdict.status.as_str();
            *summary.verified.entry(status.to_owned()).or_default() += 1;
            for reason in &verdict.reasons {
                *summary.reasons.entry((*reason).to_owned()).or_default() += 1;
            }
            Verified {
                id,
                email,
                status,
                reasons: json!(verdict.reasons),
            }
        });
        Ok(rows.collect())
    }

    /// Looks at all of them, some at a time.
    async fn look(
        &self,
        ctx: &JobContext,
        open: Vec<(Uuid, String)>,
        (done, total): (usize, usize),
    ) -> Result<Looked, JobError> {
        let mut looked = Vec::with_capacity(open.len());
        let verdicts = stream::iter(open).map(|one| async {
            let verdict = verdict::verify(&self.dns, &one.1).await;
            (one, verdict)
        });
        let mut verdicts = std::pin::pin!(verdicts.buffer_unordered(AT_ONCE));
        loop {
            let next = tokio::select! {
                next = verdicts.next() => next,
                () = ctx.cancelled().cancelled() => {
                    return Err(JobError::Retry("told to stop".to_owned()));
                }
            };
            let Some(one) = next else {
                return Ok(looked);
            };
            looked.push(one);
            ctx.progress(progress(total, done + looked.len()));
        }
    }

    /// Has mail servers asked for the addresses that may get mail.
    async fn ask(
        &self,
        ctx: &JobContext,
        probing: &mut Probing,
        looked: &mut Looked,
    ) -> Result<(), JobError> {
        let is_worth_it = |(_, verdict): &&(_, Verdict)| verdict.may_be_probed();
        let wanted = looked.iter().filter(is_worth_it);
        let wanted: BTreeSet<Address> = wanted
            .filter_map(|((_, email), _)| Address::parse(email))
            .collect();
        let was_shut_in = probing.is_shut_in();
        let found = tokio::select! {
            found = probing.ask(&self.dns, wanted) => found,
            () = ctx.cancelled().cancelled() => {
                return Err(JobError::Retry("told to stop".to_owned()));
            }
        };
        if probing.is_shut_in() && !was_shut_in {
            ctx.log(LogLevel::Warn, SHUT_IN, None);
        }
        for ((_, email), verdict) in looked {
            let finding = Address::parse(email).and_then(|address| found.get(&address));
            // Two contacts may have one address, and the same is true of both.
            if let Some(finding) = finding.filter(|_| verdict.may_be_probed()) {
                verdict.add(*finding);
            }
        }
        Ok(())
    }
}
