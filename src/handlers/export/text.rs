//! Rows as text: CSV (RFC 4180), one JSON array, or one JSON object per line.
//!
//! Promises: what is written depends on the rows alone, so that a file can be cut behind any row
//! and gone on with. Texts that a spreadsheet would compute are inert; numbers stay numbers.

use std::borrow::Cow;
use std::io::{self, Write};

use chrono::SecondsFormat;
use csv::{ByteRecord, QuoteStyle, Terminator, WriterBuilder};
use serde_json::Value;

use super::super::formula::guarded;
use super::super::import_csv::payload::Delimiter;
use super::payload::{ExportOptions, Format};
use crate::record::exports::columns::{Cell, Field};

/// Between the entries of a list in one cell: what an import takes apart again.
const LIST_SEPARATOR: &str = "; ";
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Writes rows of one format.
#[derive(Debug)]
pub(super) struct TextWriter {
    format: Format,
    options: ExportOptions,
    names: Vec<String>,
}

impl TextWriter {
    pub(super) fn new(format: Format, options: &ExportOptions, fields: &[Field]) -> Self {
        Self {
            format,
            options: options.clone(),
            names: fields.iter().map(Field::name).collect(),
        }
    }

    /// What stands before the first row.
    pub(super) fn head(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self.format {
            Format::Json => out.extend_from_slice(b"["),
            Format::Csv => {
                if self.options.bom {
                    out.extend_from_slice(BOM);
                }
                if self.options.header {
                    let names = self.names.iter().map(|name| self.guard(name).into_owned());
                    self.records(&mut out, std::iter::once(names))?;
                }
            }
            Format::Ndjson | Format::Xlsx | Format::Excel => {}
        }
        Ok(out)
    }

    /// These rows; `before` are in the file already.
    pub(super) fn rows(&self, rows: &[Vec<Cell>], before: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        if self.format == Format::Csv {
            let records = rows
                .iter()
                .map(|row| row.iter().map(|cell| self.cell(cell)));
            self.records(&mut out, records)?;
            return Ok(out);
        }
        let is_array = self.format == Format::Json;
        for (at, row) in rows.iter().enumerate() {
            if is_array {
                let is_first = before == 0 && at == 0;
                out.extend_from_slice(if is_first { b"\n" } else { b",\n" });
            }
            self.object(&mut out, row)?;
            if !is_array {
                out.push(b'\n');
            }
        }
        Ok(out)
    }

