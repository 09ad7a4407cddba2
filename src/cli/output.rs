//! What the program prints. The only place that writes to standard output and error.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// One line on standard output. A reader that went away is no error.
pub(crate) fn line(text: &str) {
    line_to_reader(text).ok();
}

/// One line on standard output, for a reader that should be there.
pub(crate) fn line_to_reader(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// A line for the person, on standard error.
pub(crate) fn note(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// An error.
pub(crate) fn error(text: &str) {
    note(&format!("bullwark: {text}"));
}

/// A value as JSON, on one line.
pub(crate) fn json<T: Serialize>(value: &T) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(failed) => error(&format!("can not write JSON: {failed}")),
    }
}

fn harmless(text: &str) -> String {
    let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.replace(is_harmful, "\u{fffd}")
}

/// A table that fits the terminal. What others have written, such as errors and answers, moves no
/// cursor and changes no colour.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| harmless(cell)));
    }
    line(&table.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_steers_no_terminal() {
        assert_eq!(
            harmless("no\n\tsuch\u{1b}[2J\u{9b}m é"),
            "no\n\tsuch\u{fffd}[2J\u{fffd}m é"
        );
    }
}
