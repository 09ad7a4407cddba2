use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook as Writer};

use super::*;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn unpacked(
    dir: &Path,
    bytes: &[u8],
    options: &str,
    most: Option<u64>,
) -> Result<(String, Unpacked), UnpackError> {
    let (path, out) = (dir.join("in"), dir.join("out"));
    std::fs::write(&path, bytes).unwrap();
    let options = serde_json::from_str(options).unwrap();
    let head = &bytes[..bytes.len().min(8)];
    let unpacked = unpack(&path, head, &options, &out, most, &|| true)?.unwrap();
    Ok((std::fs::read_to_string(&out).unwrap(), unpacked))
}

fn whole(bytes: &[u8]) -> Result<String, UnpackError> {
    let dir = tempfile::tempdir().unwrap();
    unpacked(dir.path(), bytes, "{}", None).map(|(text, _)| text)
}

#[test]
fn gzip_files_of_one_and_of_several_members_are_read() {
    assert_eq!(whole(&gz(b"name\nA\n")).unwrap(), "name\nA\n");
    let two = [gz(b"name\nA\n"), gz(b"B\n")].concat();
    assert_eq!(whole(&two).unwrap(), "name\nA\nB\n");
}

#[test]
fn a_gzip_file_that_is_damaged_or_cut_off_is_refused() {
    let packed = gz("name\nAcme\n".repeat(1000).as_bytes());
    let mut broken = packed.clone();
    let end = broken.len() - 6;
    broken[end] ^= 0xFF;
    for bytes in [&packed[..packed.len() / 2], &packed[..3], &broken] {
        let error = whole(bytes).unwrap_err();
        assert!(matches!(error, UnpackError::Damaged(_)), "{error}");
    }
}

#[test]
fn a_bomb_is_refused_before_the_disk_is_full() {
    let zeros = vec![0_u8; RATIO_FREE_BYTES as usize + 2 * 1024 * 1024];
    let dir = tempfile::tempdir().unwrap();
    let error = unpacked(dir.path(), &gz(&zeros), "{}", None).unwrap_err();
    assert!(matches!(error, UnpackError::TooDense), "{error}");
    let written = std::fs::metadata(dir.path().join("out")).unwrap().len();
    assert!(written <= RATIO_FREE_BYTES + 1024 * 1024);
}

#[test]
fn no_more_is_unpacked_than_is_wanted_or_while_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let packed = gz(&vec![b'x'; 3 * 1024 * 1024]);
    let (text, found) = unpacked(dir.path(), &packed, "{}", Some(1024 * 1024)).unwrap();
    assert!(!found.is_whole && text.len() < 2 * 1024 * 1024);
    let (path, out) = (dir.path().join("in"), dir.path().join("out"));
    let stopped = unpack(
        &path,
        &packed[..8],
        &ImportOptions::default(),
        &out,
        None,
        &|| false,
    );
    assert!(matches!(stopped, Err(UnpackError::Stopped)));
}

fn book() -> Vec<u8> {
    let mut book = Writer::new();
    let sheet = book.add_worksheet().set_name("Leads").unwrap();
    sheet.write(0, 0, "Our leads, 2024").unwrap();
    for (at, header) in [
        "Name", "Since", "Zip", "Share", "Active", "Note", "Sum", "Count",
    ]
    .into_iter()
    .enumerate()
    {
        sheet.write(2, at as u16, header).unwrap();
    }
    sheet.write(3, 0, "Acme, Inc. \"A\"").unwrap();
    let date = Format::new().set_num_format("dd.mm.yyyy");
    let day = ExcelDateTime::from_ymd(2024, 3, 1).unwrap();
    sheet.write_with_format(3, 1, day, &date).unwrap();
    let zip = Format::new().set_num_format("00000");
    sheet.write_with_format(3, 2, 1234, &zip).unwrap();
    let percent = Format::new().set_num_format("0%");
    sheet.write_with_format(3, 3, 0.25, &percent).unwrap();
    sheet.write(3, 4, true).unwrap();
    sheet.write(3, 5, "two\nlines").unwrap();
    sheet
        .write(3, 6, Formula::new("1+1").set_result("2"))
        .unwrap();
    sheet.write(3, 7, 491_701_234_567_i64).unwrap();
    sheet
        .merge_range(5, 0, 5, 1, "Beta", &Format::new())
        .unwrap();
    book.add_worksheet().set_name("Empty").unwrap();
    let hidden = book.add_worksheet().set_name("Old").unwrap();
    hidden.set_hidden(true);
    hidden.write(0, 0, "Name").unwrap();
    book.save_to_buffer().unwrap()
}

