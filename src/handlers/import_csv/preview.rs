//! A look at a file before it is imported: how it would be read, and what would become of its rows.
//!
//! The same code decides as for the import itself, so what is shown is what will happen; only that
//! of a large file no more than the first [`LOOKED_AT_BYTES`] are looked at. Nothing is written but
//! a copy of these bytes, which goes with the look. Refuses what is no table, and mappings
//! that name what is not there; a mapping that lacks something is shown with the words about it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use super::cells::Warnings;
use super::choices::number_format;
use super::confidence::{Evidence, Proposal};
use super::country;
use super::custom::{self, Known};
use super::decode::Decoded;
use super::dialect::Dialect;
use super::fields;
use super::issue::Issue;
use super::mapping::{Column, Mapping, MappingError, Reason, Target};
use super::normalize;
use super::payload::{EntityType, ImportCsv};
use super::prepare::{self, PrepareError};
use super::reader::{Position, ReadError, RecordReader};
use super::template;
use super::unpack::{self, Workbook};
use super::validate::Validator;
use crate::handlers::spool::Spool;
use crate::job::JobError;
use crate::uploads::Found;

/// Bytes of the file that are looked at, from its beginning. An even number: a character of UTF-16
/// is not cut.
const LOOKED_AT_BYTES: u64 = 8 * 1024 * 1024;
/// The longest look.
const LOOK_MAX: Duration = Duration::from_secs(20);
/// How the directory of a look is called, and when one is taken for left behind.
const SPOOL: &str = "preview-";
const LEFT_AFTER_SECONDS: u64 = 3600;
/// Rows that are shown.
const ROWS: usize = 20;
/// Rows by which columns are guessed.
const EVIDENCE_ROWS: usize = 50;
/// Values that are shown of a column.
const VALUES: usize = 5;
/// Characters of a value, and cells of a row, that are shown.
const VALUE_MAX: usize = 200;
const CELLS_MAX: usize = 200;

/// Why there is nothing to show: the words of the import itself.
pub type PreviewError = PrepareError;

/// How a file would be imported.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Preview {
    /// The sheet of a workbook that was looked at, and all that it has.
    pub sheet: Option<String>,
    pub sheets: Vec<String>,
    pub encoding: &'static str,
    /// Characters that the encoding could not express.
    pub replaced_characters: u64,
    pub delimiter: &'static str,
    pub quote: char,
    /// The physical line of the header, counted from 1.
    pub header_line: u64,
    /// Rows behind the header, of what was looked at.
    pub rows: u64,
    /// The whole file was looked at; else it has more rows.
    pub is_whole: bool,
    /// Of the headers: a template that is saved for them goes for every file that has it.
    pub fingerprint: String,
    /// The template that the mapping is from.
    pub template: Option<PreviewTemplate>,
    pub columns: Vec<PreviewColumn>,
    /// What a column may be mapped to: fields, declared custom fields, and any other
    /// `custom.NAME`.
    pub fields: Vec<String>,
    /// Fields of which one is needed.
    pub required_any: Vec<&'static str>,
    pub sample: Vec<PreviewRow>,
    /// Of the sampled rows, those that would be refused.
    pub refused_rows: usize,
    /// Why the file can not be imported like this; none: it can.
    pub problem: Option<String>,
}

/// A template of the workspace.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PreviewTemplate {
    pub id: Uuid,
    pub name: String,
}

/// A column of the file, and where its values would go.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PreviewColumn {
    pub header: String,
    /// A field, or `custom.NAME`; none: it is left out.
    pub target: Option<String>,
    /// Why: `explicit`, `template`, `exact`, `synonym`, `similar`, `values`, or `ignored`.
    pub reason: Reason,
    /// How sure that is, from 0 to 1, by the name and the values of the column.
    pub confidence: f64,
    /// Of a column that nothing is said of, what it may be, best first.
    pub proposals: Vec<Proposal>,
    /// The first different values.
    pub values: Vec<String>,
}

/// A row of the file, as it stands there.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PreviewRow {
    pub line: u64,
    pub values: Vec<String>,
    /// Why it would be refused.
    pub issues: Vec<Issue>,
}

