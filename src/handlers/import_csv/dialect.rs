//! Finds out how a file is delimited, quoted and where its header stands.
//!
//! Looks at the first [`SAMPLE_BYTES`] of the decoded text. The delimiter is the one under which
//! most records have the same number of columns, so a decimal comma or a comma in a sentence does
//! not win over the semicolons that really divide the line.

use std::collections::BTreeMap;

use super::payload::Delimiter;
use super::reader::{Position, RecordReader};

/// Bytes of the start of the text that the detection looks at.
pub const SAMPLE_BYTES: usize = 64 * 1024;
/// Records of the sample that count.
const SAMPLE_RECORDS: usize = 200;
/// Most lines before the header that are taken for a title or a remark.
const PREAMBLE_RECORDS_MAX: usize = 20;
/// A delimiter under which fewer records agree than this is none.
const AGREEMENT_MIN: f64 = 0.5;

/// How values are divided, and where the header starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dialect {
    pub delimiter: u8,
    pub quote: u8,
    /// A backslash where quotes inside values are written `\"` instead of `""`.
    pub escape: Option<u8>,
    /// The position of the header record.
    pub header: Position,
    /// A record counts as one line however many its values have: it was a row of a sheet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sheet: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        let header = Position {
            offset: 0,
            line: 1,
            row: 0,
        };
        Self {
            delimiter: b',',
            quote: b'"',
            escape: None,
            header,
            is_sheet: false,
        }
    }
}

impl Dialect {
    /// The delimiter as people name it.
    pub fn delimiter_name(&self) -> &'static str {
        match self.delimiter {
            b',' => "comma",
            b';' => "semicolon",
            b'\t' => "tab",
            b'|' => "pipe",
            _ => "other",
        }
    }
}

/// What the user has fixed beforehand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints {
    pub delimiter: Option<Delimiter>,
    /// Physical line of the header, counted from 1.
    pub header_row: Option<u32>,
    /// The text was made of a sheet: with commas and double quotes, whatever it looks like.
    pub is_sheet: bool,
}

/// One record of the sample.
struct Sampled {
    columns: usize,
    /// Columns up to the last filled one.
    width: usize,
    filled: usize,
    starts_as_comment: bool,
    /// Where it starts: behind the record before it.
    position: Position,
    line: u64,
}

/// Detects the dialect. `whole` says that the sample is the whole file; otherwise its last record
/// may be cut off and does not count.
pub fn detect(sample: &[u8], whole: bool, hints: Hints) -> Dialect {
    let mut base = Dialect {
        is_sheet: hints.is_sheet,
        ..Dialect::default()
    };
    if !hints.is_sheet {
        let mut delimiter = hints.delimiter.map(Delimiter::byte);
        if let Some((byte, length)) = separator_line(sample) {
            delimiter = delimiter.or(Some(byte));
            base.header.offset = length as u64;
            base.header.line = 2;
        }
        base.quote = quote(sample);
        base.escape = backslash_escapes(sample).then_some(b'\\');
        base.delimiter = delimiter.unwrap_or_else(|| best_delimiter(sample, whole, &base));
    }
    let records = records(sample, whole, &base);
    let header = match hints.header_row {
        Some(line) => records.iter().find(|record| record.line >= u64::from(line)),
        None => first_full_record(&records),
    };
    if let Some(header) = header {
        base.header = Position {
            row: 0,
            ..header.position
        };
    }
    base
}

/// Excel's first line `sep=;`: the delimiter and the length of the line.
fn separator_line(sample: &[u8]) -> Option<(u8, usize)> {
    let line = sample.split_inclusive(|byte| *byte == b'\n').next()?;
    let text = line.trim_ascii_end();
    // A tab is a blank to the trimming above.
    let tab = line.len() > 4 && line[..4].eq_ignore_ascii_case(b"sep=") && line[4] == b'\t';
    let found = match text {
        [s, e, p, b'=', byte] if [*s, *e, *p].eq_ignore_ascii_case(b"sep") => Some(*byte),
        _ if tab => Some(b'\t'),
        _ => None,
    }?;
    Delimiter::ALL
        .iter()
        .any(|known| known.byte() == found)
        .then_some((found, line.len()))
}

