//! From bytes of any encoding to UTF-8 text on disk.
//!
//! A byte order mark decides first, then the label that the user gave, then strict UTF-8 over the
//! *whole* file (a sample would miss the one `é` in row 400,000), then a guess by letter
//! statistics. UTF-8 is read in place. Everything else is written once, as UTF-8, to a spool file.
//!
//! Promises: constant memory, and the same bytes out for the same bytes in, so that a byte offset
//! noted before a crash is valid afterwards, also on another machine.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use sha2::{Digest, Sha256};

use super::content::HEAD_BYTES;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes with non-ASCII text that the guess looks at.
const GUESS_BYTES: usize = 2 * 1024 * 1024;
/// With this many sound multi-byte characters per broken one, a file is damaged UTF-8 rather than
/// a file in another encoding.
const SOUND_PER_BROKEN: u64 = 20;

/// What one pass over the raw file has found.
#[derive(Debug, Clone)]
pub struct Survey {
    pub bytes: u64,
    pub sha256: String,
    /// The first bytes, to recognise other formats.
    pub head: Vec<u8>,
    sound_multibyte: u64,
    broken: u64,
}

/// UTF-8 text on disk.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub path: PathBuf,
    /// Where the text starts: behind a byte order mark.
    pub start: u64,
    pub bytes: u64,
    /// The encoding of the original file.
    pub encoding: &'static str,
    /// Characters that could not be decoded and became U+FFFD.
    pub replaced: u64,
}

/// Reads the whole file once: length, checksum and whether it is UTF-8.
pub fn survey(path: &Path) -> io::Result<Survey> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut counter = Utf8Counter::default();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let mut buffer = vec![0_u8; READ_BYTES];
    let mut bytes = 0_u64;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        let chunk = &buffer[..n];
        hash.update(chunk);
        counter.feed(chunk);
        head.extend_from_slice(&chunk[..n.min(HEAD_BYTES - head.len())]);
        bytes += n as u64;
    }
    counter.finish();
    let sha256 = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let Utf8Counter {
        sound_multibyte,
        broken,
        ..
    } = counter;
    Ok(Survey {
        bytes,
        sha256,
        head,
        sound_multibyte,
        broken,
    })
}

/// Makes the text available as UTF-8; writes `spool` only if the file is something else.
///
/// `label` is the user's choice and was checked with the payload; an unknown one is ignored.
pub fn decode(
    path: &Path,
    survey: &Survey,
    label: Option<&str>,
    spool: &Path,
) -> io::Result<Decoded> {
    let chosen = label.and_then(|label| Encoding::for_label(label.as_bytes()));
    let (encoding, bom) = match (Encoding::for_bom(&survey.head), chosen) {
        (Some((encoding, length)), _) => (encoding, length),
        (None, Some(encoding)) => (encoding, 0),
        (None, None) => (guess(path, survey)?, 0),
    };
    if encoding == UTF_8 && survey.broken == 0 {
        return Ok(Decoded {
            path: path.to_owned(),
            start: bom as u64,
            bytes: survey.bytes,
            encoding: encoding.name(),
            replaced: 0,
        });
    }
    let (bytes, replaced) = transcode(path, encoding, bom, spool)?;
    Ok(Decoded {
        path: spool.to_owned(),
        start: 0,
        bytes,
        encoding: encoding.name(),
        replaced,
    })
}

fn guess(path: &Path, survey: &Survey) -> io::Result<&'static Encoding> {
    if let Some(encoding) = utf16_without_bom(&survey.head) {
        return Ok(encoding);
    }
    if survey.broken == 0 || survey.sound_multibyte >= survey.broken * SOUND_PER_BROKEN {
        return Ok(UTF_8);
    }
    let mut file = File::open(path)?;
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    let mut buffer = vec![0_u8; READ_BYTES];
    let mut fed = 0;
    while fed < GUESS_BYTES {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        // ASCII says nothing about the encoding; skipping it keeps the look bounded and cheap.
        if !buffer[..n].is_ascii() {
            detector.feed(&buffer[..n], false);
            fed += n;
        }
    }
    detector.feed(b"", true);
    Ok(detector.guess(None, Utf8Detection::Deny))
}

