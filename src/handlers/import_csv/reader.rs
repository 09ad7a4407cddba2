//! Records of a delimited text file, one at a time, from any byte offset.
//!
//! Every record knows its physical line, its number and its untouched bytes, so that an error
//! report can name all three. Ragged rows are delivered as they are; what to do with them is not
//! decided here.
//!
//! Promises: bounded memory ([`RECORD_BYTES_MAX`], [`COLUMNS_MAX`]), and the same records from a
//! noted [`Position`] as from the start. Refuses: a quote that is never closed (names the line
//! where it opened), because everything behind it would be one nonsensical value.

use std::io::{self, Read};

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::dialect::Dialect;

/// Most bytes of one value.
pub const FIELD_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Most bytes of one record.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most columns of one record.
pub const COLUMNS_MAX: usize = 1_000;
/// Bytes read at a time.
const READ_BYTES: usize = 128 * 1024;

/// Where a record ended; reading can go on from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Bytes from the start of the text file.
    pub offset: u64,
    /// The physical line that starts here, counted from 1.
    pub line: u64,
    /// Data records before this position.
    pub row: u64,
}

/// Why a file cannot be read as records.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read the file: {0}")]
    Io(#[from] io::Error),
    #[error("the quoted value that opens on line {line} is never closed; add the missing quote")]
    OpenQuote { line: u64 },
    #[error("the record on line {line} is larger than {} MB", RECORD_BYTES_MAX / 1024 / 1024)]
    RecordTooLong { line: u64 },
    #[error("a value on line {line} is larger than {} MB", FIELD_BYTES_MAX / 1024 / 1024)]
    FieldTooLong { line: u64 },
    #[error("line {line} has more than {COLUMNS_MAX} columns")]
    TooManyColumns { line: u64 },
}

/// A reader that stands before, on or behind a record.
pub struct RecordReader<R> {
    input: R,
    parser: csv_core::Reader,
    quote: u8,
    delimiter: u8,
    escape: Option<u8>,
    is_sheet: bool,
    /// Raw bytes; `start..scanned` belong to the current record, `scanned..` are yet to come.
    raw: Vec<u8>,
    start: usize,
    scanned: usize,
    end_of_input: bool,
    /// Unquoted values of the current record, one behind the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    columns: usize,
    /// The current record inside `raw`, without blank lines before and the terminator behind.
    record: std::ops::Range<usize>,
    record_line: u64,
    next: Position,
}

impl<R: Read> RecordReader<R> {
    /// `input` must already stand at `position.offset`.
    pub fn new(input: R, dialect: &Dialect, position: Position) -> Self {
        let mut builder = ReaderBuilder::new();
        builder
            .delimiter(dialect.delimiter)
            .quote(dialect.quote)
            .escape(dialect.escape);
        Self {
            input,
            parser: builder.build(),
            quote: dialect.quote,
            delimiter: dialect.delimiter,
            escape: dialect.escape,
            is_sheet: dialect.is_sheet,
            raw: Vec::with_capacity(READ_BYTES * 2),
            start: 0,
            scanned: 0,
            end_of_input: false,
            text: vec![0; 4096],
            ends: vec![0; 64],
            columns: 0,
            record: 0..0,
            record_line: position.line,
            next: position,
        }
    }

