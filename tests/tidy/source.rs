//! The texts that are checked, and Rust code without its comments and strings.

use std::path::{Path, PathBuf};

/// One file, with its path from the repository's root.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The top-level module: `broker` for `src/broker/claim.rs`, `clock` for `src/clock.rs`.
    pub(crate) fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }

    /// The file's name without its extension.
    pub(crate) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split_once('.').map_or(name, |(stem, _)| stem)
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The files below some folders that end in `extension`, sorted; folders that do not exist are
/// empty.
pub(crate) fn files(folders: &[&str], extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), extension, &mut found);
    }
    found.sort_by(|a: &Source, b: &Source| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if hidden || path.ends_with("node_modules") {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, found);
        } else if extension.is_empty() || path.extension().is_some_and(|found| found == extension) {
            let text = std::fs::read(&path).unwrap();
            let relative = path.strip_prefix(root()).unwrap().to_str().unwrap();
            found.push(Source::new(relative, &String::from_utf8_lossy(&text)));
        }
    }
}

/// Blanks comments, texts and characters; every other character keeps its line and column.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_blank(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        for c in &chars[at..end.min(chars.len())] {
            code.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    code
}

/// Where the comment, text or character literal that starts at `at` ends; `at` if none does.
fn end_of_blank(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied();
    match chars[at] {
        '/' if next(1) == Some('/') => find(chars, at, "\n"),
        '/' if next(1) == Some('*') => end_of_block_comment(chars, at),
        '"' => end_of_quoted(chars, at, '"'),
        'r' if !follows_word(chars, at) => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if next(1 + hashes) != Some('"') {
                return at;
            }
            let close = format!("\"{}", "#".repeat(hashes));
            find(chars, at + 2 + hashes, &close) + close.len()
        }
        '\'' if next(1) == Some('\\') => end_of_quoted(chars, at, '\''),
        // A lifetime has no second quote right after its first character.
        '\'' if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn follows_word(chars: &[char], at: usize) -> bool {
    // `br"…"` is a raw text, `attr"…"` is not.
    let before = at.checked_sub(1).map(|before| chars[before]);
    before.is_some_and(|c| (c.is_alphanumeric() || c == '_') && c != 'b' && c != 'c')
}

fn find(chars: &[char], from: usize, wanted: &str) -> usize {
    let wanted: Vec<char> = wanted.chars().collect();
    let rest = chars.get(from..).unwrap_or_default();
    let found = rest
        .windows(wanted.len())
        .position(|window| window == wanted);
    found.map_or(chars.len(), |offset| from + offset)
}

fn end_of_quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != quote {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

fn end_of_block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0, at);
    while end < chars.len() {
        match (chars[end], chars.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            return end;
        }
    }
    end
}

/// The places where `word` stands alone, as byte offsets.
pub(crate) fn word_places(code: &str, word: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: &usize| {
        !code[..*at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    };
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(alone)
        .collect()
}

/// The line number of a byte offset.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[test]
fn comments_and_texts_are_blanked_and_nothing_else() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x \" y", z)"#, "f(        , z)"),
        ("r#\"a\"b\"# c", "         c"),
        ("br\"a\\\" c", "b      c"),
        ("attr\"x\"", "attr   "),
        ("'\\'' 'x' &'a str", "         &'a str"),
        ("'\"' x", "    x"),
        ("\"a\nb\" c", "  \n   c"),
    ] {
        assert_eq!(code_only(text), expected, "{text}");
    }
}

#[test]
fn a_word_counts_only_when_it_stands_alone() {
    assert_eq!(
        word_places("redis::x my_redis::y redisx redis", "redis"),
        [0, 28]
    );
}
