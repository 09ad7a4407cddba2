//! What an enrichment is asked for, whatever it enriches.

use chrono::{DateTime, Utc};

use super::super::providers::{DataSource, EnrichField};
use super::resting::Resting;

/// Below this, a provider does not seem to mean the same company or person.
const MIN_CONFIDENCE: f32 = 0.5;
/// The oldest answer that may be asked for, in days.
const AGE_MAX_DAYS: i32 = 365;

/// A payload, checked.
#[derive(Debug, Clone)]
pub(in super::super) struct Wish<F> {
    /// Each once.
    pub(in super::super) fields: Vec<F>,
    /// Whom to ask, in this order, each once.
    pub(in super::super) sources: Vec<DataSource>,
    pub(in super::super) overwrite: bool,
    pub(in super::super) min_confidence: f32,
    pub(in super::super) max_age_days: Option<i32>,
    pub(in super::super) dry_run: bool,
    /// Whether addresses of people that were never verified are, afterwards.
    pub(in super::super) verify_email: bool,
    /// What was fetched later was bought for this; none: what this very job has fetched.
    pub(in super::super) since: Option<DateTime<Utc>>,
    /// Who is not to be asked in this attempt any more.
    pub(in super::super) resting: Resting,
}

impl<F> Wish<F> {
    /// Whether the job that asks has other records, too: a page, which says since when.
    pub(super) fn is_one_of_many(&self) -> bool {
        self.since.is_some()
    }
}

/// A payload, as it came.
#[derive(Debug, Default)]
pub(in super::super) struct Asked<'a, F> {
    pub(in super::super) fields: Option<&'a [F]>,
    pub(in super::super) provider: Option<DataSource>,
    pub(in super::super) providers: Option<&'a [DataSource]>,
    pub(in super::super) overwrite: bool,
    pub(in super::super) min_confidence: Option<f32>,
    pub(in super::super) max_age_days: Option<i32>,
    pub(in super::super) dry_run: bool,
    pub(in super::super) verify_email: bool,
}

impl<F: EnrichField> Asked<'_, F> {
    /// What is meant; an error says what is wrong with the payload.
    pub(in super::super) fn checked(self) -> Result<Wish<F>, String> {
        let fields = self.fields.filter(|fields| !fields.is_empty());
        let sources = match (self.provider, self.providers) {
            (Some(one), None) => vec![one],
            (None, Some(several)) if !several.is_empty() => once(several),
            (Some(_), Some(_)) => {
                return Err("has `provider` and `providers`: give one of them".to_owned());
            }
            (None, _) => {
                let why = "names no provider: give `provider` or `providers`, of clearbit, \
                           zoominfo, apollo";
                return Err(why.to_owned());
            }
        };
        Ok(Wish {
            fields: once(fields.unwrap_or(F::all())),
            sources,
            overwrite: self.overwrite,
            min_confidence: self.min_confidence.unwrap_or(MIN_CONFIDENCE),
            max_age_days: self.max_age_days.map(|days| days.clamp(1, AGE_MAX_DAYS)),
            dry_run: self.dry_run,
            verify_email: self.verify_email,
            since: None,
            resting: Resting::default(),
        })
    }
}

fn once<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for one in all {
        if !kept.contains(one) {
            kept.push(*one);
        }
    }
    kept
}
