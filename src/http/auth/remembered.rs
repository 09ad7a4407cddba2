//! Answers of the record about callers, remembered for some seconds.
//!
//! So a busy client costs no query per request, and what was taken away still stops working at
//! once. While the record is away what is known stays known for some minutes; of what is unknown
//! only the record can say that it is wrong.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::record::RecordError;

/// How long an answer is used without asking again: the longest life of what was taken away.
const FRESH: Duration = Duration::from_secs(5);
/// How long an answer is believed while the record is slow.
const SLOW_MAX: Duration = Duration::from_secs(15);
/// How long an answer is believed while the record is away.
const STALE_MAX: Duration = Duration::from_secs(300);
/// Answers that are remembered.
const ANSWERS_MAX: usize = 10_000;
/// Questions of each kind at once, so that guessing does not take the record's connections, and
/// not the turns of those that are known either.
const LOOKUPS_MAX: usize = 3;
/// How long a question may take before the last answer is believed.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

/// How long answers last.
#[derive(Debug, Clone, Copy)]
struct Ages {
    fresh: Duration,
    slow: Duration,
    stale: Duration,
}

/// Answers by question.
#[derive(Debug)]
pub(in crate::http) struct Remembered<Q, A> {
    known: Mutex<Answers<Q, A>>,
    ages: Ages,
    of_known: Semaphore,
    of_unknown: Semaphore,
}

#[derive(Debug)]
struct Answers<Q, A> {
    of: HashMap<Q, Known<A>>,
    /// Grows when something is forgotten: what was asked before must not be remembered after it.
    forgotten: u64,
}

#[derive(Debug, Clone)]
struct Known<A> {
    answer: A,
    asked: Instant,
}

impl<Q, A> Default for Remembered<Q, A> {
    fn default() -> Self {
        Self::of_ages(Ages {
            fresh: FRESH,
            slow: SLOW_MAX,
            stale: STALE_MAX,
        })
    }
}

impl<Q, A> Remembered<Q, A> {
    fn of_ages(ages: Ages) -> Self {
        Self {
            known: Mutex::new(Answers {
                of: HashMap::new(),
                forgotten: 0,
            }),
            ages,
            of_known: Semaphore::new(LOOKUPS_MAX),
            of_unknown: Semaphore::new(LOOKUPS_MAX),
        }
    }
}

impl<Q: Copy + Eq + Hash, A: Clone> Remembered<Q, A> {
    /// The answer; none: the record says that there is none.
    pub(in crate::http) async fn answer(
        &self,
        question: Q,
        lookup: impl Future<Output = Result<Option<A>, RecordError>>,
    ) -> Result<Option<A>, RecordError> {
        let known = self.lock().of.get(&question).cloned();
        let younger = |max: Duration| {
            let known = known.as_ref().filter(|known| known.asked.elapsed() < max);
            known.map(|known| known.answer.clone())
        };
        if let Some(answer) = younger(self.ages.fresh) {
            return Ok(Some(answer));
        }
        let gate = match known {
            Some(_) => &self.of_known,
            None => &self.of_unknown,
        };
        // Closed never; a failure to wait would only mean one lookup more.
        let _turn = gate.acquire().await;
        let (asked, forgotten) = (Instant::now(), self.lock().forgotten);
        let found = match younger(self.ages.slow) {
            None => lookup.await,
            Some(believed) => match tokio::time::timeout(LOOKUP_PATIENCE, lookup).await {
                Ok(found) => found,
                Err(_) => return Ok(Some(believed)),
            },
        };
        let found = match (found, younger(self.ages.stale)) {
            (Err(error), Some(believed)) if error.is_unavailable() => return Ok(Some(believed)),
            (found, _) => found?,
        };
        self.remember(question, found.as_ref(), asked, forgotten);
        Ok(found)
    }

    fn remember(&self, question: Q, found: Option<&A>, asked: Instant, forgotten: u64) {
        let mut known = self.lock();
        let Some(answer) = found.filter(|_| known.forgotten == forgotten) else {
            known.of.remove(&question);
            return;
        };
        if known.of.len() >= ANSWERS_MAX {
            let fresh = self.ages.fresh;
            known.of.retain(|_, known| known.asked.elapsed() < fresh);
        }
        if known.of.len() < ANSWERS_MAX {
            let answer = answer.clone();
            known.of.insert(question, Known { answer, asked });
        }
    }

    /// Asks again for these from now on.
    pub(in crate::http) fn forget(&self, is_one: impl Fn(&A) -> bool) {
        let mut known = self.lock();
        known.forgotten += 1;
        known.of.retain(|_, known| !is_one(&known.answer));
    }

    /// Asks again about this one from now on.
    pub(in crate::http) fn forget_one(&self, question: &Q) {
        let mut known = self.lock();
        known.forgotten += 1;
        known.of.remove(question);
    }

    fn lock(&self) -> MutexGuard<'_, Answers<Q, A>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Trouble;

    type Found = Result<Option<&'static str>, RecordError>;

    fn away() -> Found {
        Err(RecordError::Unavailable(Trouble::Away, String::new()))
    }

    fn remembered(fresh: Duration, stale: Duration) -> Remembered<u8, &'static str> {
        Remembered::of_ages(Ages {
            fresh,
            slow: Duration::ZERO,
            stale,
        })
    }

    async fn ask(of: &Remembered<u8, &'static str>, found: Found) -> Found {
        of.answer(1, async { found }).await
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_fresh_answer_is_not_asked_for_again_until_it_is_forgotten() {
        let fresh = remembered(LONG, LONG);
        assert!(ask(&fresh, away()).await.is_err(), "nobody knows");
        assert_eq!(ask(&fresh, Ok(Some("a"))).await.unwrap(), Some("a"));
        assert_eq!(ask(&fresh, Ok(None)).await.unwrap(), Some("a"));
        fresh.forget(|answer| *answer == "a");
        assert_eq!(ask(&fresh, Ok(None)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_old_answer_is_believed_while_the_record_is_away_and_only_then() {
        let old = remembered(Duration::ZERO, LONG);
        assert_eq!(ask(&old, Ok(Some("a"))).await.unwrap(), Some("a"));
        assert_eq!(ask(&old, away()).await.unwrap(), Some("a"));
        assert_eq!(ask(&old, Ok(None)).await.unwrap(), None, "taken away");
        assert!(ask(&old, away()).await.is_err());

        let too_old = remembered(Duration::ZERO, Duration::ZERO);
        assert_eq!(ask(&too_old, Ok(Some("a"))).await.unwrap(), Some("a"));
        assert!(ask(&too_old, away()).await.is_err());
    }

    #[tokio::test]
    async fn what_was_asked_before_it_was_forgotten_is_not_remembered() {
        let fresh = remembered(LONG, LONG);
        let lookup = async {
            fresh.forget(|_| true);
            Ok(Some("revoked meanwhile"))
        };
        fresh.answer(1, lookup).await.unwrap();
        assert_eq!(ask(&fresh, Ok(None)).await.unwrap(), None);
    }
}
