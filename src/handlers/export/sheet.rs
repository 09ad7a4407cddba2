//! Rows as a workbook, in constant memory: finished rows go to a file of their own at once, and the
//! workbook is put together at the end. So it can not be gone on with; an attempt begins anew.
//!
//! Texts are texts there, so nothing computes; numbers and times have their own types.

use std::fs::File;
use std::path::Path;

use chrono::{DateTime, Datelike, Timelike, Utc};
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook, Worksheet, XlsxError};
use serde_json::{Number, Value};

use super::disk::disk_error;
use super::text::plain;
use crate::job::JobError;
use crate::record::exports::columns::{Cell, Field};

/// Rows that a sheet can hold, below its header.
pub(super) const SHEET_ROWS_MAX: u64 = 1_048_575;
/// Characters that a cell can hold.
const CELL_CHARS_MAX: usize = 32_767;
/// Whole numbers beyond these are not exact as a spreadsheet has them.
const EXACT_MAX: i64 = 1 << 53;
/// About what stands around the value of a cell where it is spooled.
const CELL_BYTES: u64 = 48;

/// A workbook with one sheet that is being filled.
pub(super) struct Sheet {
    workbook: Workbook,
    time: Format,
    rows: u32,
    /// Texts that were cut.
    pub(super) cut: u64,
    /// About what is spooled.
    pub(super) bytes: u64,
}

impl Sheet {
    /// Spools below `spool`.
    pub(super) fn create(spool: &Path, name: &str, fields: &[Field]) -> Result<Self, JobError> {
        let mut workbook = Workbook::new();
        // Rows of more than 4 GiB would not be put together without.
        workbook.use_zip_large_file(true);
        workbook.set_tempdir(spool).map_err(broken)?;
        let sheet = workbook
            .add_worksheet_with_constant_memory()
            .map_err(broken)?;
        sheet.set_name(name).map_err(broken)?;
        sheet.set_freeze_panes(1, 0).map_err(broken)?;
        let bold = Format::new().set_bold();
        for (at, field) in fields.iter().enumerate() {
            let column = column(at)?;
            sheet
                .write_string_with_format(0, column, field.name(), &bold)
                .map_err(broken)?;
        }
        Ok(Self {
            workbook,
            time: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"),
            rows: 0,
            cut: 0,
            bytes: 0,
        })
    }

    pub(super) fn add(&mut self, rows: &[Vec<Cell>]) -> Result<(), JobError> {
        // Rows that began to match after they were counted.
        check_rows(u64::from(self.rows) + rows.len() as u64)?;
        let sheet = self.workbook.worksheet_from_index(0).map_err(broken)?;
        for row in rows {
            self.rows += 1;
            for (at, cell) in row.iter().enumerate() {
                let place = (self.rows, column(at)?);
                let written = write(sheet, place, cell, &self.time).map_err(broken)?;
                self.cut += u64::from(written.is_cut);
                self.bytes += written.bytes;
            }
        }
        Ok(())
    }

    /// Puts the workbook together. When this returns, it is on disk.
    pub(super) fn save(mut self, file: &File) -> Result<(), JobError> {
        self.workbook.save_to_writer(file).map_err(broken)?;
        file.sync_all().map_err(|error| disk_error(&error))
    }
}

/// Refuses more rows than a sheet has, for good.
pub(super) fn check_rows(rows: u64) -> Result<(), JobError> {
    if rows <= SHEET_ROWS_MAX {
        return Ok(());
    }
    Err(JobError::Permanent(format!(
        "a sheet holds {SHEET_ROWS_MAX} rows and this export has more: use the format csv, or \
         filters"
    )))
}

/// What became of a cell.
struct Written {
    /// Its text was too long.
    is_cut: bool,
    bytes: u64,
}

impl Written {
    const NOTHING: Self = Self::whole(0);
    const VALUE: Self = Self::whole(CELL_BYTES);

    const fn whole(bytes: u64) -> Self {
        Self {
            is_cut: false,
            bytes,
        }
    }
}

