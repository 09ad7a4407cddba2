//! Walking over keys: all of ours are on one server, also in a cluster.
//!
//! A cursor means something to the server that gave it. After a failover another one would take
//! it and skip keys without a word, so a cursor carries the generation of its server.

use redis::Cmd;

use super::{Broker, BrokerError};

/// Keys that one step looks at.
const SCAN_COUNT: usize = 1000;

impl Broker {
    /// One step over the keys of the server that has all of ours.
    pub(super) async fn scan_step(
        &self,
        doing: &'static str,
        pattern: &str,
        cursor: u64,
    ) -> Result<(Option<u64>, Vec<String>), BrokerError> {
        let generation = self.connections.generation();
        let cmd = scan_cmd(pattern, open_cursor(doing, generation, cursor)?);
        let (next, found): (u64, Vec<String>) = self.connections.command(doing, &cmd).await?;
        if cursor != 0 && self.connections.generation() != generation {
            return Err(other_server(doing));
        }
        let next = match next {
            0 => None,
            next => Some(seal_cursor(doing, generation, next)?),
        };
        Ok((next, found))
    }
}

/// Bits of a cursor that a server uses; the others tell which server it belongs to.
const CURSOR_BITS: u32 = 48;

/// The cursor as a caller sees it. One of another server would skip keys without a word, so it
/// carries the generation, which is 0 for ever where there is one server.
fn seal_cursor(doing: &'static str, generation: u64, cursor: u64) -> Result<u64, BrokerError> {
    match generation {
        0 => Ok(cursor),
        _ if cursor >> CURSOR_BITS != 0 => {
            Err(BrokerError::corrupt(doing, format!("cursor {cursor}")))
        }
        generation => Ok((generation << CURSOR_BITS) | cursor),
    }
}

fn open_cursor(doing: &'static str, generation: u64, cursor: u64) -> Result<u64, BrokerError> {
    if generation == 0 || cursor == 0 {
        return Ok(cursor);
    }
    if cursor >> CURSOR_BITS != (generation << CURSOR_BITS) >> CURSOR_BITS {
        return Err(other_server(doing));
    }
    Ok(cursor & ((1 << CURSOR_BITS) - 1))
}

fn other_server(doing: &'static str) -> BrokerError {
    let reason = "another server may have taken over: begin the scan again";
    BrokerError::away(doing, reason)
}

fn scan_cmd(pattern: &str, cursor: u64) -> Cmd {
    let mut cmd = redis::cmd("SCAN");
    cmd.arg(cursor)
        .arg("MATCH")
        .arg(pattern)
        .arg("COUNT")
        .arg(SCAN_COUNT);
    cmd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_one_server() {
        let doing = "scan";
        assert_eq!(seal_cursor(doing, 0, u64::MAX).unwrap(), u64::MAX);
        assert_eq!(open_cursor(doing, 0, u64::MAX).unwrap(), u64::MAX);
        for generation in [1, 2, 65_536, 65_537] {
            let sealed = seal_cursor(doing, generation, 77).unwrap();
            assert_eq!(
                open_cursor(doing, generation, sealed).unwrap(),
                77,
                "{generation}"
            );
            let error = open_cursor(doing, generation + 1, sealed).unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert_eq!(open_cursor(doing, generation, 0).unwrap(), 0);
        }
        assert!(seal_cursor(doing, 1, 1 << 48).is_err());
    }
}
