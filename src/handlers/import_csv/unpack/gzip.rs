//! What is inside of a gzip file, of one member or several behind each other.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::{Limits, UnpackError, Unpacked};

/// Bytes at a time.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) fn unpack(
    path: &Path,
    out: &Path,
    limits: &Limits<'_>,
) -> Result<Unpacked, UnpackError> {
    let input = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    let mut decoder = MultiGzDecoder::new(input);
    let mut output = BufWriter::new(File::create(out)?);
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut bytes = 0_u64;
    let is_whole = loop {
        let n = match decoder.read(&mut chunk) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if is_damage(error.kind()) => {
                return Err(UnpackError::Damaged(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        if n == 0 {
            break true;
        }
        bytes += n as u64;
        limits.check(bytes)?;
        output.write_all(&chunk[..n])?;
        if limits.is_enough(bytes) {
            break false;
        }
    };
    output.flush()?;
    Ok(Unpacked {
        path: out.to_owned(),
        is_whole,
        workbook: None,
    })
}

/// What the bytes are to blame for, and not the disk.
pub(super) fn is_damage(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | UnexpectedEof)
}