    /// Steps to the next record; false at the end of the file.
    ///
    /// Records that contain nothing but blanks and delimiters are passed over and not counted.
    pub fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            if !self.advance_any()? {
                return Ok(false);
            }
            if !self.is_blank() {
                self.next.row += 1;
                return Ok(true);
            }
        }
    }

    /// The number of values of the current record.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The bytes of one value of the current record, unquoted.
    pub fn field(&self, column: usize) -> &[u8] {
        let from = if column == 0 {
            0
        } else {
            self.ends[column - 1]
        };
        &self.text[from..self.ends[column]]
    }

    /// The bytes of the current record as they stand in the file, without line end.
    pub fn raw(&self) -> &[u8] {
        &self.raw[self.record.clone()]
    }

    /// The physical line on which the current record starts.
    pub fn line(&self) -> u64 {
        self.record_line
    }

    /// The number of the current data record, counted from 1.
    pub fn row(&self) -> u64 {
        self.next.row
    }

    /// Where the record behind the current one starts.
    pub fn position(&self) -> Position {
        self.next
    }

    fn is_blank(&self) -> bool {
        let length = if self.columns == 0 {
            0
        } else {
            self.ends[self.columns - 1]
        };
        self.text[..length].iter().all(u8::is_ascii_whitespace)
    }

    fn advance_any(&mut self) -> Result<bool, ReadError> {
        self.start = self.scanned;
        self.columns = 0;
        let mut written = 0;
        loop {
            if self.scanned == self.raw.len() && !self.end_of_input {
                self.fill()?;
            }
            let at_end = self.scanned == self.raw.len();
            let (result, read, wrote, ended) = self.parser.read_record(
                &self.raw[self.scanned..],
                &mut self.text[written..],
                &mut self.ends[self.columns..],
            );
            self.scanned += read;
            written += wrote;
            self.columns += ended;
            if self.scanned - self.start > RECORD_BYTES_MAX {
                return Err(self.too_long());
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => {
                    let length = self.text.len();
                    self.text.resize(length * 2, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    if self.columns >= COLUMNS_MAX {
                        return Err(ReadError::TooManyColumns {
                            line: self.first_line(),
                        });
                    }
                    let length = (self.ends.len() * 2).min(COLUMNS_MAX + 1);
                    self.ends.resize(length, 0);
                }
                ReadRecordResult::Record => return self.finish(at_end).map(|()| true),
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Notes where the record lies and checks what only a complete record shows.
    fn finish(&mut self, at_end: bool) -> Result<(), ReadError> {
        // A line end of two bytes belongs to this record as a whole, or the offset of the next
        // record would point between its halves.
        if self.raw.get(self.scanned.wrapping_sub(1)) == Some(&b'\r') && !at_end {
            if self.scanned == self.raw.len() && !self.end_of_input {
                self.fill()?;
            }
            if self.raw.get(self.scanned) == Some(&b'\n') {
                self.scanned += 1;
            }
        }
        let whole = &self.raw[self.start..self.scanned];
        let blanks = blank_lines(whole);
        self.record_line = self.next.line + count_lines(&whole[..blanks]);
        let record = &whole[blanks..];
        let terminator = if at_end { 0 } else { terminator(record) };
        if at_end && let Some(open) = self.open_quote(record) {
            let line = self.record_line + count_lines(&record[..open]);
            return Err(ReadError::OpenQuote { line });
        }
        let mut from = 0;
        if self.ends[..self.columns].iter().any(|end| {
            let long = end - from > FIELD_BYTES_MAX;
            from = *end;
            long
        }) {
            return Err(ReadError::FieldTooLong {
                line: self.record_line,
            });
        }
        let lines = if self.is_sheet {
            1
        } else {
            count_lines(record)
        };
        self.next.line = self.record_line + lines;
        self.next.offset += whole.len() as u64;
        self.record = self.start + blanks..self.scanned - terminator;
        if self.columns > COLUMNS_MAX {
            return Err(ReadError::TooManyColumns {
                line: self.record_line,
            });
        }
        Ok(())
    }

    /// Reads more bytes; drops those of earlier records first.
    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        let length = self.raw.len();
        self.raw.resize(length + READ_BYTES, 0);
        let n = loop {
            match self.input.read(&mut self.raw[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.raw.truncate(length + n);
        self.end_of_input = n == 0;
        Ok(())
    }

    fn first_line(&self) -> u64 {
        let whole = &self.raw[self.start..self.scanned];
        self.next.line + count_lines(&whole[..blank_lines(whole)])
    }

    /// An over-long record is nearly always one quote too many: say where it opened.
    fn too_long(&self) -> ReadError {
        let whole = &self.raw[self.start..self.scanned];
        match self.open_quote(whole) {
            Some(open) => ReadError::OpenQuote {
                line: self.next.line + count_lines(&whole[..open]),
            },
            None => ReadError::RecordTooLong {
                line: self.first_line(),
            },
        }
    }

    /// Where a quote opens that the record does not close.
    fn open_quote(&self, record: &[u8]) -> Option<usize> {
        let mut at = 0;
        let mut at_field_start = true;
        while at < record.len() {
            let byte = record[at];
            if at_field_start && byte == self.quote {
                match self.closing_quote(record, at) {
                    Some(close) => at = close + 1,
                    None => return Some(at),
                }
                at_field_start = false;
                continue;
            }
            at_field_start = byte == self.delimiter || byte == b'\n' || byte == b'\r';
            at += 1;
        }
        None
    }

    /// The quote that ends the value which opens at `open`; doubled and escaped ones do not.
    fn closing_quote(&self, record: &[u8], open: usize) -> Option<usize> {
        let mut at = open + 1;
        while at < record.len() {
            if Some(record[at]) == self.escape {
                at += 2;
            } else if record[at] != self.quote {
                at += 1;
            } else if record.get(at + 1) == Some(&self.quote) {
                at += 2;
            } else {
                return Some(at);
            }
        }
        None
    }
}

/// Bytes of line ends at the start.
fn blank_lines(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count()
}

/// Bytes of the line end at the end of a record.
fn terminator(record: &[u8]) -> usize {
    match record {
        [.., b'\r', b'\n'] => 2,
        [.., b'\r' | b'\n'] => 1,
        _ => 0,
    }
}

/// Line ends in `bytes`: `\n`, `\r\n` and the lone `\r` of old Macs count once each.
fn count_lines(bytes: &[u8]) -> u64 {
    let mut lines = 0;
    let mut after_return = false;
    for byte in bytes {
        lines += u64::from(*byte == b'\r' || (*byte == b'\n' && !after_return));
        after_return = *byte == b'\r';
    }
    lines
}

/// What one pass over all records has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Data records, blank ones not counted.
    pub rows: u64,
    /// The widest record, the header included.
    pub columns: usize,
}

/// Counts all records behind the header without looking into them.
///
/// It costs a fraction of the import, makes progress exact from the first row on, and finds a file
/// that is broken near its end *before* anything of it was taken over.
pub fn census<R: Read>(
    reader: &mut RecordReader<R>,
    mut go_on: impl FnMut() -> bool,
) -> Result<Census, ReadError> {
    let mut census = Census::default();
    while reader.advance()? {
        census.rows += 1;
        census.columns = census.columns.max(reader.columns());
        if census.rows.is_multiple_of(4096) && !go_on() {
            break;
        }
    }
    Ok(census)
}

#[cfg(test)]
mod tests;
