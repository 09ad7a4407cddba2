//! Rows as a workbook, in constant memory: finished rows go to a file of their own at once, and the
//! workbook is put together at the end. So it can not be gone on with; an attempt begins anew.
//!
//! Texts are texts there, so nothing computes; numbers and times have their own types.

use std::fs::File;
use std::io;
use std::path::Path;

use chrono::{DateTime, Datelike, Timelike, Utc};
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use super::text::plain;
use crate::record::exports::columns::{Cell, Field};

/// Rows that a sheet can hold, below its header.
pub(super) const SHEET_ROWS_MAX: u64 = 1_048_575;
/// Characters that a cell can hold.
const CELL_CHARS_MAX: usize = 32_767;
/// Whole numbers beyond these are not exact as a spreadsheet has them.
const EXACT_MAX: i64 = 1 << 53;

/// A workbook with one sheet that is being filled.
pub(super) struct Sheet {
    workbook: Workbook,
    time: Format,
    rows: u32,
    /// Texts that were cut.
    pub(super) cut: u64,
}

impl Sheet {
    /// Spools below `spool`.
    pub(super) fn create(spool: &Path, name: &str, fields: &[Field]) -> io::Result<Self> {
        let mut workbook = Workbook::new();
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
        })
    }

    pub(super) fn add(&mut self, rows: &[Vec<Cell>]) -> io::Result<()> {
        let sheet = self.workbook.worksheet_from_index(0).map_err(broken)?;
        for row in rows {
            self.rows += 1;
            for (at, cell) in row.iter().enumerate() {
                let place = (self.rows, column(at)?);
                self.cut += u64::from(write(sheet, place, cell, &self.time).map_err(broken)?);
            }
        }
        Ok(())
    }

    /// Puts the workbook together. When this returns, it is on disk.
    pub(super) fn save(mut self, file: &File) -> io::Result<()> {
        self.workbook.save_to_writer(file).map_err(broken)?;
        file.sync_all()
    }
}

/// Writes a cell; true: its text was too long and was cut.
fn write(
    sheet: &mut Worksheet,
    (row, column): (u32, u16),
    cell: &Cell,
    time_format: &Format,
) -> Result<bool, XlsxError> {
    match cell {
        Cell::Empty => return Ok(false),
        Cell::Number(number) if number.unsigned_abs() <= EXACT_MAX.unsigned_abs() => {
            sheet.write_number(row, column, *number as f64)?;
            return Ok(false);
        }
        Cell::Time(time) => {
            if let Some(time) = excel_time(*time) {
                sheet.write_datetime_with_format(row, column, &time, time_format)?;
                return Ok(false);
            }
        }
        Cell::Id(_) | Cell::Text(_) | Cell::Number(_) | Cell::Json(_) => {}
    }
    let text = plain(cell);
    if text.is_empty() {
        return Ok(false);
    }
    let is_long = text.len() > CELL_CHARS_MAX && text.encode_utf16().count() > CELL_CHARS_MAX;
    let text = if is_long { shortened(&text) } else { text };
    sheet.write_string(row, column, text)?;
    Ok(is_long)
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

fn column(at: usize) -> io::Result<u16> {
    u16::try_from(at).map_err(io::Error::other)
}

fn broken(error: XlsxError) -> io::Error {
    match error {
        XlsxError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