/// Spreadsheets write UTF-16 with a mark, scripts often without: then every other byte is NUL.
fn utf16_without_bom(head: &[u8]) -> Option<&'static Encoding> {
    let pairs = head.len() / 2;
    if pairs < 4 {
        return None;
    }
    let nul_at = |side: usize| head.chunks_exact(2).filter(|pair| pair[side] == 0).count();
    let (first, second) = (nul_at(0), nul_at(1));
    let many = pairs * 4 / 10;
    match (first > many, second > many) {
        (true, false) => Some(UTF_16BE),
        (false, true) => Some(UTF_16LE),
        (true, true) | (false, false) => None,
    }
}

/// Writes the file as UTF-8 to `spool`; returns its length and the count of replacements.
fn transcode(
    path: &Path,
    encoding: &'static Encoding,
    bom: usize,
    spool: &Path,
) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    io::copy(&mut (&mut file).take(bom as u64), &mut io::sink())?;
    let mut out = BufWriter::new(File::create(spool)?);
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut input = vec![0_u8; READ_BYTES];
    // Large enough for every character of the input chunk, whatever the encoding.
    let mut output = vec![0_u8; READ_BYTES * 3 + 16];
    let (mut bytes, mut replaced) = (0_u64, 0_u64);
    loop {
        let n = file.read(&mut input)?;
        let last = n == 0;
        let mut rest = &input[..n];
        loop {
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(rest, &mut output, last);
            out.write_all(&output[..written])?;
            bytes += written as u64;
            rest = &rest[read..];
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(_, _) => {
                    let mark = "\u{FFFD}".as_bytes();
                    out.write_all(mark)?;
                    bytes += mark.len() as u64;
                    replaced += 1;
                }
            }
        }
        if last {
            break;
        }
    }
    out.flush()?;
    Ok((bytes, replaced))
}

/// Counts sound multi-byte characters and broken sequences across chunk borders.
#[derive(Debug, Default)]
struct Utf8Counter {
    sound_multibyte: u64,
    broken: u64,
    /// The start of a character whose end is in the next chunk: at most three bytes.
    carry: Vec<u8>,
}

impl Utf8Counter {
    fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !self.carry.is_empty() && !rest.is_empty() {
            self.carry.push(rest[0]);
            rest = &rest[1..];
            match std::str::from_utf8(&self.carry) {
                Ok(_) => {
                    self.sound_multibyte += 1;
                    self.carry.clear();
                }
                Err(error) if error.error_len().is_some() => {
                    self.broken += 1;
                    // The byte that broke the sequence may begin the next character.
                    let last = self.carry.pop();
                    self.carry.clear();
                    if let Some(byte) = last {
                        self.feed(&[byte]);
                    }
                }
                Err(_) => {}
            }
        }
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.sound_multibyte += multibyte(text.as_bytes());
                    return;
                }
                Err(error) => {
                    self.sound_multibyte += multibyte(&rest[..error.valid_up_to()]);
                    let Some(length) = error.error_len() else {
                        self.carry.extend_from_slice(&rest[error.valid_up_to()..]);
                        return;
                    };
                    self.broken += 1;
                    rest = &rest[error.valid_up_to() + length..];
                }
            }
        }
    }

    fn finish(&mut self) {
        if !self.carry.is_empty() {
            self.broken += 1;
        }
    }
}

