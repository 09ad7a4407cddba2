//! Recognises files that are no table whatever their name says.
//!
//! People rename `list.xls` to `list.csv`. The first bytes tell, and a sentence that says what to
//! do helps more than ten thousand rows of mojibake. Workbooks (`.xlsx`) and `.csv.gz` never come
//! here, but for what is inside of them: see [`super::unpack`].

/// A file that is something else than text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongContent {
    #[error(
        "the file is an archive (.zip), and no Excel workbook (.xlsx); unpack it, and upload the \
         .csv or .xlsx inside"
    )]
    Zip,
    #[error(
        "the file is an old Excel workbook (.xls), or one with a password; open it, choose Save as \
         > Excel workbook (.xlsx) without a password, and upload that file"
    )]
    OldExcel,
    #[error("the file is a PDF document, not CSV; export the table from its source instead")]
    Pdf,
    #[error("the file is compressed with gzip, twice; upload it compressed once")]
    Gzip,
    #[error("the file is compressed ({0}); decompress it and upload the .csv inside")]
    Compressed(&'static str),
    #[error("the file is a web page (HTML), not CSV; the link may need a login or have expired")]
    Html,
    #[error("the file is JSON, not CSV")]
    Json,
    #[error("the file is a Parquet file, not CSV")]
    Parquet,
    #[error("the file is an image or another binary file, not CSV")]
    Binary,
    #[error("the file is empty")]
    Empty,
}

/// Bytes of the start of a file that [`check_content`] looks at.
pub const HEAD_BYTES: usize = 4096;

/// Refuses a file whose first bytes are those of another format.
pub fn check_content(head: &[u8]) -> Result<(), WrongContent> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    if head.is_empty() {
        return Err(WrongContent::Empty);
    }
    if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") || starts(b"PK\x07\x08") {
        return Err(WrongContent::Zip);
    }
    if starts(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1") {
        return Err(WrongContent::OldExcel);
    }
    if starts(b"%PDF-") {
        return Err(WrongContent::Pdf);
    }
    if starts(b"\x1F\x8B") {
        return Err(WrongContent::Gzip);
    }
    for (magic, name) in [
        (b"BZh".as_slice(), "bzip2"),
        (b"\xFD7zXZ\x00", "xz"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
        (b"7z\xBC\xAF\x27\x1C", "7-Zip"),
        (b"Rar!\x1A\x07", "RAR"),
    ] {
        if starts(magic) {
            return Err(WrongContent::Compressed(name));
        }
    }
    if starts(b"PAR1") {
        return Err(WrongContent::Parquet);
    }
    for magic in [
        b"\x89PNG".as_slice(),
        b"\xFF\xD8\xFF",
        b"GIF8",
        b"\x7FELF",
        b"SQLite format 3\0",
        b"RIFF",
    ] {
        if starts(magic) {
            return Err(WrongContent::Binary);
        }
    }
    check_markup(head)
}

/// HTML and JSON are text, so they need a look behind a byte order mark and blanks.
fn check_markup(head: &[u8]) -> Result<(), WrongContent> {
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    let text = head.trim_ascii_start();
    let opening = text[..text.len().min(15)].to_ascii_lowercase();
    if opening.starts_with(b"<!doctype html") || opening.starts_with(b"<html") {
        return Err(WrongContent::Html);
    }
    let json_object = opening.starts_with(b"{\"") || opening.starts_with(b"{\n");
    let json_array = opening.starts_with(b"[{") || opening.starts_with(b"[\n");
    if json_object || json_array {
        return Err(WrongContent::Json);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_files_are_refused_by_their_first_bytes() {
        for (head, expected) in [
            (
                b"PK\x03\x04....xl/workbook.xml".as_slice(),
                Err(WrongContent::Zip),
            ),
            (
                b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1..",
                Err(WrongContent::OldExcel),
            ),
            (b"%PDF-1.7", Err(WrongContent::Pdf)),
            (b"\x1F\x8B\x08", Err(WrongContent::Gzip)),
            (b"\x28\xB5\x2F\xFD..", Err(WrongContent::Compressed("zstd"))),
            (b"  <!DOCTYPE html><html>", Err(WrongContent::Html)),
            (b"\xEF\xBB\xBF{\"name\": 1}", Err(WrongContent::Json)),
            (b"[{\"name\": 1}]", Err(WrongContent::Json)),
            (b"\x89PNG\r\n", Err(WrongContent::Binary)),
            (b"", Err(WrongContent::Empty)),
            (b"name,domain\n", Ok(())),
            (b"PKW,Preis\n", Ok(())),
            (b"\xFF\xFEn\0a\0", Ok(())),
        ] {
            assert_eq!(check_content(head), expected, "{head:?}");
        }
    }
}