    /// What stands behind the last row.
    pub(super) fn tail(&self) -> &'static [u8] {
        match self.format {
            Format::Json => b"\n]\n",
            Format::Csv | Format::Ndjson | Format::Xlsx | Format::Excel => b"",
        }
    }

    fn records<R: Iterator<Item = String>>(
        &self,
        out: &mut Vec<u8>,
        records: impl Iterator<Item = R>,
    ) -> io::Result<()> {
        let mut writer = WriterBuilder::new()
            .delimiter(self.options.delimiter.map_or(b',', Delimiter::byte))
            .terminator(Terminator::CRLF)
            .quote_style(QuoteStyle::Necessary)
            .from_writer(out);
        let mut record = ByteRecord::new();
        for cells in records {
            record.clear();
            cells.for_each(|cell| record.push_field(cell.as_bytes()));
            writer.write_byte_record(&record)?;
        }
        writer.flush()
    }

    fn cell(&self, cell: &Cell) -> String {
        match cell {
            Cell::Text(text) => self.guard(text).into_owned(),
            Cell::Json(Value::Number(number)) => number.to_string(),
            Cell::Json(value) => self.guard(&json_text(value)).into_owned(),
            Cell::Number(number) => number.to_string(),
            Cell::Empty | Cell::Id(_) | Cell::Time(_) => plain(cell),
        }
    }

    fn guard<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.options.formula_guard {
            true => guarded(text),
            false => Cow::Borrowed(text),
        }
    }

    fn object(&self, out: &mut Vec<u8>, row: &[Cell]) -> io::Result<()> {
        out.push(b'{');
        for (at, (name, cell)) in self.names.iter().zip(row).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut *out, name)?;
            out.push(b':');
            match cell {
                Cell::Empty => out.write_all(b"null")?,
                Cell::Number(number) => write!(out, "{number}")?,
                Cell::Json(value) => serde_json::to_writer(&mut *out, value)?,
                Cell::Text(text) => serde_json::to_writer(&mut *out, text)?,
                Cell::Id(_) | Cell::Time(_) => serde_json::to_writer(&mut *out, &plain(cell))?,
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// A value as the text of one cell.
pub(super) fn plain(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Id(id) => id.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => number.to_string(),
        Cell::Time(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        Cell::Json(value) => json_text(value),
    }
}

/// A text as it is, a list of texts with separators, everything else as JSON.
fn json_text(value: &Value) -> String {
    let one = |item: &Value| {
        let text = item.as_str()?;
        let divides = |c: char| matches!(c, ',' | ';' | '|' | '\n');
        (!text.is_empty() && text.trim() == text && !text.contains(divides))
            .then(|| text.to_owned())
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(one).collect();
            let texts = texts.map(|texts| texts.join(LIST_SEPARATOR));
            texts.unwrap_or_else(|| value.to_string())
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::exports::columns::Entity;

    fn written(format: Format, options: ExportOptions, rows: &[Vec<Cell>]) -> String {
        let names = ["name", "employee_count", "technologies", "custom.x"];
        let fields = names.map(|name| Entity::Accounts.field(name).unwrap());
        let writer = TextWriter::new(format, &options, &fields);
        let mut out = writer.head().unwrap();
        for (at, row) in rows.iter().enumerate() {
            out.extend(writer.rows(std::slice::from_ref(row), at as u64).unwrap());
        }
        out.extend_from_slice(writer.tail());
        String::from_utf8(out).unwrap()
    }

    fn row(name: &str, number: i64, list: Value, custom: Value) -> Vec<Cell> {
        vec![
            Cell::Text(name.to_owned()),
            Cell::Number(number),
            Cell::Json(list),
            Cell::Json(custom),
        ]
    }

    #[test]
    fn csv_is_quoted_where_it_must_be_and_computes_nothing() {
        let rows = [
            row("A \"x\", B\nC", -5, json!(["Rust", "Go"]), json!("=1")),
            row("-5", 0, json!(["a;b"]), json!(-7.5)),
            vec![Cell::Empty; 4],
        ];
        let text = written(Format::Csv, ExportOptions::default(), &rows);
        let expected = "name,employee_count,technologies,custom.x\r\n\
            \"A \"\"x\"\", B\nC\",-5,Rust; Go,'=1\r\n\
            '-5,0,\"[\"\"a;b\"\"]\",-7.5\r\n,,,\r\n";
        assert_eq!(text, expected);
        let options = ExportOptions {
            delimiter: Some(Delimiter::Semicolon),
            header: false,
            bom: true,
            formula_guard: false,
            ..ExportOptions::default()
        };
        let text = written(Format::Csv, options, &rows[1..2]);
        assert_eq!(text, "\u{FEFF}-5;0;\"[\"\"a;b\"\"]\";-7.5\r\n");
    }

    #[test]
    fn json_is_whole_with_any_number_of_rows() {
        let rows = [
            row("=1 \"\u{1}", 1, json!(["Rust"]), json!({"a": 1})),
            row("b", 2, Value::Null, Value::Null),
        ];
        for count in 0..=2 {
            let array = written(Format::Json, ExportOptions::default(), &rows[..count]);
            let array: Vec<Value> = serde_json::from_str(&array).unwrap();
            let lines = written(Format::Ndjson, ExportOptions::default(), &rows[..count]);
            let lines: Vec<Value> = lines
                .lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect();
            assert_eq!((array.len(), &array), (count, &lines));
            if count > 0 {
                let expected = json!({"name": "=1 \"\u{1}", "employee_count": 1,
                    "technologies": ["Rust"], "custom.x": {"a": 1}});
                assert_eq!(array[0], expected);
            }
        }
    }
}
