//! SOQL as far as a sync asks: one object, conditions with AND, OR and IN, an order, a limit.

use serde_json::{Map, Value, json};

use super::data::{Org, Record, field};

type Refused = (&'static str, String);

/// The records that a question is about, oldest first.
pub(super) fn run(org: &Org, text: &str, is_all: bool) -> Result<Vec<Value>, Refused> {
    let malformed = |why: &str| ("MALFORMED_QUERY", why.to_owned());
    let mut words = Words(tokens(text).into_iter().peekable());
    words.expect("SELECT")?;
    let mut names = Vec::new();
    loop {
        names.push(words.next().ok_or_else(|| malformed("no field"))?);
        if !words.skip(",") {
            break;
        }
    }
    words.expect("FROM")?;
    let object = words.next().ok_or_else(|| malformed("no object"))?;
    if let Some(odd) = names.iter().find(|name| field(&object, name).is_none()) {
        let why = format!("No such column '{odd}' on entity '{object}'");
        return Err(("INVALID_FIELD", why));
    }
    let condition = match words.skip("WHERE") {
        true => any(&mut words, &object)?,
        false => Condition::All(Vec::new()),
    };
    if words.skip("ORDER") {
        for word in ["BY", "SystemModstamp", "ASC", ",", "Id", "ASC"] {
            words.expect(word)?;
        }
    }
    let limit = match words.skip("LIMIT") {
        true => words
            .next()
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| malformed("LIMIT"))?,
        false => 2000_usize,
    };
    if let Some(rest) = words.next() {
        return Err(malformed(&format!("unexpected token: {rest}")));
    }
    let records = org
        .objects
        .get(&object)
        .into_iter()
        .flat_map(|all| all.values());
    let records =
        records.filter(|record| (is_all || !record.is_deleted) && condition.holds(record));
    let mut records: Vec<&Record> = records.collect();
    let order = |record: &&Record| {
        let text = |name: &str| record.fields.get(name).map(Value::to_string);
        (text("SystemModstamp"), text("Id"))
    };
    records.sort_by_key(order);
    let row = |record: &Record| {
        let mut row = Map::new();
        row.insert("attributes".to_owned(), json!({ "type": object }));
        for name in &names {
            let value = record.fields.get(name).cloned().unwrap_or_default();
            row.insert(name.clone(), value);
        }
        Value::Object(row)
    };
    Ok(records.into_iter().take(limit).map(row).collect())
}

enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Is(String, String, Vec<String>),
}

impl Condition {
    fn holds(&self, record: &Record) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(record)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(record)),
            Self::Is(name, operator, values) => {
                let own = match (name.as_str(), record.fields.get(name)) {
                    ("IsDeleted", _) => record.is_deleted.to_string(),
                    // In the form of the literal.
                    ("SystemModstamp", Some(Value::String(at))) => at.replace("+0000", "Z"),
                    (_, Some(Value::String(text))) => text.clone(),
                    (_, Some(Value::Null) | None) => return false,
                    (_, Some(other)) => other.to_string(),
                };
                let holds = |value: &String| match operator.as_str() {
                    ">" => own > *value,
                    ">=" => own >= *value,
                    "<" => own < *value,
                    "<=" => own <= *value,
                    "!=" => own != *value,
                    // Texts are the same in any case.
                    _ => own.eq_ignore_ascii_case(value),
                };
                values.iter().any(holds)
            }
        }
    }
}

struct Words(std::iter::Peekable<std::vec::IntoIter<String>>);

impl Words {
    fn next(&mut self) -> Option<String> {
        self.0.next()
    }

    fn skip(&mut self, word: &str) -> bool {
        self.0
            .next_if(|next| next.eq_ignore_ascii_case(word))
            .is_some()
    }

    fn expect(&mut self, word: &str) -> Result<(), Refused> {
        match self.skip(word) {
            true => Ok(()),
            false => Err(("MALFORMED_QUERY", format!("expecting {word}"))),
        }
    }
}

fn any(words: &mut Words, object: &str) -> Result<Condition, Refused> {
    let mut parts = vec![all(words, object)?];
    while words.skip("OR") {
        parts.push(all(words, object)?);
    }
    Ok(Condition::Any(parts))
}

fn all(words: &mut Words, object: &str) -> Result<Condition, Refused> {
    let mut parts = vec![one(words, object)?];
    while words.skip("AND") {
        parts.push(one(words, object)?);
    }
    Ok(Condition::All(parts))
}

fn one(words: &mut Words, object: &str) -> Result<Condition, Refused> {
    if words.skip("(") {
        let inner = any(words, object)?;
        words.expect(")")?;
        return Ok(inner);
    }
    let name = words.next().unwrap_or_default();
    if field(object, &name).is_none() {
        return Err(("INVALID_FIELD", format!("No such column '{name}'")));
    }
    let operator = words.next().unwrap_or_default();
    let mut values = Vec::new();
    let value = |word: String| word.trim_start_matches('\'').to_owned();
    match operator.as_str() {
        "IN" => {
            words.expect("(")?;
            loop {
                values.push(value(words.next().unwrap_or_default()));
                if !words.skip(",") {
                    break;
                }
            }
            words.expect(")")?;
        }
        "=" | "!=" | ">" | ">=" | "<" | "<=" => {
            values.push(value(words.next().unwrap_or_default()));
        }
        _ => return Err(("MALFORMED_QUERY", format!("unexpected token: {operator}"))),
    }
    Ok(Condition::Is(name, operator, values))
}

/// Words, signs and texts; a text begins with its quote.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' => {}
            '(' | ')' | ',' => tokens.push(c.to_string()),
            '=' | '>' | '<' | '!' => {
                let mut sign = c.to_string();
                sign.extend(chars.next_if_eq(&'='));
                tokens.push(sign);
            }
            '\'' => {
                let mut value = "'".to_owned();
                while let Some(c) = chars.next().filter(|c| *c != '\'') {
                    match (c, chars.peek()) {
                        ('\\', Some(_)) => value.extend(chars.next()),
                        _ => value.push(c),
                    }
                }
                tokens.push(value);
            }
            _ => {
                let mut word = c.to_string();
                while let Some(c) = chars.next_if(|c| !" (),=><!'".contains(*c)) {
                    word.push(c);
                }
                tokens.push(word);
            }
        }
    }
    tokens
}
