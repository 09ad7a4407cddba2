//! The rules of Redis Cluster: which slot the keys of a prefix are in, and who serves it.
//!
//! A script reaches keys of one slot only, and our scripts touch several queues when jobs have
//! parents. So the prefix decides the slot, by a hash tag, for all keys alike.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

const SLOTS: u16 = 16384;

/// The slot of all keys that begin with this prefix; none: it depends on what follows.
pub(super) fn slot_of_prefix(prefix: &str) -> Option<u16> {
    let (_, rest) = prefix.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then(|| crc16(tag.as_bytes()) % SLOTS)
}

/// CRC16 as the specification of Redis Cluster has it (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// Slots in a row and the primary that serves them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) host: String,
    pub(super) port: u16,
}

/// How a node sees its cluster. `asked` is the host that we know it by.
pub(super) async fn ranges(
    connection: &mut MultiplexedConnection,
    asked: &str,
) -> RedisResult<Vec<Range>> {
    // Not `CLUSTER SHARDS`: 6.2 does not have it.
    let reply: RedisResult<Value> = redis::cmd("CLUSTER")
        .arg("SLOTS")
        .query_async(connection)
        .await;
    let reply = reply.map_err(|error| match error.detail() {
        Some(detail) if detail.contains("cluster support disabled") => RedisError::from((
            ErrorKind::InvalidClientConfig,
            "this redis is no node of a cluster: name it as `redis://host:port`",
        )),
        _ => error,
    })?;
    Ok(parse(&reply, asked))
}

/// Nobody serves our slot, as far as this node knows.
pub(super) fn uncovered() -> RedisError {
    let kind = ErrorKind::Server(ServerErrorKind::ClusterDown);
    RedisError::from((kind, "no node serves the slot of our keys"))
}

fn parse(reply: &Value, asked: &str) -> Vec<Range> {
    let Value::Array(rows) = reply else {
        return Vec::new();
    };
    rows.iter()
        .filter_map(|row| parse_row(row, asked))
        .collect()
}

/// Any further fields are replicas.
fn parse_row(row: &Value, asked: &str) -> Option<Range> {
    let Value::Array(fields) = row else {
        return None;
    };
    let [
        Value::Int(first),
        Value::Int(last),
        Value::Array(primary),
        ..,
    ] = &fields[..]
    else {
        return None;
    };
    let [host, Value::Int(port), ..] = &primary[..] else {
        return None;
    };
    let host = match host {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        _ => "",
    };
    // A node that does not know by which name it is reached leaves that to who asks it.
    let host = if matches!(host, "" | "?") {
        asked
    } else {
        host
    };
    Some(Range {
        first: u16::try_from(*first).ok()?,
        last: u16::try_from(*last).ok()?,
        host: host.to_owned(),
        port: u16::try_from(*port).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_prefix_is_that_of_all_its_keys() {
        // As `CLUSTER KEYSLOT` says.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of_prefix("{user1000}.x"), Some(3443));
        assert_eq!(slot_of_prefix("a{foo}b{bar}"), Some(12182));
        // A key of our own takes the prefix as it is, so its tag is the same.
        assert_eq!(
            slot_of_prefix("{bull}"),
            slot_of_prefix("bullwark:{bull}:x")
        );
        for prefix in ["bull", "{}bull", "{bull", "bull}", "}bull{"] {
            assert_eq!(slot_of_prefix(prefix), None, "{prefix}");
        }
    }

    #[test]
    fn a_node_without_a_name_is_reached_as_it_was_asked() {
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host: Value| Value::Array(vec![host, Value::Int(7000), text("id")]);
        let row = |host| {
            Value::Array(vec![
                Value::Int(0),
                Value::Int(9),
                node(host),
                node(text("r")),
            ])
        };
        let reply = Value::Array(vec![row(text("a")), row(Value::Nil), row(text("?"))]);
        let hosts: Vec<String> = parse(&reply, "b")
            .into_iter()
            .map(|range| range.host)
            .collect();
        assert_eq!(hosts, ["a", "b", "b"]);
    }
}