/// A single quote, when the sample has no double ones and values are plainly wrapped in it.
fn quote(sample: &[u8]) -> u8 {
    if sample.contains(&b'"') {
        return b'"';
    }
    let divides = |byte: u8| Delimiter::ALL.iter().any(|d| d.byte() == byte) || byte == b'\n';
    let opens = sample
        .windows(2)
        .filter(|pair| divides(pair[0]) && pair[1] == b'\'')
        .count();
    let closes = sample
        .windows(2)
        .filter(|pair| pair[0] == b'\'' && (divides(pair[1]) || pair[1] == b'\r'))
        .count();
    if opens >= 3 && closes >= 3 {
        b'\''
    } else {
        b'"'
    }
}

/// Whether quotes inside values are escaped with a backslash and never doubled.
fn backslash_escapes(sample: &[u8]) -> bool {
    let divides = |byte: u8| Delimiter::ALL.iter().any(|d| d.byte() == byte);
    let mut escaped = 0_usize;
    for window in sample.windows(3) {
        match window {
            // `\",` may also be a value that ends in a backslash; it proves nothing.
            [b'\\', b'"', next] if !divides(*next) && !matches!(next, b'\r' | b'\n') => {
                escaped += 1;
            }
            // A doubled quote between other characters; `,"",` is an empty value.
            [before, b'"', b'"'] if before.is_ascii_alphanumeric() || *before == b' ' => {
                return false;
            }
            _ => {}
        }
    }
    escaped > 0
}

fn best_delimiter(sample: &[u8], whole: bool, base: &Dialect) -> u8 {
    let mut best = (0.0, Delimiter::Comma.byte());
    for candidate in Delimiter::ALL {
        let dialect = Dialect {
            delimiter: candidate.byte(),
            ..*base
        };
        let records = records(sample, whole, &dialect);
        let Some(columns) = usual(&records, |record| record.columns).filter(|columns| *columns > 1)
        else {
            continue;
        };
        let agreeing = records
            .iter()
            .filter(|record| record.columns == columns)
            .count();
        let agreement = agreeing as f64 / records.len() as f64;
        // Width only decides between delimiters that fit about equally well.
        let score = agreement + (columns.min(50) as f64) / 500.0;
        if agreement >= AGREEMENT_MIN && score > best.0 {
            best = (score, candidate.byte());
        }
    }
    best.1
}

fn records(sample: &[u8], whole: bool, dialect: &Dialect) -> Vec<Sampled> {
    let from = (dialect.header.offset as usize).min(sample.len());
    let mut reader = RecordReader::new(&sample[from..], dialect, dialect.header);
    let mut found = Vec::new();
    let mut position = dialect.header;
    // An open quote is either the cut at the end of the sample or a wrong candidate.
    while let Ok(true) = reader.advance() {
        let is_filled = |at: &usize| !reader.field(*at).trim_ascii().is_empty();
        let filled = (0..reader.columns()).filter(is_filled).count();
        // Spreadsheets pad some rows with empty cells; they say nothing about the width.
        let width = (0..reader.columns())
            .rfind(is_filled)
            .map_or(1, |at| at + 1);
        found.push(Sampled {
            columns: reader.columns(),
            width,
            filled,
            starts_as_comment: reader.field(0).trim_ascii_start().starts_with(b"#"),
            position,
            line: reader.line(),
        });
        position = reader.position();
        if found.len() == SAMPLE_RECORDS {
            return found;
        }
    }
    if !whole && found.len() > 1 {
        found.pop();
    }
    found
}

/// The most frequent count; the larger one of two equally frequent.
fn usual(records: &[Sampled], count: fn(&Sampled) -> usize) -> Option<usize> {
    let mut counts = BTreeMap::new();
    for record in records.iter().filter(|record| !record.starts_as_comment) {
        *counts.entry(count(record)).or_insert(0_usize) += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(columns, times)| (*times, *columns))
        .map(|(columns, _)| columns)
}