fn multibyte(sound: &[u8]) -> u64 {
    if sound.is_ascii() {
        return 0;
    }
    sound.iter().filter(|byte| **byte >= 0xC0).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], label: Option<&str>) -> (String, Decoded) {
        let dir = tempfile::tempdir().unwrap();
        let (path, spool) = (dir.path().join("in.csv"), dir.path().join("spool.csv"));
        std::fs::write(&path, bytes).unwrap();
        let survey = survey(&path).unwrap();
        let decoded = decode(&path, &survey, label, &spool).unwrap();
        let text = std::fs::read(&decoded.path).unwrap();
        let text = String::from_utf8(text[decoded.start as usize..].to_vec()).unwrap();
        (text, decoded)
    }

    fn utf16(text: &str, big: bool, bom: bool) -> Vec<u8> {
        let mark = bom.then_some(0xFEFF_u16);
        mark.into_iter()
            .chain(text.encode_utf16())
            .flat_map(|unit| {
                if big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    }

    #[test]
    fn every_encoding_ends_as_the_same_text() {
        let text = "Firma;Ort\r\nMüller & Söhne GmbH;Köln\r\nCafé Größenwahn;Zürich\r\n";
        let latin = encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
        let marked = [b"\xEF\xBB\xBF".as_slice(), text.as_bytes()].concat();
        for (bytes, label, name) in [
            (text.as_bytes().to_vec(), None, "UTF-8"),
            (marked, None, "UTF-8"),
            (latin.clone(), None, "windows-1252"),
            (latin, Some("windows-1252"), "windows-1252"),
            (utf16(text, false, true), None, "UTF-16LE"),
            (utf16(text, true, true), None, "UTF-16BE"),
            (utf16(text, false, false), None, "UTF-16LE"),
            (utf16(text, true, false), None, "UTF-16BE"),
        ] {
            let (found, decoded) = decoded(&bytes, label);
            assert_eq!(found, text, "{name}");
            assert_eq!((decoded.encoding, decoded.replaced), (name, 0));
        }
    }

    #[test]
    fn japanese_in_shift_jis_is_guessed() {
        let text = "会社名,ドメイン\n株式会社ソニー,sony.co.jp\nトヨタ自動車株式会社,toyota.jp\n";
        let (bytes, _, _) = encoding_rs::SHIFT_JIS.encode(text);
        let (found, decoded) = decoded(&bytes, None);
        assert_eq!((found.as_str(), decoded.encoding), (text, "Shift_JIS"));
    }

    #[test]
    fn one_broken_byte_does_not_turn_utf8_into_mojibake() {
        let mut bytes = "Größe,Maß\n".repeat(40).into_bytes();
        bytes.extend_from_slice(b"Stra\xDFe,1\n");
        let (found, decoded) = decoded(&bytes, None);
        assert_eq!((decoded.encoding, decoded.replaced), ("UTF-8", 1));
        assert!(found.starts_with("Größe,Maß\n") && found.ends_with("Stra\u{FFFD}e,1\n"));
    }

    #[test]
    fn characters_that_cross_a_chunk_border_are_counted_once() {
        let text = "aé€😀b".repeat(50);
        for size in 1..7 {
            let mut counter = Utf8Counter::default();
            text.as_bytes()
                .chunks(size)
                .for_each(|chunk| counter.feed(chunk));
            counter.finish();
            assert_eq!(
                (counter.sound_multibyte, counter.broken),
                (150, 0),
                "chunks of {size}"
            );
        }
        let mut counter = Utf8Counter::default();
        [b"a\xE2".as_slice(), b"\x82", b"x\xC3"]
            .iter()
            .for_each(|chunk| counter.feed(chunk));
        counter.finish();
        assert_eq!((counter.sound_multibyte, counter.broken), (0, 2));
    }

    #[test]
    fn decoding_twice_gives_the_same_bytes() {
        let bytes = encoding_rs::WINDOWS_1252
            .encode(&"é;à;1,5\n".repeat(99_999))
            .0
            .into_owned();
        let first = decoded(&bytes, None);
        let second = decoded(&bytes, None);
        assert_eq!(first.0, second.0);
        assert_eq!(first.1.bytes, second.1.bytes);
    }
}
