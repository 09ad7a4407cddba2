//! Looks at the parts of a workbook before its reader does.
//!
//! A workbook is an archive of XML parts. Its directory may lie about their sizes, and the reader
//! of the cells holds texts and single tags in memory: so every part is unpacked once into nothing,
//! and counted.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::gzip::is_damage;
use super::{Limits, STRINGS_BYTES_MAX, UnpackError};
use crate::handlers::import_csv::content::WrongContent;
use crate::handlers::import_csv::reader::RECORD_BYTES_MAX;

/// Most parts. A large workbook has a few hundred.
const PARTS_MAX: usize = 10_000;
/// Bytes at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Where the parts of a workbook are, and not those of other documents.
const WORKBOOK: &str = "xl/";
/// Parts that the reader holds as a whole.
const HELD: [&str; 4] = ["sharedstrings.xml", "styles.xml", "workbook.xml", ".rels"];

pub(super) fn check(path: &Path, limits: &Limits<'_>) -> Result<(), UnpackError> {
    let unreadable = |error: zip::result::ZipError| UnpackError::Unreadable(error.to_string());
    let file = BufReader::new(File::open(path)?);
    let mut archive = zip::ZipArchive::new(file).map_err(unreadable)?;
    if archive.len() > PARTS_MAX {
        return Err(UnpackError::Unreadable(format!(
            "it has more than {PARTS_MAX} parts"
        )));
    }
    let mut names = archive.file_names().flatten();
    if !names.any(|name| name.to_ascii_lowercase().starts_with(WORKBOOK)) {
        return Err(WrongContent::Zip.into());
    }
    drop(names);
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut bytes = 0_u64;
    for at in 0..archive.len() {
        let mut part = archive.by_index(at).map_err(unreadable)?;
        let name = part.name().map_err(unreadable)?.to_ascii_lowercase();
        // Pictures and the like are not looked at by anybody.
        if !matches!(name.rsplit('.').next(), Some("xml" | "rels")) {
            continue;
        }
        let is_held = HELD.iter().any(|held| name.ends_with(held));
        let (mut own, mut piece) = (0_u64, 0_usize);
        loop {
            let n = match part.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if is_damage(error.kind()) => {
                    return Err(UnpackError::Unreadable(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            };
            bytes += n as u64;
            own += n as u64;
            limits.check(bytes)?;
            if is_held && own > STRINGS_BYTES_MAX {
                return Err(UnpackError::TooManyTexts);
            }
            // From one tag to the next: what the reader holds at a time.
            for part in chunk[..n].split_inclusive(|byte| *byte == b'<') {
                piece = match part.ends_with(b"<") {
                    true => 0,
                    false => piece + part.len(),
                };
                if piece > RECORD_BYTES_MAX {
                    return Err(UnpackError::Unreadable("a value is too long".to_owned()));
                }
            }
        }
    }
    Ok(())
}