/// The header: the first record about as wide as the data below, behind titles and remarks.
fn first_full_record(records: &[Sampled]) -> Option<&Sampled> {
    let usual = usual(records, |record| record.width)?;
    // A title line has one filled cell, also when a spreadsheet has padded it to full width.
    let is_wide = |record: &&Sampled| {
        let enough = usual == 1 || (record.filled > 1 && record.width * 2 >= usual);
        !record.starts_as_comment && enough
    };
    let found = records.iter().take(PREAMBLE_RECORDS_MAX).find(is_wide);
    found.or_else(|| records.iter().find(|record| !record.starts_as_comment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: (u8, u8, Option<u8>, &str)) {
        let dialect = detect(text.as_bytes(), true, Hints::default());
        let rest = &text[dialect.header.offset as usize..];
        let header = rest.trim_start().lines().next().unwrap_or_default();
        let found = (dialect.delimiter, dialect.quote, dialect.escape, header);
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn delimiters_are_told_apart() {
        check("a,b,c\n1,2,3\n", (b',', b'"', None, "a,b,c"));
        check("a;b;c\n1,5;2,5;3\n2,5;1;1,7\n", (b';', b'"', None, "a;b;c"));
        check("a\tb\nx, y, z\tw\nq, r\ts\n", (b'\t', b'"', None, "a\tb"));
        check("a;b;c\n1;;\n2;x;\n3,0;;y\n", (b';', b'"', None, "a;b;c"));
        check("a|b\n1;2|3\n", (b'|', b'"', None, "a|b"));
        check("name\nAcme, Inc.\nFoo\nBar\n", (b',', b'"', None, "name"));
        check(
            "\"a;b\",c\n\"d;e\",f\n\"g;h\",i\n",
            (b',', b'"', None, "\"a;b\",c"),
        );
    }

    #[test]
    fn excel_names_its_separator_in_the_first_line() {
        check("sep=;\r\na;b\r\n1;2\r\n", (b';', b'"', None, "a;b"));
        check("SEP=\t\na\tb\n", (b'\t', b'"', None, "a\tb"));
        check("sep=x\na,b\n", (b',', b'"', None, "a,b"));
    }

    #[test]
    fn titles_and_remarks_before_the_header_are_passed_over() {
        check(
            "Export of customers\n\nname,city\na,b\nc,d\n",
            (b',', b'"', None, "name,city"),
        );
        check(
            "# made by x, y\n# now\nname,city\na,b\n",
            (b',', b'"', None, "name,city"),
        );
        check(
            "Report,,,\nn,c,x,y\na,b,c,d\ne,f,g,h\n",
            (b',', b'"', None, "n,c,x,y"),
        );
    }

    #[test]
    fn the_user_may_name_the_header_line() {
        let text = "x,y\n1,2\nname,city\na,b\n";
        let hints = Hints {
            header_row: Some(3),
            ..Hints::default()
        };
        let dialect = detect(text.as_bytes(), true, hints);
        assert_eq!(&text[dialect.header.offset as usize..][..9], "name,city");
        assert_eq!(dialect.header.line, 3);
    }

    #[test]
    fn other_quotes_and_escapes_are_found() {
        check(
            "a,b\n'x, y','z'\n'1','2'\n'3','4'\n",
            (b',', b'\'', None, "a,b"),
        );
        check("a,b\nit's,o'k\n", (b',', b'"', None, "a,b"));
        check(
            "a,b\n\"say \\\"hi\\\" now\",2\n",
            (b',', b'"', Some(b'\\'), "a,b"),
        );
        check("a,b\n\"say \"\"hi\"\" now\",2\n", (b',', b'"', None, "a,b"));
        check("a,b\n\"C:\\\",2\n", (b',', b'"', None, "a,b"));
    }

    #[test]
    fn a_sample_that_ends_inside_a_record_is_enough() {
        let text = "a;b\n1,0;2\n3,4;4\n5,7;\"cut he";
        let dialect = detect(text.as_bytes(), false, Hints::default());
        assert_eq!(dialect.delimiter, b';');
    }
}
