//! A sheet of a workbook, as CSV: a record per row, the cells as people see them.
//!
//! Empty rows become empty lines, so that the number of a line is the number of the row in the
//! sheet. Of merged cells the first one has the value, as in the file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use calamine::{Reader, SheetType, SheetVisible, Xlsx, XlsxError};

use super::cell::{Shown, cell};
use super::{Limits, UnpackError, Unpacked, Workbook, parts};
use crate::handlers::import_csv::reader::{COLUMNS_MAX, FIELD_BYTES_MAX, RECORD_BYTES_MAX};

/// Cells after which the limits are looked at.
const CELLS_BETWEEN: u32 = 4096;
/// ... or this many bytes, for a short text may be told by many cells.
const BYTES_BETWEEN: u64 = 1024 * 1024;
/// Rows that a sheet can have. An empty one costs a byte: a number of any size would fill the disk.
const ROWS_MAX: u32 = 1_048_576;
/// Sheets that are named.
const SHEETS_MAX: usize = 100;

pub(super) fn unpack(
    path: &Path,
    wanted: Option<&str>,
    decimal_comma: bool,
    out: &Path,
    limits: &Limits<'_>,
) -> Result<Unpacked, UnpackError> {
    parts::check(path, limits)?;
    // The reader is other people's work on other people's files: a panic is a file that it does not
    // understand, and no reason to try again.
    let reading = AssertUnwindSafe(|| read(path, wanted, decimal_comma, out, limits));
    catch_unwind(reading)
        .unwrap_or_else(|_| Err(UnpackError::Unreadable("it is not well formed".to_owned())))
}

fn read(
    path: &Path,
    wanted: Option<&str>,
    decimal_comma: bool,
    out: &Path,
    limits: &Limits<'_>,
) -> Result<Unpacked, UnpackError> {
    let file = BufReader::new(File::open(path)?);
    let mut book: Xlsx<_> = Xlsx::new(file).map_err(unreadable)?;
    let workbook = choose(&book, wanted)?;
    let mut cells = book
        .worksheet_cells_reader(&workbook.sheet)
        .map_err(unreadable)?;
    let shown: Vec<Shown> = cells.styles().iter().map(Shown::of).collect();
    let mut sheet = SheetWriter {
        out: BufWriter::new(File::create(out)?),
        row: Vec::new(),
        columns: 0,
        width: 0,
        number: 0,
        bytes: 0,
    };
    let (mut until_check, mut checked) = (CELLS_BETWEEN, 0);
    let mut is_whole = true;
    while let Some((found, style)) = cells.next_cell_with_style_id().map_err(unreadable)? {
        let (row, column) = found.get_position();
        if sheet.number != row {
            if limits.is_enough(sheet.bytes) {
                is_whole = false;
                break;
            }
            sheet.go_to(row)?;
        }
        let shown = shown.get(style).copied().unwrap_or_default();
        sheet.add(column, &cell(found.get_value(), shown, decimal_comma))?;
        until_check -= 1;
        if until_check == 0 || sheet.bytes > checked + BYTES_BETWEEN {
            (until_check, checked) = (CELLS_BETWEEN, sheet.bytes);
            limits.check(sheet.bytes)?;
        }
    }
    sheet.end_row()?;
    limits.check(sheet.bytes)?;
    sheet.out.flush()?;
    Ok(Unpacked {
        path: out.to_owned(),
        is_whole,
        workbook: Some(workbook),
    })
}

