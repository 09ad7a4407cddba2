//! The lines of the ledger: who was told what, what ran, and which faults there were.
//!
//! One line each, readable by people and `grep`. A line that can't be read is an error of the run,
//! never skipped.

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

use uuid::Uuid;

/// How a run ended, as its handler saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    Failed,
    /// It was told that its attempt has no say any more.
    Fenced,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A client was told that the job is accepted.
    Accepted { seq: u64, id: Uuid },
    /// A handler began.
    Start {
        seq: u64,
        id: Uuid,
        attempt: i32,
        pid: u32,
        at_ms: i64,
    },
    /// A handler is about to return.
    End {
        seq: u64,
        attempt: i32,
        pid: u32,
        ended: Ended,
        at_ms: i64,
    },
    /// Something was done outside, without a key.
    Effect { seq: u64, attempt: i32, pid: u32 },
    /// A fault begins or ends. `pid` is the process that it meets; 0: everything.
    Fault {
        name: String,
        begins: bool,
        pid: u32,
        at_ms: i64,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { seq, id } => write!(f, "A {seq} {}", id.simple()),
            Self::Start {
                seq,
                id,
                attempt,
                pid,
                at_ms,
            } => write!(f, "S {seq} {} {attempt} {pid} {at_ms}", id.simple()),
            Self::End {
                seq,
                attempt,
                pid,
                ended,
                at_ms,
            } => {
                let how = match ended {
                    Ended::Well => "well",
                    Ended::Failed => "failed",
                    Ended::Fenced => "fenced",
                };
                write!(f, "E {seq} {attempt} {pid} {how} {at_ms}")
            }
            Self::Effect { seq, attempt, pid } => write!(f, "X {seq} {attempt} {pid}"),
            Self::Fault {
                name,
                begins,
                pid,
                at_ms,
            } => {
                let sign = if *begins { '+' } else { '-' };
                write!(f, "F {sign} {name} {pid} {at_ms}")
            }
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let line = read(&mut words).ok_or_else(|| format!("not a line of the ledger: `{text}`"))?;
        match words.next() {
            None => Ok(line),
            Some(_) => Err(format!("too long a line of the ledger: `{text}`")),
        }
    }
}

fn read(words: &mut SplitAsciiWhitespace<'_>) -> Option<Line> {
    Some(match words.next()? {
        "A" => Line::Accepted {
            seq: number(words)?,
            id: number(words)?,
        },
        "S" => Line::Start {
            seq: number(words)?,
            id: number(words)?,
            attempt: number(words)?,
            pid: number(words)?,
            at_ms: number(words)?,
        },
        "E" => Line::End {
            seq: number(words)?,
            attempt: number(words)?,
            pid: number(words)?,
            ended: match words.next()? {
                "well" => Ended::Well,
                "failed" => Ended::Failed,
                "fenced" => Ended::Fenced,
                _ => return None,
            },
            at_ms: number(words)?,
        },
        "X" => Line::Effect {
            seq: number(words)?,
            attempt: number(words)?,
            pid: number(words)?,
        },
        "F" => Line::Fault {
            begins: match words.next()? {
                "+" => true,
                "-" => false,
                _ => return None,
            },
            name: words.next()?.to_owned(),
            pid: number(words)?,
            at_ms: number(words)?,
        },
        _ => return None,
    })
}

fn number<T: FromStr>(words: &mut SplitAsciiWhitespace<'_>) -> Option<T> {
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_as_it_was_written() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let (seq, attempt, pid, at_ms) = (5, 2, 4711, 1_700_000_000_000);
        for line in [
            Line::Accepted { seq, id },
            Line::Start {
                seq,
                id,
                attempt,
                pid,
                at_ms,
            },
            Line::End {
                seq,
                attempt,
                pid,
                ended: Ended::Fenced,
                at_ms,
            },
            Line::Effect { seq, attempt, pid },
            Line::Fault {
                name: "kill".to_owned(),
                begins: true,
                pid,
                at_ms,
            },
        ] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for wrong in ["", "A 1", "Z 1", "A x y", "X 1 2 3 4", "E 1 1 1 ill 1"] {
            assert!(wrong.parse::<Line>().is_err(), "{wrong}");
        }
    }
}