fn write(
    sheet: &mut Worksheet,
    (row, column): (u32, u16),
    cell: &Cell,
    time_format: &Format,
) -> Result<Written, XlsxError> {
    match cell {
        Cell::Empty => return Ok(Written::NOTHING),
        Cell::Number(number) if number.unsigned_abs() <= EXACT_MAX.unsigned_abs() => {
            sheet.write_number(row, column, *number as f64)?;
            return Ok(Written::VALUE);
        }
        Cell::Json(Value::Number(number)) => {
            if let Some(number) = exact(number) {
                sheet.write_number(row, column, number)?;
                return Ok(Written::VALUE);
            }
        }
        Cell::Time(time) => {
            if let Some(time) = excel_time(*time) {
                sheet.write_datetime_with_format(row, column, &time, time_format)?;
                return Ok(Written::VALUE);
            }
        }
        Cell::Id(_) | Cell::Text(_) | Cell::Number(_) | Cell::Json(_) => {}
    }
    let text = plain(cell);
    if text.is_empty() {
        return Ok(Written::NOTHING);
    }
    let is_cut = text.len() > CELL_CHARS_MAX && text.encode_utf16().count() > CELL_CHARS_MAX;
    let text = if is_cut { shortened(&text) } else { text };
    let escaped = text.bytes().filter(|b| matches!(b, b'&' | b'<' | b'>'));
    let bytes = CELL_BYTES + text.len() as u64 + 4 * escaped.count() as u64;
    sheet.write_string(row, column, text)?;
    Ok(Written { is_cut, bytes })
}

/// A number as a spreadsheet has it; none: it would be another one there.
fn exact(number: &Number) -> Option<f64> {
    match number.as_i64() {
        Some(whole) if whole.unsigned_abs() > EXACT_MAX.unsigned_abs() => None,
        Some(whole) => Some(whole as f64),
        None if number.is_u64() => None,
        None => number.as_f64(),
    }
}

/// As much of a text as fits, counted as the format counts: in units of UTF-16.
fn shortened(text: &str) -> String {
    let mut units = 0;
    let fits = |c: &char| {
        units += c.len_utf16();
        units < CELL_CHARS_MAX
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

/// In UTC; a spreadsheet knows no others, and none before 1900.
fn excel_time(time: DateTime<Utc>) -> Option<ExcelDateTime> {
    let year = u16::try_from(time.year()).ok()?;
    let (hour, minute) = (
        u16::try_from(time.hour()).ok()?,
        u8::try_from(time.minute()).ok()?,
    );
    let seconds = f64::from(time.second()) + f64::from(time.timestamp_subsec_millis()) / 1000.0;
    let day = ExcelDateTime::from_ymd(
        year,
        u8::try_from(time.month()).ok()?,
        u8::try_from(time.day()).ok()?,
    );
    day.ok()?.and_hms(hour, minute, seconds).ok()
}

fn column(at: usize) -> Result<u16, JobError> {
    u16::try_from(at).map_err(JobError::permanent)
}

/// What the disk refuses now it may take later; what no workbook can hold it never takes.
fn broken(error: XlsxError) -> JobError {
    match error {
        XlsxError::IoError(error) | XlsxError::TempFileError(_, error) => disk_error(&error),
        XlsxError::ZipError(error) => {
            JobError::Retry(format!("put the workbook together: {error}"))
        }
        other => JobError::Permanent(format!("a workbook can not hold this: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::record::exports::columns::Entity;

    use super::*;

    #[test]
    fn what_no_workbook_can_hold_is_refused_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let fields = [Entity::Accounts.field("name").unwrap()];
        let refused = Sheet::create(dir.path(), &"x".repeat(40), &fields).err();
        assert!(
            matches!(refused, Some(JobError::Permanent(_))),
            "{refused:?}"
        );
        let gone = Sheet::create(&dir.path().join("gone"), "accounts", &fields).err();
        assert!(matches!(gone, Some(JobError::Retry(_))), "{gone:?}");
        let mut sheet = Sheet::create(dir.path(), "accounts", &fields).unwrap();
        sheet.add(&[vec![Cell::Text("<&>".to_owned())]]).unwrap();
        assert_eq!(sheet.bytes, CELL_BYTES + 15);
        sheet.rows = 1_048_575;
        let refused = sheet.add(&[vec![Cell::Empty]]).err();
        assert!(
            matches!(refused, Some(JobError::Permanent(_))),
            "{refused:?}"
        );
    }
}
