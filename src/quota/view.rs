//! What is left of quotas, for people.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::broker::{Broker, BrokerError, QuotaState, WindowState};
use crate::job::quota::Limits;

/// A quota as it is now.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = QuotaNow))]
pub struct QuotaView {
    pub closed_until: Option<DateTime<Utc>>,
    /// Calls that were granted and have not ended.
    pub under_way: u64,
    /// By our own count.
    pub windows: Vec<WindowView>,
    /// By what the service said.
    pub told: Vec<WindowView>,
    /// The host that was called last.
    pub host: Option<String>,
    /// It fails and is left alone; a call tries it then. Null: it is well.
    pub host_closed_until: Option<DateTime<Utc>>,
}

/// What is left of one window.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = QuotaWindowNow))]
pub struct WindowView {
    pub window: String,
    pub max: u64,
    pub used: u64,
    pub left: u64,
    /// When it is whole again.
    pub resets_at: Option<DateTime<Utc>>,
}

impl QuotaView {
    /// None: nothing was used lately.
    pub async fn of(
        broker: &Broker,
        key: &str,
        limits: &Limits,
    ) -> Result<Option<Self>, BrokerError> {
        Ok(broker.read_quota(key, limits).await?.map(Self::from))
    }
}

impl From<QuotaState> for QuotaView {
    fn from(state: QuotaState) -> Self {
        let window = |window: WindowState| WindowView {
            max: window.max,
            left: window.left,
            used: window.max.saturating_sub(window.left),
            resets_at: DateTime::from_timestamp_millis(window.resets_at_ms),
            window: window.id,
        };
        Self {
            closed_until: state
                .closed_until_ms
                .and_then(DateTime::from_timestamp_millis),
            under_way: state.under_way,
            windows: state.windows.into_iter().map(window).collect(),
            told: state.told.into_iter().map(window).collect(),
            host: state.host,
            host_closed_until: state
                .breaker_until_ms
                .and_then(DateTime::from_timestamp_millis),
        }
    }
}
