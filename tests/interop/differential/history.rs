//! Histories: what happens to some jobs, step by step, told so that each side can do it.
//!
//! A file in `tests/interop/histories` holds many: `# name`, then a step per line. Words are parted
//! by single spaces outside of quotes. A step after `!` must be refused. After `~ name` the two
//! sides must differ, as the intended difference of that name says, and the history ends. Times are
//! in milliseconds; the clock stands at `at` and the token of every attempt is `t`.

use serde_json::Value;

/// The time at which every history begins.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;
/// The token of every lock.
pub(crate) const TOKEN: &str = "t";

#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) line: String,
    pub(crate) op: String,
    args: Vec<String>,
    pub(crate) is_refused: bool,
    /// The intended difference that this step shows.
    pub(crate) differs: Option<String>,
}

impl Step {
    fn parse(line: &str) -> Self {
        let mut is_quoted = false;
        let parts = line.split(|c| {
            is_quoted ^= c == '"';
            c == ' ' && !is_quoted
        });
        let mut words = parts.peekable();
        let is_refused = words.next_if_eq(&"!").is_some();
        let differs = words.next_if_eq(&"~").and_then(|_| words.next());
        Self {
            line: line.to_owned(),
            op: words.next().unwrap().to_owned(),
            args: words.map(str::to_owned).collect(),
            is_refused,
            differs: differs.map(str::to_owned),
        }
    }

    pub(crate) fn has(&self, nth: usize) -> bool {
        self.args.len() > nth
    }

    pub(crate) fn text(&self, nth: usize) -> &str {
        let arg = self.args.get(nth);
        arg.unwrap_or_else(|| panic!("step `{}` lacks word {}", self.line, nth + 1))
    }

    pub(crate) fn number(&self, nth: usize) -> i64 {
        let number = self.text(nth).parse();
        number.unwrap_or_else(|_| panic!("step `{}`: word {} is no number", self.line, nth + 1))
    }

    /// What a job returned.
    pub(crate) fn value(&self, nth: usize) -> Value {
        if self.has(nth) {
            self.json(nth)
        } else {
            "done".into()
        }
    }

    /// JSON; an empty object when there is no such word.
    pub(crate) fn json(&self, nth: usize) -> Value {
        let text = self.args.get(nth).map_or("{}", String::as_str);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("step `{}`: {error}", self.line))
    }
}

/// Reads a file of histories.
pub(crate) fn parse(text: &str) -> Vec<History> {
    let mut histories: Vec<History> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("# ") {
            histories.push(History {
                name: name.to_owned(),
                steps: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with("//") {
            let history = histories.last_mut().expect("a name comes first");
            history.steps.push(Step::parse(line));
        }
    }
    histories
}