/// The sheet that is asked for, else the first one that people see.
fn choose<R: std::io::Read + std::io::Seek>(
    book: &Xlsx<R>,
    wanted: Option<&str>,
) -> Result<Workbook, UnpackError> {
    let tables = book.sheets_metadata().iter();
    let tables = tables.filter(|sheet| sheet.typ == SheetType::WorkSheet);
    let sheets: Vec<_> = tables.clone().map(|sheet| sheet.name.clone()).collect();
    let mut visible = tables.filter(|sheet| sheet.visible == SheetVisible::Visible);
    let first = visible.next().map(|sheet| &sheet.name).or(sheets.first());
    let found = match wanted {
        None => first.ok_or(UnpackError::NoSheet)?,
        Some(wanted) => {
            let same = |name: &&String| name.trim().to_lowercase() == wanted.trim().to_lowercase();
            let exact = sheets.iter().find(|name| *name == wanted);
            let found = exact.or_else(|| sheets.iter().find(same));
            found.ok_or_else(|| UnpackError::NoSuchSheet {
                wanted: wanted.to_owned(),
                known: sheets[..sheets.len().min(SHEETS_MAX)].join(", "),
            })?
        }
    };
    Ok(Workbook {
        sheet: found.clone(),
        sheets: sheets.iter().take(SHEETS_MAX).cloned().collect(),
    })
}

fn unreadable(error: XlsxError) -> UnpackError {
    match error {
        XlsxError::Io(error) if !super::gzip::is_damage(error.kind()) => UnpackError::Io(error),
        XlsxError::Password => UnpackError::Unreadable("it is protected by a password".to_owned()),
        other => UnpackError::Unreadable(other.to_string()),
    }
}

struct SheetWriter {
    out: BufWriter<File>,
    /// The current row up to its last filled cell.
    row: Vec<u8>,
    columns: u32,
    /// Of the widest row so far: a shorter one has empty cells there, and lacks none.
    width: u32,
    /// Of the current row, counted from 0.
    number: u32,
    bytes: u64,
}

impl SheetWriter {
    fn add(&mut self, column: u32, text: &str) -> Result<(), UnpackError> {
        if text.is_empty() {
            return Ok(());
        }
        let row = u64::from(self.number) + 1;
        if column as usize >= COLUMNS_MAX {
            return Err(UnpackError::TooWide { row });
        }
        let too_long = |what: &str| UnpackError::Unreadable(format!("{what} {row} is too long"));
        if text.len() > FIELD_BYTES_MAX {
            return Err(too_long("a value of row"));
        }
        if self.row.len() + text.len() > RECORD_BYTES_MAX {
            return Err(too_long("row"));
        }
        if column < self.columns {
            return Err(UnpackError::Unreadable(format!(
                "the cells of row {row} are not in order"
            )));
        }
        let commas = column - self.columns + u32::from(self.columns > 0);
        self.row.extend(std::iter::repeat_n(b',', commas as usize));
        self.columns = column + 1;
        let before = self.row.len();
        quote(&mut self.row, text);
        self.bytes += (self.row.len() - before) as u64;
        Ok(())
    }

    /// Ends the current row, and the empty ones behind it.
    fn go_to(&mut self, number: u32) -> Result<(), UnpackError> {
        if number < self.number {
            return Err(UnpackError::Unreadable(
                "its rows are not in order".to_owned(),
            ));
        }
        if number >= ROWS_MAX {
            return Err(UnpackError::Unreadable(format!(
                "it has more than {ROWS_MAX} rows"
            )));
        }
        self.end_row()?;
        for _ in self.number + 1..number {
            self.out.write_all(b"\n")?;
        }
        self.bytes += u64::from(number - self.number);
        self.number = number;
        Ok(())
    }

    fn end_row(&mut self) -> Result<(), UnpackError> {
        if self.columns > 0 {
            self.width = self.width.max(self.columns);
            let commas = (self.width - self.columns) as usize;
            self.row.extend(std::iter::repeat_n(b',', commas));
        }
        self.row.push(b'\n');
        self.out.write_all(&self.row)?;
        self.row.clear();
        self.columns = 0;
        Ok(())
    }
}

fn quote(row: &mut Vec<u8>, text: &str) {
    if !text.contains([',', '"', '\n', '\r']) {
        row.extend_from_slice(text.as_bytes());
        return;
    }
    row.push(b'"');
    for part in text.split_inclusive('"') {
        row.extend_from_slice(part.as_bytes());
        if part.ends_with('"') {
            row.push(b'"');
        }
    }
    row.push(b'"');
}
