//! The error report: the rejected rows as they stood in the file, and behind them what is wrong.
//!
//! The original bytes are not touched, so that a corrected report can be uploaded in place of the
//! file. Rows are padded to one width, so that our columns stand below their headers also behind
//! ragged rows. Our own cells are inert in a spreadsheet: a text that would be a formula gets a
//! leading apostrophe.

use std::io::{self, Write};

use super::dialect::Dialect;
use super::mapping::REPORT_COLUMNS;
use crate::handlers::formula::starts_a_formula;

/// What a report says about one row.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    pub row: u64,
    pub status: &'a str,
    pub code: &'a str,
    pub column: &'a str,
    pub message: &'a str,
    pub suggestion: &'a str,
}

/// Writes a report, row by row.
pub struct ReportWriter<W: Write> {
    out: W,
    delimiter: u8,
    quote: u8,
    /// Columns of the widest record of the file.
    width: usize,
}

impl<W: Write> ReportWriter<W> {
    /// Starts a report with the header of the file; `width` is the widest record's.
    pub fn new(
        mut out: W,
        dialect: &Dialect,
        header: &[u8],
        header_columns: usize,
        width: usize,
        bom: bool,
    ) -> io::Result<Self> {
        if bom {
            out.write_all(b"\xEF\xBB\xBF")?;
        }
        let width = width.max(header_columns);
        let mut writer = Self {
            out,
            delimiter: dialect.delimiter,
            quote: dialect.quote,
            width,
        };
        writer.original(header, header_columns)?;
        writer.cells(&REPORT_COLUMNS)?;
        Ok(writer)
    }

    /// Adds one row: its bytes in the file, how many columns they are, and the verdict.
    pub fn row(&mut self, raw: &[u8], columns: usize, verdict: Verdict<'_>) -> io::Result<()> {
        self.original(raw, columns)?;
        self.cells(&[
            &verdict.row.to_string(),
            verdict.status,
            verdict.code,
            verdict.column,
            verdict.message,
            verdict.suggestion,
        ])
    }

    /// The sink, to be read or emptied between rows.
    pub fn sink(&mut self) -> &mut W {
        &mut self.out
    }

    /// Hands the file back, with everything written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn original(&mut self, raw: &[u8], columns: usize) -> io::Result<()> {
        self.out.write_all(raw)?;
        for _ in columns..self.width {
            self.out.write_all(&[self.delimiter])?;
        }
        Ok(())
    }

    fn cells(&mut self, cells: &[&str]) -> io::Result<()> {
        for cell in cells {
            self.out.write_all(&[self.delimiter])?;
            self.cell(cell)?;
        }
        self.out.write_all(b"\r\n")
    }

    fn cell(&mut self, cell: &str) -> io::Result<()> {
        let guard = starts_a_formula(cell);
        let special = |byte: u8| {
            byte == self.delimiter || byte == self.quote || matches!(byte, b'"' | b'\r' | b'\n')
        };
        if !guard && !cell.bytes().any(special) {
            return self.out.write_all(cell.as_bytes());
        }
        self.out.write_all(&[self.quote])?;
        if guard {
            self.out.write_all(b"'")?;
        }
        for byte in cell.bytes() {
            if byte == self.quote {
                self.out.write_all(&[self.quote])?;
            }
            self.out.write_all(&[byte])?;
        }
        self.out.write_all(&[self.quote])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dialect: Dialect, rows: &[(&str, usize, Verdict<'_>)], bom: bool) -> String {
        let mut writer = ReportWriter::new(Vec::new(), &dialect, b"name;web", 2, 3, bom).unwrap();
        for (raw, columns, verdict) in rows {
            writer.row(raw.as_bytes(), *columns, *verdict).unwrap();
        }
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    #[test]
    fn rows_keep_their_bytes_and_line_up() {
        let semicolon = Dialect {
            delimiter: b';',
            ..Dialect::default()
        };
        let verdict = Verdict {
            row: 7,
            status: "failed",
            code: "DOMAIN_INVALID",
            column: "web",
            message: "`x;y` is \"not\" a domain",
            suggestion: "=cmd|'/c calc'!A1",
        };
        let rows = [
            ("\"A \"\"x\"\"\";x", 2, verdict),
            ("B", 1, verdict),
            ("C;d;e", 3, verdict),
        ];
        let tail = ";7;failed;DOMAIN_INVALID;web;\"`x;y` is \"\"not\"\" a domain\";\
             \"'=cmd|'/c calc'!A1\"\r\n";
        let expected = format!(
            "\u{FEFF}name;web;;_row;_status;_error_code;_error_column;_error_message;\
             _suggestion\r\n\
             \"A \"\"x\"\"\";x;{tail}B;;{tail}C;d;e{tail}"
        );
        assert_eq!(write(semicolon, &rows, true), expected);
    }
}
