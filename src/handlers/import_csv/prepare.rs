//! Everything that is decided about a file before its first row is taken over.
//!
//! Blocking, and pure apart from the spool files. It reads the file twice: once for its checksum
//! and encoding, once to count its records; what has to be unpacked, once more. So a file that is
//! no CSV, cannot be mapped or breaks off inside of a quote is refused as a whole, with nothing of
//! it imported.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::content::{WrongContent, check_content};
use super::custom::Known;
use super::decode::{self, Decoded};
use super::dialect::{self, Dialect, Hints, SAMPLE_BYTES};
use super::mapping::{Mapping, MappingError};
use super::payload::ImportCsv;
use super::reader::{self, Census, Position, ReadError, RecordReader};
use super::template::{self, Template};
use super::unpack::{UnpackError, Unpacked, Workbook, unpack};

/// Rows that the automatic mapping looks at.
const EVIDENCE_ROWS: usize = 50;

/// A file that can be imported.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub sha256: String,
    pub bytes: u64,
    /// Present if the file is a workbook.
    pub workbook: Option<Workbook>,
    pub text: Decoded,
    pub dialect: Dialect,
    /// The header as it stands in the file, and how many columns it has.
    pub header: Vec<u8>,
    pub header_columns: usize,
    pub mapping: Mapping,
    /// What the mapping is from, if it is not from the payload.
    pub template: Option<Template>,
    /// Where the first data record starts.
    pub first: Position,
    pub census: Census,
}

/// Why a file cannot be imported, whatever is tried again.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("{0}")]
    Content(#[from] WrongContent),
    #[error("{0}")]
    Packed(UnpackError),
    #[error("{0}")]
    Format(ReadError),
    #[error("{0}")]
    Mapping(#[from] MappingError),
    #[error("read the file: {0}")]
    Io(#[from] io::Error),
    #[error("stopped")]
    Stopped,
}

impl From<UnpackError> for PrepareError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Io(error) => Self::Io(error),
            UnpackError::Stopped => Self::Stopped,
            UnpackError::Content(content) => Self::Content(content),
            other => Self::Packed(other),
        }
    }
}

impl From<ReadError> for PrepareError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            other => Self::Format(other),
        }
    }
}

/// Looks at the whole file. `go_on` is asked now and then and ends the work when it says no.
pub fn prepare(
    path: &Path,
    payload: &ImportCsv,
    known: &Known,
    spool: &Path,
    go_on: impl Fn() -> bool,
) -> Result<Prepared, PrepareError> {
    let Opened {
        sha256,
        bytes,
        text,
        unpacked,
    } = read_text(path, payload, spool, None, &go_on)?;
    let workbook = unpacked.and_then(|unpacked| unpacked.workbook);
    let dialect = find_dialect(&text, payload, workbook.is_some())?;
    let mut reader = open(&text, &dialect, dialect.header)?;
    if !reader.advance()? {
        return Err(MappingError::NoHeader.into());
    }
    let header = reader.raw().to_vec();
    let headers: Vec<String> = values(&reader);
    let first = Position {
        row: 0,
        ..reader.position()
    };
    let mut sample = Vec::new();
    let mut rows = open(&text, &dialect, first)?;
    while sample.len() < EVIDENCE_ROWS && rows.advance()? {
        sample.push(values(&rows));
    }
    let (mapping, template) = template::map(payload, &headers, &sample, known)?;
    mapping.check(payload.entity_type)?;
    let mut census = reader::census(&mut open(&text, &dialect, first)?, &go_on)?;
    if !go_on() {
        return Err(PrepareError::Stopped);
    }
    census.columns = census.columns.max(headers.len());
    Ok(Prepared {
        sha256,
        bytes,
        workbook,
        text,
        dialect,
        header,
        header_columns: headers.len(),
        mapping,
        template: template.cloned(),
        first,
        census,
    })
}

/// A file as text on disk.
pub(super) struct Opened {
    /// Of the file as it came.
    pub sha256: String,
    pub bytes: u64,
    pub text: Decoded,
    /// What the file had inside, if it was not text itself.
    pub unpacked: Option<Unpacked>,
}

/// Takes apart and decodes. Of what has to be unpacked, only about `most` bytes.
pub(super) fn read_text(
    path: &Path,
    payload: &ImportCsv,
    spool: &Path,
    most: Option<u64>,
    go_on: &dyn Fn() -> bool,
) -> Result<Opened, PrepareError> {
    let options = &payload.options;
    let mut survey = decode::survey(path)?;
    let (sha256, bytes) = (survey.sha256.clone(), survey.bytes);
    let out = spool.join("unpacked");
    let unpacked = unpack(path, &survey.head, options, &out, most, go_on)?;
    let mut label = options.encoding.as_deref();
    let mut path = path;
    if let Some(unpacked) = &unpacked {
        path = &unpacked.path;
        survey = decode::survey(path)?;
        label = label.filter(|_| unpacked.workbook.is_none());
    }
    if unpacked
        .as_ref()
        .is_none_or(|unpacked| unpacked.workbook.is_none())
    {
        check_content(&survey.head)?;
    }
    let text = decode::decode(path, &survey, label, &spool.join("decoded"))?;
    Ok(Opened {
        sha256,
        bytes,
        text,
        unpacked,
    })
}

/// A reader that stands at a position of the text.
pub fn open(
    text: &Decoded,
    dialect: &Dialect,
    position: Position,
) -> io::Result<RecordReader<BufReader<File>>> {
    let mut file = File::open(&text.path)?;
    file.seek(SeekFrom::Start(text.start + position.offset))?;
    Ok(RecordReader::new(BufReader::new(file), dialect, position))
}

pub(super) fn find_dialect(
    text: &Decoded,
    payload: &ImportCsv,
    is_sheet: bool,
) -> io::Result<Dialect> {
    let mut file = File::open(&text.path)?;
    file.seek(SeekFrom::Start(text.start))?;
    let mut sample = Vec::with_capacity(SAMPLE_BYTES);
    file.take(SAMPLE_BYTES as u64).read_to_end(&mut sample)?;
    let is_whole = text.bytes - text.start <= SAMPLE_BYTES as u64;
    let hints = Hints {
        delimiter: payload.options.delimiter,
        header_row: payload.options.header_row,
        is_sheet,
    };
    Ok(dialect::detect(&sample, is_whole, hints))
}

pub(super) fn values<R: Read>(reader: &RecordReader<R>) -> Vec<String> {
    (0..reader.columns())
        .map(|at| String::from_utf8_lossy(reader.field(at)).into_owned())
        .collect()
}
