//! Companies that nobody has heard of: always the same ones.

use std::io::Write;
use std::path::Path;

/// Parts of names.
const FIRST: [&str; 25] = [
    "Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord", "Granite", "Harbor", "Indigo", "Juniper",
    "Kestrel", "Lumen", "Meadow", "Nimbus", "Onyx", "Pine", "Quartz", "River", "Summit", "Timber",
    "Umber", "Vector", "Willow", "Yarrow", "Zephyr",
];
const SECOND: [&str; 20] = [
    "Analytics",
    "Bakery",
    "Capital",
    "Dynamics",
    "Energy",
    "Foods",
    "Glass",
    "Health",
    "Interiors",
    "Joinery",
    "Labs",
    "Logistics",
    "Media",
    "Mining",
    "Optics",
    "Robotics",
    "Shipping",
    "Software",
    "Textiles",
    "Water",
];
/// One of so many is a company that no provider knows.
const UNKNOWN_EVERY: usize = 40;

/// Writes them as a file to import.
pub(super) fn write(file: &Path, companies: usize) -> std::io::Result<()> {
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    writeln!(out, "Company Name,Website")?;
    for nth in 0..companies {
        let (name, domain) = company(nth);
        writeln!(out, "{name},https://www.{domain}")?;
    }
    out.flush()
}

pub(super) fn domain(nth: usize) -> String {
    company(nth).1
}

fn company(nth: usize) -> (String, String) {
    let first = FIRST[nth % FIRST.len()];
    let second = SECOND[nth / FIRST.len() % SECOND.len()];
    let series = nth / (FIRST.len() * SECOND.len()) + 1;
    let start = match nth % UNKNOWN_EVERY {
        0 => "unknown-",
        _ => "",
    };
    let domain = format!("{start}{first}-{second}-{series}.com").to_lowercase();
    (format!("{first} {second} {series}"), domain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_companies_are_the_same() {
        let domains: BTreeSet<String> = (0..5000).map(|nth| company(nth).1).collect();
        assert_eq!(domains.len(), 5000);
        let unknown = domains.iter().filter(|one| one.starts_with("unknown"));
        assert_eq!(unknown.count(), 125);
    }
}