/// Looks at a file, beside other work. Files of the look are below `data_dir`, and go with it; what
/// a crash leaves goes with a later look.
///
/// The look goes on when nobody waits for it any more; `turn` is given back at its end.
pub async fn preview(
    found: Found,
    payload: ImportCsv,
    known: Known,
    data_dir: &Path,
    turn: impl Send + 'static,
) -> Result<Preview, PreviewError> {
    let work = data_dir.join("work");
    let made = tokio::task::spawn_blocking(move || {
        remove_old(&work);
        Spool::create(work.join(format!("{SPOOL}{}", Uuid::now_v7())))
    });
    let spool = made
        .await
        .unwrap_or_else(|error| Err(JobError::retry(error)));
    let spool = spool.map_err(|error| io::Error::other(error.to_string()))?;
    let path = here(found, &spool.path).await?;
    let looking = tokio::task::spawn_blocking(move || {
        let (_turn, spool) = (turn, spool);
        let begun = Instant::now();
        let go_on = || begun.elapsed() < LOOK_MAX;
        look(&path, &payload, &known, &spool.path, &go_on)
    });
    looking.await.unwrap_or(Err(PreviewError::Stopped))
}

/// Where the file is, or a copy of as much of it as is looked at. Of a packed one its beginning
/// alone is of no use.
async fn here(found: Found, dir: &Path) -> Result<PathBuf, PreviewError> {
    let beginning = found.bring_beginning(dir, LOOKED_AT_BYTES + 1).await?;
    Ok(match unpack::is_packed(&beginning)? {
        true => found.bring(dir).await?,
        false => beginning,
    })
}

/// Removes what looks left whose process ended in the middle.
fn remove_old(work: &Path) {
    let Ok(entries) = std::fs::read_dir(work) else {
        return;
    };
    let now = crate::clock::now_ms().cast_unsigned() / 1000;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(SPOOL));
        let id: Option<Uuid> = id.and_then(|id| id.parse().ok());
        let made = id.and_then(|id| id.get_timestamp());
        if made.is_some_and(|made| made.to_unix().0 + LEFT_AFTER_SECONDS < now)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "not removed");
        }
    }
}

/// `spool` is a directory that the caller removes. `go_on` is asked now and then and ends the work
/// when it says no.
fn look(
    path: &Path,
    payload: &ImportCsv,
    known: &Known,
    spool: &Path,
    go_on: &dyn Fn() -> bool,
) -> Result<Preview, PreviewError> {
    let head = spool.join("head");
    let mut is_whole = std::fs::metadata(path)?.len() <= LOOKED_AT_BYTES;
    let mut path = path;
    if unpack::is_packed(path)? {
        // Its beginning alone is of no use; what is inside is cut off instead.
        is_whole = true;
    } else if !is_whole {
        let mut file = File::open(path)?.take(LOOKED_AT_BYTES);
        io::copy(&mut file, &mut File::create(&head)?)?;
        path = &head;
    }
    let opened = prepare::read_text(path, payload, spool, Some(LOOKED_AT_BYTES), go_on)?;
    is_whole &= opened
        .unpacked
        .as_ref()
        .is_none_or(|unpacked| unpacked.is_whole);
    let workbook = opened.unpacked.and_then(|unpacked| unpacked.workbook);
    let dialect = prepare::find_dialect(&opened.text, payload, workbook.is_some())?;
    let look = Look {
        text: &opened.text,
        dialect: &dialect,
        workbook,
        is_whole,
    };
    look.show(payload, known, go_on)
}

struct Look<'a> {
    text: &'a Decoded,
    dialect: &'a Dialect,
    workbook: Option<Workbook>,
    is_whole: bool,
}

