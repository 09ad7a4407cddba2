//! As much of structured fields (RFC 9651) as `RateLimit` needs: a list of names with parameters.

/// One item of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    parameters: Vec<(String, String)>,
}

/// The most items that are read.
const ITEMS_MAX: usize = 8;

impl Item {
    /// A parameter that is a whole number.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let found = self.parameters.iter().find(|(known, _)| known == key)?;
        found.1.parse().ok()
    }
}

/// The items of a list: `"a";q=1;w=60, "b";q=2`. An earlier draft wrote `limit=100, remaining=50,
/// reset=30`, which is one item without a name.
pub(super) fn items(value: &str) -> Vec<Item> {
    let parts = split(value, ',');
    let is_old =
        |part: &String| !part.starts_with('"') && part.contains('=') && !part.contains(';');
    if !parts.is_empty() && parts.iter().all(is_old) {
        let pairs = parts.iter().filter_map(|part| part.split_once('='));
        let short = |key: &str| match key {
            "limit" => "q".to_owned(),
            "remaining" => "r".to_owned(),
            "reset" => "t".to_owned(),
            other => other.to_owned(),
        };
        let parameters = pairs.map(|(k, v)| (short(k.trim()), v.trim().to_owned()));
        return vec![Item {
            name: String::new(),
            parameters: parameters.collect(),
        }];
    }
    parts
        .iter()
        .take(ITEMS_MAX)
        .map(|part| item(part))
        .collect()
}

fn item(part: &str) -> Item {
    let mut pieces = split(part, ';').into_iter();
    let name = pieces.next().unwrap_or_default();
    let parameters = pieces.filter_map(|piece| {
        let (key, value) = piece.split_once('=')?;
        Some((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
    });
    Item {
        parameters: parameters.collect(),
        name: name.trim_matches('"').chars().take(50).collect(),
    }
}

/// Splits outside of quotes; without the blanks around.
fn split(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut quoted, mut part) = (Vec::new(), false, String::new());
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c == at && !quoted => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_their_parameters_are_told_apart() {
        let list = items(r#""a;b,c";q=100;w=60, "day"; q=5"#);
        let names: Vec<_> = list.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["a;b,c", "day"]);
        assert_eq!(
            (list[0].number("w"), list[1].number("q")),
            (Some(60), Some(5))
        );
        assert_eq!(list[1].number("w"), None);
    }

    #[test]
    fn what_is_no_list_is_nothing() {
        for odd in ["", ",,;;", "\"", "=", ";q=1"] {
            let any = items(odd).iter().any(|item| item.number("r").is_some());
            assert!(!any, "{odd}");
        }
    }
}
