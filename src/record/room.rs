//! Whether the server has room for new jobs, as the last writes found it.
//!
//! Nobody can ask PostgreSQL whether its disk is full; a write tells. What it told is believed for
//! a while only: a server that is asked for nothing because it was full would stay so for ever.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Record, RecordError, Trouble};
use crate::clock;

/// How long a failed write speaks for the next ones.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// Clones share what they know.
#[derive(Debug, Clone, Default)]
pub(super) struct Room {
    /// When a write found no room; 0: the last one found some.
    full_at_ms: Arc<AtomicI64>,
    why: Arc<Mutex<String>>,
}

impl Record {
    /// Notes how a write of jobs or outcomes ended.
    pub fn note_write<T>(&self, result: &Result<T, RecordError>) {
        let full_at_ms = &self.room.full_at_ms;
        match result {
            Err(RecordError::Unavailable(Trouble::Full, why)) => {
                let mut noted = self.room.why.lock().unwrap_or_else(PoisonError::into_inner);
                noted.clone_from(why);
                full_at_ms.store(clock::now_ms(), Ordering::Relaxed);
            }
            Ok(_) if full_at_ms.load(Ordering::Relaxed) != 0 => {
                full_at_ms.store(0, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Why there is no room, if the last write found none a short while ago.
    pub fn is_full(&self) -> Option<String> {
        let age_ms = clock::now_ms() - self.room.full_at_ms.load(Ordering::Relaxed);
        let noted = || self.room.why.lock().unwrap_or_else(PoisonError::into_inner);
        (age_ms < BELIEVED_FOR.as_millis() as i64).then(|| noted().clone())
    }
}