impl Look<'_> {
    fn show(
        &self,
        payload: &ImportCsv,
        known: &Known,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Preview, PreviewError> {
        let entity = payload.entity_type;
        let mut reader = prepare::open(self.text, self.dialect, self.dialect.header)?;
        if !reader.advance()? {
            return Err(MappingError::NoHeader.into());
        }
        let headers = prepare::values(&reader);
        let (header_line, first) = (reader.line(), reader.position());
        let first = Position { row: 0, ..first };
        let evidence = self.evidence(first)?;
        let (mapping, template) = template::map(payload, &headers, &evidence, known)?;
        let sample = self.sample(payload, &mapping, first)?;
        let said = template.map_or(&payload.mapping, |template| &template.mapping);
        let country = payload.options.default_country.as_deref();
        let sure = Evidence {
            entity,
            rows: &evidence,
            format: number_format(payload, self.dialect),
            dial: country.and_then(country::by_code).map_or("", |c| c.dial),
        };
        let columns = 0..mapping.columns.len();
        Ok(Preview {
            sheet: self.workbook.as_ref().map(|book| book.sheet.clone()),
            sheets: self
                .workbook
                .as_ref()
                .map_or_else(Vec::new, |book| book.sheets.clone()),
            encoding: self.text.encoding,
            replaced_characters: self.text.replaced,
            delimiter: self.dialect.delimiter_name(),
            quote: char::from(self.dialect.quote),
            header_line,
            rows: self.count(first, go_on)?,
            is_whole: self.is_whole,
            fingerprint: template::fingerprint(&headers),
            template: template.map(|template| PreviewTemplate {
                id: template.id,
                name: template.name.clone(),
            }),
            columns: columns
                .map(|at| shown(&mapping.columns, at, &sure, said))
                .collect(),
            fields: fields::fields_of(entity)
                .iter()
                .map(|def| def.name.to_owned())
                .chain(custom::names(&known.kinds))
                .collect(),
            required_any: fields::required_of(entity)
                .iter()
                .filter_map(|field| fields::def_of(entity, *field))
                .map(|def| def.name)
                .collect(),
            refused_rows: sample.iter().filter(|row| !row.issues.is_empty()).count(),
            sample,
            problem: mapping.check(entity).err().map(|error| error.to_string()),
        })
    }

    fn evidence(&self, first: Position) -> Result<Vec<Vec<String>>, PreviewError> {
        let mut rows = prepare::open(self.text, self.dialect, first)?;
        let mut evidence = Vec::new();
        while evidence.len() < EVIDENCE_ROWS && self.advance(&mut rows)? {
            evidence.push(prepare::values(&rows));
        }
        Ok(evidence)
    }

    /// The next record. The last one that was looked at of a large file may be cut off: it does not
    /// count.
    fn advance<R: Read>(&self, rows: &mut RecordReader<R>) -> Result<bool, PreviewError> {
        match rows.advance() {
            Err(ReadError::Io(error)) => Err(error.into()),
            Err(_) if !self.is_whole => Ok(false),
            other => Ok(other?),
        }
    }

    fn sample(
        &self,
        payload: &ImportCsv,
        mapping: &Mapping,
        first: Position,
    ) -> Result<Vec<PreviewRow>, PreviewError> {
        let options = &payload.options;
        let country = options.default_country.as_deref();
        let number_format = number_format(payload, self.dialect);
        let validator = Validator::new(payload.entity_type, mapping, number_format, country);
        let mut warnings = Warnings::default();
        let mut rows = prepare::open(self.text, self.dialect, first)?;
        let mut sample = Vec::new();
        while sample.len() < ROWS && self.advance(&mut rows)? {
            let cells: Vec<&[u8]> = (0..rows.columns()).map(|at| rows.field(at)).collect();
            let issues = match payload.entity_type {
                EntityType::Accounts => validator.account(&cells, &mut warnings).err(),
                EntityType::Contacts => validator.contact(&cells, &mut warnings).err(),
            };
            let values = prepare::values(&rows);
            sample.push(PreviewRow {
                line: rows.line(),
                values: values.iter().take(CELLS_MAX).map(|v| cut(v)).collect(),
                issues: issues.unwrap_or_default(),
            });
        }
        Ok(sample)
    }

    fn count(&self, first: Position, go_on: &dyn Fn() -> bool) -> Result<u64, PreviewError> {
        let mut rows = prepare::open(self.text, self.dialect, first)?;
        let mut count = 0_u64;
        while self.advance(&mut rows)? {
            count += 1;
            if count.is_multiple_of(4096) && !go_on() {
                return Err(PreviewError::Stopped);
            }
        }
        // The last one may be cut off without a sign of it.
        Ok(match self.is_whole {
            true => count,
            false => count.saturating_sub(1),
        })
    }
}

fn shown(
    columns: &[Column],
    at: usize,
    sure: &Evidence<'_>,
    said: &BTreeMap<String, String>,
) -> PreviewColumn {
    let column = &columns[at];
    let mut values: Vec<String> = Vec::new();
    for value in sure.rows.iter().filter_map(|row| row.get(at)) {
        let value = cut(value.trim());
        if !value.is_empty() && values.len() < VALUES && !values.contains(&value) {
            values.push(value);
        }
    }
    let target = match &column.target {
        Target::Field(field) => fields::def_of(sure.entity, *field).map(|def| def.name.to_owned()),
        Target::Custom(name) => Some(format!("custom.{name}")),
        Target::Ignored => None,
    };
    let folded = normalize::fold(&column.header);
    let is_open = target.is_none() && !said.keys().any(|name| normalize::fold(name) == folded);
    PreviewColumn {
        header: column.header.clone(),
        target,
        reason: column.reason,
        confidence: sure.of_column(column, at),
        proposals: match is_open {
            true => sure.proposals(columns, at),
            false => Vec::new(),
        },
        values,
    }
}

fn cut(value: &str) -> String {
    value.chars().take(VALUE_MAX).collect()
}

#[cfg(test)]
mod tests;
