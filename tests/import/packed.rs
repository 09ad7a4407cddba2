//! Files that have the table inside: `.csv.gz` and workbooks.

use std::io::Write as _;

use bullwark::job::JobError;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};
use serde_json::json;

use crate::resume::{dies_again_and_again, file};
use crate::support::World;

fn gz(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes.as_ref()).unwrap();
    packed.finish().unwrap()
}

/// The records of a text as the rows of a sheet, perhaps behind an empty one.
fn book(text: &str, cover: Option<&str>) -> Vec<u8> {
    let mut book = Workbook::new();
    if let Some(cover) = cover {
        book.add_worksheet().set_name(cover).unwrap();
    }
    let sheet = book.add_worksheet().set_name("Leads").unwrap();
    let mut records = csv::ReaderBuilder::new();
    let mut records = records.has_headers(false).from_reader(text.as_bytes());
    for (row, record) in records.records().enumerate() {
        for (column, value) in record.unwrap().iter().enumerate() {
            let (row, column) = (u32::try_from(row).unwrap(), u16::try_from(column).unwrap());
            sheet.write(row, column, value).unwrap();
        }
    }
    book.save_to_buffer().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_a_gzip_file_goes_on_with_the_next_row() {
    dies_again_and_again(gz(file())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_a_workbook_goes_on_with_the_next_row() {
    dies_again_and_again(book(&file(), None)).await;
}

#[tokio::test]
async fn a_gzip_file_is_imported_as_the_text_inside() {
    let world = World::new().await;
    let (text, _, _) = encoding_rs::WINDOWS_1252.encode("Firma;Web\nMüller;mueller.de\n;x.de\n");
    let url = world.upload(gz(&text)).await;
    let payload = json!({"file_url": url, "entity_type": "accounts"});
    let summary = world.run(payload).await.unwrap();
    assert_eq!((summary.inserted, summary.failed), (1, 1));
    assert_eq!(
        (summary.encoding, summary.delimiter),
        ("windows-1252", "semicolon")
    );
    assert!(world.report(&summary).contains("\n;x.de;2;failed;"));
    let names = world.texts("SELECT name FROM accounts").await;
    assert_eq!(names, ["Müller"]);
}

#[tokio::test]
async fn a_workbook_is_imported_from_the_named_sheet_with_values_as_people_see_them() {
    let world = World::new().await;
    let mut book = Workbook::new();
    book.add_worksheet().write(0, 0, "nothing").unwrap();
    let sheet = book.add_worksheet().set_name("Kunden").unwrap();
    for (at, header) in [
        "name",
        "employees",
        "custom.since",
        "custom.zip",
        "custom.vip",
    ]
    .into_iter()
    .enumerate()
    {
        sheet.write(1, at as u16, header).unwrap();
    }
    sheet.write(2, 0, "Acme, Inc.").unwrap();
    sheet.write(2, 1, 1_200).unwrap();
    let day = Format::new().set_num_format("dd.mm.yyyy");
    let date = ExcelDateTime::from_ymd(2024, 3, 1).unwrap();
    sheet.write_with_format(2, 2, date, &day).unwrap();
    let zip = Format::new().set_num_format("00000");
    sheet.write_with_format(2, 3, 1234, &zip).unwrap();
    sheet.write(2, 4, true).unwrap();
    sheet.write(4, 0, "Beta").unwrap();
    sheet.write(4, 1, "many").unwrap();
    let url = world.upload(book.save_to_buffer().unwrap()).await;
    let payload = json!({
        "file_url": url, "entity_type": "accounts", "options": {"sheet": "kunden"},
    });
    let summary = world.run(payload).await.unwrap();
    assert_eq!((summary.total, summary.inserted), (2, 1));
    let row: serde_json::Value = world
        .one(
            "SELECT jsonb_build_array(name, employee_count, custom -> 'since', custom -> 'zip',
               custom -> 'vip') FROM accounts",
        )
        .await;
    assert_eq!(
        row,
        json!(["Acme, Inc.", 1200, "2024-03-01", "01234", "TRUE"])
    );
    // The line of a rejected row is the number that the spreadsheet shows.
    let line: i64 = world
        .one("SELECT line_no FROM import_rows WHERE outcome = 'failed'")
        .await;
    assert_eq!(line, 5);
    assert!(world.report(&summary).contains("\nBeta,many,,,,2,failed,"));
}

#[tokio::test]
async fn packed_files_that_cannot_be_read_fail_at_once_and_say_why() {
    let world = World::new().await;
    let whole = gz(file());
    let zeros = gz(vec![b'\n'; 70 * 1024 * 1024]);
    for (bytes, message) in [
        (whole[..whole.len() / 2].to_vec(), "damaged or not complete"),
        (zeros, "grows to more than 200 times its size"),
        (gz(gz("name\nAcme\n")), "gzip, twice"),
        (gz("%PDF-1.7"), "PDF"),
        (
            book("name\nAcme\n", Some("Cover"))[..900].to_vec(),
            "the workbook cannot be read",
        ),
        (
            book("name\nAcme\n", Some("Cover")),
            "the workbook has no sheet `Accounts`; it has: Cover, Leads",
        ),
    ] {
        let payload = json!({
            "file_url": world.upload(bytes).await, "entity_type": "accounts",
            "options": {"sheet": "Accounts"},
        });
        match world.run(payload).await {
            Err(JobError::Permanent(found)) => assert!(found.contains(message), "{found}"),
            other => panic!("{message}: {other:?}"),
        }
    }
    assert_eq!(world.one::<i64>("SELECT count(*) FROM accounts").await, 0);
    assert_eq!(world.one::<i64>("SELECT count(*) FROM imports").await, 0);
    let work = std::fs::read_dir(world.dir.path().join("work")).unwrap();
    assert_eq!(work.count(), 0, "no work file stays");
}
