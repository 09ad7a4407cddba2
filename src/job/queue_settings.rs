//! What holds for a queue as a whole.

/// The settings of a queue, which all its workers follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// No job starts.
    pub is_paused: bool,
    /// Jobs that may be active at a time, of all workers together; none: any number.
    pub concurrency: Option<u64>,
    /// Jobs that may start per `rate_duration_ms`, of all workers together; none: any number.
    pub rate_max: Option<u64>,
    pub rate_duration_ms: Option<u64>,
    /// About how many events are kept.
    pub events_max: Option<u64>,
    /// Workers of `BullMQ` 5 share the queue.
    pub has_v5_peers: bool,
    /// Workspaces take turns, however many jobs each has.
    pub is_fair: bool,
}

/// A change of some settings; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueChange {
    pub is_paused: Option<bool>,
    /// `Some(None)`: any number.
    pub concurrency: Option<Option<u64>>,
    /// Starts and the window in ms; `Some(None)`: any number.
    pub rate_limit: Option<Option<(u64, u64)>>,
    pub is_fair: Option<bool>,
}

impl QueueChange {
    pub fn pause(is_paused: bool) -> Self {
        Self {
            is_paused: Some(is_paused),
            ..Self::default()
        }
    }

    /// These settings with the change.
    pub fn apply(&self, mut settings: QueueSettings) -> QueueSettings {
        settings.is_paused = self.is_paused.unwrap_or(settings.is_paused);
        settings.concurrency = self.concurrency.unwrap_or(settings.concurrency);
        settings.is_fair = self.is_fair.unwrap_or(settings.is_fair);
        if let Some(limit) = self.rate_limit {
            settings.rate_max = limit.map(|(max, _)| max);
            settings.rate_duration_ms = limit.map(|(_, ms)| ms);
        }
        settings
    }
}
