//! What providers are asked about: a company, or a person.

use super::DataSource;
use super::person::PersonKey;

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// By its registrable domain.
    Company(String),
    Person(PersonKey),
}

impl Topic {
    /// The kind of question, where answers are kept.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Company(_) => "company",
            Self::Person(_) => "person",
        }
    }

    /// What it is called where answers are kept: equal for equal questions.
    pub fn key(&self) -> String {
        match self {
            Self::Company(domain) => domain.clone(),
            Self::Person(person) => person.key(),
        }
    }

    /// Whether this provider can be asked for it.
    pub fn can_ask(&self, source: DataSource) -> bool {
        use super::person::Employer;
        match (source, self) {
            (DataSource::Clearbit, Self::Person(person)) => matches!(person, PersonKey::Email(_)),
            // It finds people by the name of their company, not by its domain.
            (DataSource::Zoominfo, Self::Person(PersonKey::Name { employer, .. })) => {
                matches!(employer, Employer::Name(_))
            }
            _ => true,
        }
    }
}
