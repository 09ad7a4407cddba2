//! How often one call is sent again, and how long it rests before.

use std::time::Duration;

use redis::RedisError;

use super::error::{BrokerError, is_moved};

/// Waits before a call is sent again: there are as many retries as waits.
const WAITS: [Duration; 2] = [Duration::from_millis(60), Duration::from_millis(250)];
/// Redirects that one call follows at once: who sends it away has not begun it.
const REDIRECTS_MAX: u32 = 3;

/// What is left of the attempts of one call.
pub(super) struct Retries {
    doing: &'static str,
    waits: std::slice::Iter<'static, Duration>,
    redirects: u32,
}

impl Retries {
    pub(super) fn new(doing: &'static str) -> Self {
        Self {
            doing,
            waits: WAITS.iter(),
            redirects: 0,
        }
    }

    /// Returns when it is time for another attempt, or with the error if there is to be none.
    pub(super) async fn again(
        &mut self,
        error: &RedisError,
        may_repeat: bool,
    ) -> Result<(), BrokerError> {
        let doing = self.doing;
        if is_moved(error) && self.redirects < REDIRECTS_MAX {
            self.redirects += 1;
            return Ok(());
        }
        let wait = self.waits.next().filter(|_| may_repeat);
        let Some(wait) = wait else {
            return Err(BrokerError::from_redis(doing, error));
        };
        tracing::debug!(doing, %error, "redis call failed, try again");
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
        Ok(())
    }
}
