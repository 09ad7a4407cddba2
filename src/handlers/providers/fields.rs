//! The fields of accounts and contacts that can be enriched.

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest texts, in characters.
pub(super) const TEXT_MAX: usize = 200;
const DESCRIPTION_MAX: usize = 2000;

/// A field that can be enriched.
pub trait EnrichField: Copy + Ord + Debug + Serialize + Send + Sync + 'static {
    /// Whether its records are people, who have an address of mail.
    const ARE_OF_PEOPLE: bool;

    /// All of them.
    fn all() -> &'static [Self];

    /// The column of the record.
    fn column(self) -> &'static str;

    /// Whether records are found by it: it is filled, and never replaced by somebody else's.
    fn is_key(self) -> bool {
        false
    }

    /// The longest text that is written.
    fn chars_max(self) -> usize {
        TEXT_MAX
    }
}

/// A field of an account that can be enriched.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    EmployeeCount,
    #[serde(alias = "annual_revenue")]
    Revenue,
    Technologies,
    SocialLinks,
    Industry,
    Description,
    Website,
    LinkedinUrl,
    Phone,
    City,
    Country,
}

impl EnrichField for Field {
    const ARE_OF_PEOPLE: bool = false;

    fn all() -> &'static [Self] {
        &[
            Self::EmployeeCount,
            Self::Revenue,
            Self::Technologies,
            Self::SocialLinks,
            Self::Industry,
            Self::Description,
            Self::Website,
            Self::LinkedinUrl,
            Self::Phone,
            Self::City,
            Self::Country,
        ]
    }

    fn column(self) -> &'static str {
        match self {
            Self::EmployeeCount => "employee_count",
            Self::Revenue => "annual_revenue",
            Self::Technologies => "technologies",
            Self::SocialLinks => "social_links",
            Self::Industry => "industry",
            Self::Description => "description",
            Self::Website => "website",
            Self::LinkedinUrl => "linkedin_url",
            Self::Phone => "phone",
            Self::City => "city",
            Self::Country => "country",
        }
    }

    fn chars_max(self) -> usize {
        match self {
            Self::Description => DESCRIPTION_MAX,
            _ => TEXT_MAX,
        }
    }
}

/// A field of a contact that can be enriched.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ContactField {
    Email,
    FirstName,
    LastName,
    #[serde(alias = "job_title")]
    Title,
    Phone,
    LinkedinUrl,
    Company,
    City,
    Country,
}

impl EnrichField for ContactField {
    const ARE_OF_PEOPLE: bool = true;

    fn all() -> &'static [Self] {
        &[
            Self::Email,
            Self::FirstName,
            Self::LastName,
            Self::Title,
            Self::Phone,
            Self::LinkedinUrl,
            Self::Company,
            Self::City,
            Self::Country,
        ]
    }

    fn column(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Title => "title",
            Self::Phone => "phone",
            Self::LinkedinUrl => "linkedin_url",
            Self::Company => "company",
            Self::City => "city",
            Self::Country => "country",
        }
    }

    fn is_key(self) -> bool {
        matches!(self, Self::Email | Self::LinkedinUrl)
    }
}
