//! The wall clock of this machine, read here and nowhere else.
//!
//! Leases and due times are judged by the servers' clocks, never by this one: it serves for what a
//! person reads, for ids, and for asking how long ago something was. `clippy.toml` bans every other
//! way to it, so that whoever needs the time has to think of which clock.

use chrono::{DateTime, Utc};

/// Now, by this machine.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Milliseconds since 1970, by this machine.
pub fn now_ms() -> i64 {
    now().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_same_time() {
        let before = now_ms();
        let between = now().timestamp_millis();
        let after = now_ms();
        assert!(before <= between && between <= after);
        assert!(
            before > 1_700_000_000_000,
            "milliseconds, not seconds: {before}"
        );
    }
}