#[test]
fn a_sheet_becomes_rows_as_people_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let (text, found) = unpacked(dir.path(), &book(), "{}", None).unwrap();
    assert_eq!(
        text,
        "\"Our leads, 2024\"\n\nName,Since,Zip,Share,Active,Note,Sum,Count\n\
         \"Acme, Inc. \"\"A\"\"\",2024-03-01,01234,25%,TRUE,\"two\nlines\",2,491701234567\n\
         \nBeta,,,,,,,\n"
    );
    let workbook = found.workbook.unwrap();
    assert_eq!(workbook.sheet, "Leads");
    assert_eq!(workbook.sheets, ["Leads", "Empty", "Old"]);
}

#[test]
fn a_sheet_can_be_named_and_one_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (text, _) = unpacked(dir.path(), &book(), r#"{"sheet": "old"}"#, None).unwrap();
    assert_eq!(text, "Name\n");
    let error = unpacked(dir.path(), &book(), r#"{"sheet": "New"}"#, None).unwrap_err();
    let words = "the workbook has no sheet `New`; it has: Leads, Empty, Old";
    assert_eq!(error.to_string(), words);
}

#[test]
fn an_archive_that_is_no_workbook_is_refused() {
    let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    archive.start_file("list.csv", options).unwrap();
    archive.write_all(b"name\nA\n").unwrap();
    let bytes = archive.finish().unwrap().into_inner();
    let error = whole(&bytes).unwrap_err();
    assert!(
        matches!(error, UnpackError::Content(WrongContent::Zip)),
        "{error}"
    );
}

#[test]
fn a_workbook_with_a_damaged_part_or_a_cell_far_away_is_refused() {
    let packed = book();
    let half = whole(&packed[..packed.len() / 2]).unwrap_err();
    assert!(matches!(half, UnpackError::Unreadable(_)), "{half}");
    let mut wide = Writer::new();
    wide.add_worksheet().write(1, 5000, "x").unwrap();
    let error = whole(&wide.save_to_buffer().unwrap()).unwrap_err();
    assert!(matches!(error, UnpackError::TooWide { row: 2 }), "{error}");
    // A row that is far down costs a byte per row and nothing else.
    let mut deep = Writer::new();
    deep.add_worksheet().write(1_000_000, 0, "x").unwrap();
    assert_eq!(
        whole(&deep.save_to_buffer().unwrap()).unwrap().len(),
        1_000_002
    );
}

#[test]
fn a_workbook_bomb_is_refused() {
    let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(9));
    archive.start_file("xl/workbook.xml", options).unwrap();
    archive.write_all(b"<workbook/>").unwrap();
    archive.start_file("xl/sharedStrings.xml", options).unwrap();
    let tags = format!("<t>{}</t>", "a".repeat(4096)).repeat(400);
    for _ in 0..50 {
        archive.write_all(tags.as_bytes()).unwrap();
    }
    let bytes = archive.finish().unwrap().into_inner();
    let error = whole(&bytes).unwrap_err();
    let size = bytes.len();
    assert!(
        matches!(error, UnpackError::TooDense),
        "{size} bytes: {error}"
    );
}

/// A workbook whose first sheet says something else than its writer would.
fn forged(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(bytes)).unwrap();
    let mut written = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for at in 0..archive.len() {
        let mut part = archive.by_index(at).unwrap();
        let name = part.name().unwrap().into_owned();
        let mut text = String::new();
        part.read_to_string(&mut text).unwrap();
        if name == "xl/worksheets/sheet1.xml" {
            assert!(text.contains(from), "{text}");
            text = text.replace(from, to);
        }
        let options = zip::write::SimpleFileOptions::default();
        written.start_file(name, options).unwrap();
        written.write_all(text.as_bytes()).unwrap();
    }
    written.finish().unwrap().into_inner()
}

#[test]
fn a_row_that_no_sheet_can_have_does_not_fill_the_disk() {
    let mut book = Writer::new();
    book.add_worksheet().write(5, 0, 7).unwrap();
    let bytes = forged(
        book.save_to_buffer().unwrap(),
        "<c r=\"A6\"",
        "<c r=\"A4000000000\"",
    );
    let dir = tempfile::tempdir().unwrap();
    let error = unpacked(dir.path(), &bytes, "{}", None).unwrap_err();
    assert!(
        error.to_string().contains("more than 1048576 rows"),
        "{error}"
    );
    let out = std::fs::metadata(dir.path().join("out"));
    assert!(out.map_or(0, |out| out.len()) < 1024);
}
