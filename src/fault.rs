//! Fault points: the places between one store and the other at which a process may die, named, so
//! that tests let it die exactly there.
//!
//! ```text
//! BULLWARK_FAULT=after_record_commit:abort:p=0.01,after_claim:abort:nth=3
//! BULLWARK_FAULT_LOG=FILE   gets the name of the point, one a line, before the process dies
//! ```
//!
//! Without the feature `fault-points`, which only tests have, [`point`] is an empty function and
//! nobody reads these variables. `docs/reliability.md` says what the next reader finds after each.

#[cfg(feature = "fault-points")]
pub use armed::{InvalidFault, arm, arm_from};

/// Lists every point once.
macro_rules! points {
    ($($point:ident $name:literal: $what:literal;)*) => {
        /// A place at which the process may be let die.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $(#[doc = $what] $point,)*
        }

        impl Point {
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// The name that is given to arm it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    AfterRecordCommit "after_record_commit": "new jobs are committed, nobody else knows";
    BeforeAnswer "before_answer": "Redis may know the jobs, their caller has no answer";
    BeforeAdd "before_add": "callers may have their answer, Redis knows nothing";
    AfterAdd "after_add": "Redis was told of new jobs";
    AfterFlowCommit "after_flow_commit": "a flow is committed, Redis knows nothing of it";
    AfterControlCommit "after_control_commit": "a cancel or a retry by hand is committed";
    AfterOutboxTold "after_outbox_told": "Redis was told, the entry of the outbox stands";
    AfterSettingsCommit "after_settings_commit": "a setting or a schedule is committed";
    AfterSettingsTold "after_settings_told": "Redis has it, the record has not noted that";
    AfterClaim "after_claim": "Redis gave jobs out, their claimer does not know them";
    AfterAdoption "after_adoption": "a claimed job of a client was adopted, its start is unknown";
    BeforeHandler "before_handler": "nothing is left to do before the handler begins";
    AfterHandler "after_handler": "the handler has ended, nobody was told how";
    BeforeTransactionCommit "before_transaction_commit": "effects and end wait for their commit";
    AfterTransactionCommit "after_transaction_commit": "effects and end are committed";
    AfterOutcomeCommit "after_outcome_commit": "outcomes are committed, Redis was not told";
    AfterOutcomeTold "after_outcome_told": "Redis was told, the worker holds the jobs";
    AfterEmailClaim "after_email_claim": "mails are claimed, none of them was handed over";
    AfterHandOver "after_hand_over": "mails were handed over, nobody has noted that";
    AfterPartsSent "after_parts_sent": "parts of a file are in the bucket, nobody has noted that";
    AfterFileKept "after_file_kept": "a file is where it is kept, the record does not say so";
    AfterCrmSent "after_crm_sent": "records were written in a CRM, nobody has noted that";
    AfterBulkMade "after_bulk_made": "a CRM has a job for a table, and nothing of the table";
    AfterBulkData "after_bulk_data": "a CRM has a table, and does not know that this is all";
    AfterBulkUpload "after_bulk_upload": "a CRM works a table off, nobody waits for its results";
    BeforeMirrorCommit "before_mirror_commit": "events were looked into, nothing is written";
    AfterMirrorCopy "after_mirror_copy": "what events told of is written, their place is not";
    AfterReadd "after_readd": "forgotten jobs were added again, the pass has not noted it";
    RebuildSettings "rebuild_settings": "settings and schedules are back in another memory";
    RebuildAdopted "rebuild_adopted": "what only the other memory knows was adopted";
    RebuildEnded "rebuild_ended": "what is over was ended in the other memory";
    RebuildAdded "rebuild_added": "a page of jobs is back, running ones do not count as such";
    RebuildDone "rebuild_done": "the memories agree, the record has not noted it";
    RebuildNoted "rebuild_noted": "the record has noted it, nothing is claimed yet";
    BeforeMarkTold "before_mark_told": "a record that lost its tail has it back";
}

/// Ends the process here if a test wants that.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn point(_point: Point) {}

/// Ends the process here if a test wants that.
#[cfg(feature = "fault-points")]
pub fn point(point: Point) {
    armed::pass(point);
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// A text that arms nothing, and why.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("BULLWARK_FAULT: `{fault}`: {why}")]
    pub struct InvalidFault {
        fault: String,
        why: String,
    }

    struct Armed {
        faults: Vec<Fault>,
        log: Option<PathBuf>,
    }

    #[derive(Debug)]
    struct Fault {
        point: Point,
        when: When,
        passes: AtomicU64,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum When {
        /// At each pass with this probability.
        Chance(f64),
        /// At this pass, counted from 1.
        Nth(u64),
    }

    /// Arms what `BULLWARK_FAULT` names, if anything.
    pub fn arm_from(read: impl Fn(&str) -> Option<String>) -> Result<(), InvalidFault> {
        match read("BULLWARK_FAULT") {
            Some(faults) => arm(&faults, read("BULLWARK_FAULT_LOG").map(PathBuf::from)),
            None => Ok(()),
        }
    }

    /// Arms these points for the rest of the process's life; only the first call counts.
    pub fn arm(faults: &str, log: Option<PathBuf>) -> Result<(), InvalidFault> {
        let faults = faults.split(',').map(read_fault);
        let faults = faults.collect::<Result<_, _>>()?;
        ARMED.set(Armed { faults, log }).ok();
        Ok(())
    }

    pub(super) fn pass(point: Point) {
        let Some(armed) = ARMED.get() else { return };
        let of_point = armed.faults.iter().filter(|fault| fault.point == point);
        if of_point.filter(|fault| fault.fires()).count() > 0 {
            die(point, armed);
        }
    }

    /// As a crash: no destructor runs, nothing is flushed.
    fn die(point: Point, armed: &Armed) -> ! {
        // One write each: several processes share the file.
        let line = format!("{}\n", point.name());
        if let Some(log) = &armed.log {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(log);
            // Whoever counts misses what could not be written; the process dies all the same.
            file.and_then(|mut file| file.write_all(line.as_bytes()))
                .ok();
        }
        eprint!("fault point: {line}");
        std::process::abort();
    }

    impl Fault {
        fn fires(&self) -> bool {
            let pass = self.passes.fetch_add(1, Ordering::Relaxed) + 1;
            match self.when {
                When::Chance(chance) => rand::random::<f64>() < chance,
                When::Nth(nth) => pass == nth,
            }
        }
    }

    /// `point:abort[:p=PROBABILITY|:nth=PASS]`
    fn read_fault(text: &str) -> Result<Fault, InvalidFault> {
        let wrong = |why: String| InvalidFault {
            fault: text.to_owned(),
            why,
        };
        let mut parts = text.trim().split(':');
        let name = parts.next().unwrap_or_default();
        let point = Point::ALL.iter().find(|point| point.name() == name);
        let Some(point) = point.copied() else {
            let known: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
            return Err(wrong(format!(
                "no such point; there are {}",
                known.join(", ")
            )));
        };
        if parts.next() != Some("abort") {
            return Err(wrong("what happens there is `abort`".to_owned()));
        }
        let when = match parts.next() {
            None => Some(When::Chance(1.0)),
            Some(when) => read_when(when),
        };
        let (Some(when), None) = (when, parts.next()) else {
            return Err(wrong(
                "it ends with p= and a number from 0 to 1, with nth= and one from 1, or at once"
                    .to_owned(),
            ));
        };
        Ok(Fault {
            point,
            when,
            passes: AtomicU64::new(0),
        })
    }

    fn read_when(text: &str) -> Option<When> {
        match text.split_once('=')? {
            ("p", chance) => {
                let chance = chance.parse().ok()?;
                (0.0..=1.0)
                    .contains(&chance)
                    .then_some(When::Chance(chance))
            }
            ("nth", nth) => {
                let nth = nth.parse().ok()?;
                (nth > 0).then_some(When::Nth(nth))
            }
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_says_where_and_when() {
            for (text, point, when) in [
                ("after_claim:abort", Point::AfterClaim, When::Chance(1.0)),
                (
                    "before_add:abort:p=0.01",
                    Point::BeforeAdd,
                    When::Chance(0.01),
                ),
                ("after_add:abort:nth=3", Point::AfterAdd, When::Nth(3)),
            ] {
                let fault = read_fault(text).unwrap();
                assert_eq!((fault.point, fault.when), (point, when), "{text}");
            }
        }

        #[test]
        fn what_arms_nothing_is_refused_with_what_would() {
            let refused = read_fault("after_lunch:abort").unwrap_err().to_string();
            assert!(refused.contains("`after_lunch:abort`"), "{refused}");
            for point in Point::ALL {
                assert!(refused.contains(point.name()), "{refused}");
            }
            for text in [
                "",
                "after_claim",
                "after_claim:explode",
                "after_claim:abort:",
                "after_claim:abort:p=1.5",
                "after_claim:abort:p=NaN",
                "after_claim:abort:nth=0",
                "after_claim:abort:often",
                "after_claim:abort:p=1:nth=1",
            ] {
                assert!(read_fault(text).is_err(), "{text}");
            }
        }

        #[test]
        fn it_fires_at_its_pass_alone() {
            let fires = |text: &str| -> Vec<bool> {
                let fault = read_fault(text).unwrap();
                (0..4).map(|_| fault.fires()).collect()
            };
            let third = fires("after_claim:abort:nth=3");
            assert_eq!(third, [false, false, true, false]);
            assert_eq!(fires("after_claim:abort:p=0"), [false; 4]);
            assert_eq!(fires("after_claim:abort"), [true; 4]);
        }

        #[test]
        fn every_name_stands_once() {
            let mut names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), Point::ALL.len());
        }
    }
}
