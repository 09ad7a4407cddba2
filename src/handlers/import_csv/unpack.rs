//! Takes files apart that have the table inside: `.csv.gz`, and workbooks (`.xlsx`).
//!
//! What is inside becomes a text file in the spool, once per attempt, and everything behind it
//! reads that file: counting, resuming, reporting. The same bytes give the same text, so a byte
//! offset noted before a crash is valid afterwards.
//!
//! Promises: constant memory, but for the texts of a workbook ([`STRINGS_BYTES_MAX`]). Refuses:
//! files that grow beyond [`UNPACKED_BYTES_MAX`], or out of all proportion to what was uploaded.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::content::WrongContent;
use super::payload::{ImportOptions, NumberFormat};
use super::reader::COLUMNS_MAX;

mod cell;
mod gzip;
mod parts;
mod workbook;

/// Most bytes of what is inside.
pub const UNPACKED_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// What is inside may be this many times as large as the file around it, ...
pub const RATIO_MAX: u64 = 200;
/// ... or this large, whatever the ratio.
const RATIO_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// Most bytes of the texts of a workbook, which its reader holds in memory.
pub const STRINGS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// How the files begin.
const GZIP: &[u8] = b"\x1F\x8B";
const ZIP: &[u8] = b"PK\x03\x04";

/// The text that was inside of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    pub path: PathBuf,
    /// All of it; else it was cut off where the caller wanted no more.
    pub is_whole: bool,
    /// Present for a workbook. Its text is ours: UTF-8, with commas, a record per row of the sheet.
    pub workbook: Option<Workbook>,
}

/// What a workbook has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workbook {
    /// The sheet that was read.
    pub sheet: String,
    /// All sheets with cells, in their order.
    pub sheets: Vec<String>,
}

/// Why nothing can be taken out of a file.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("{0}")]
    Content(#[from] WrongContent),
    #[error("the compressed file is damaged or not complete ({0}); make it anew and upload it")]
    Damaged(String),
    #[error("the workbook cannot be read ({0}); open it, save it again, and upload it")]
    Unreadable(String),
    #[error(
        "the file has more than {} GB inside; split it", UNPACKED_BYTES_MAX / 1024 / 1024 / 1024
    )]
    TooLarge,
    #[error(
        "the file grows to more than {RATIO_MAX} times its size when it is unpacked, which no \
         table does; upload the table itself"
    )]
    TooDense,
    #[error(
        "the workbook has more than {} MB of texts; save the sheet as CSV UTF-8 and upload that",
        STRINGS_BYTES_MAX / 1024 / 1024
    )]
    TooManyTexts,
    #[error("the workbook has no sheet `{wanted}`; it has: {known}")]
    NoSuchSheet { wanted: String, known: String },
    #[error("the workbook has no sheet with cells")]
    NoSheet,
    #[error("row {row} of the sheet has more than {COLUMNS_MAX} columns")]
    TooWide { row: u64 },
    #[error("read the file: {0}")]
    Io(#[from] io::Error),
    #[error("stopped")]
    Stopped,
}

/// Takes apart what has a table inside; nothing for a file that is text itself, or that nobody
/// here can read: what it is, is said by [`super::content::check_content`].
///
/// `out` is written. Behind `most` bytes the rest is left out; `go_on` is asked now and then.
pub fn unpack(
    path: &Path,
    head: &[u8],
    options: &ImportOptions,
    out: &Path,
    most: Option<u64>,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Unpacked>, UnpackError> {
    let limits = Limits::of(path, most, go_on)?;
    if head.starts_with(GZIP) {
        return gzip::unpack(path, out, &limits).map(Some);
    }
    if head.starts_with(ZIP) {
        let is_comma = options.number_format == Some(NumberFormat::Comma);
        let wanted = options.sheet.as_deref();
        return workbook::unpack(path, wanted, is_comma, out, &limits).map(Some);
    }
    Ok(None)
}

/// Whether a file has to be taken apart.
pub fn is_packed(path: &Path) -> io::Result<bool> {
    let mut head = Vec::with_capacity(4);
    File::open(path)?.take(4).read_to_end(&mut head)?;
    Ok(head.starts_with(GZIP) || head.starts_with(ZIP))
}

/// What bounds the unpacking.
struct Limits<'a> {
    /// By size and proportion of the file around.
    allowed: u64,
    is_by_ratio: bool,
    most: Option<u64>,
    go_on: &'a dyn Fn() -> bool,
}

impl<'a> Limits<'a> {
    fn of(path: &Path, most: Option<u64>, go_on: &'a dyn Fn() -> bool) -> io::Result<Self> {
        let packed = std::fs::metadata(path)?.len();
        let by_ratio = packed.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES);
        Ok(Self {
            allowed: by_ratio.min(UNPACKED_BYTES_MAX),
            is_by_ratio: by_ratio < UNPACKED_BYTES_MAX,
            most,
            go_on,
        })
    }

    /// Asked with every piece of work.
    fn check(&self, bytes: u64) -> Result<(), UnpackError> {
        if !(self.go_on)() {
            return Err(UnpackError::Stopped);
        }
        if bytes <= self.allowed {
            return Ok(());
        }
        Err(match self.is_by_ratio {
            true => UnpackError::TooDense,
            false => UnpackError::TooLarge,
        })
    }

    fn is_enough(&self, bytes: u64) -> bool {
        self.most.is_some_and(|most| bytes >= most)
    }
}

#[cfg(test)]
mod tests;
