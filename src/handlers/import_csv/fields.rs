//! The fields that a column can be mapped to, and the headers by which people name them.
//!
//! Synonyms are written as [`super::normalize::fold`] leaves them: lower case, letters and digits
//! only.

use super::payload::EntityType;

/// A target of the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    ExternalId,
    Name,
    Domain,
    Website,
    Industry,
    EmployeeCount,
    AnnualRevenue,
    Country,
    City,
    Phone,
    LinkedinUrl,
    Description,
    Technologies,
    Email,
    FirstName,
    LastName,
    FullName,
    Title,
    Company,
    CompanyDomain,
}

/// How a field is called and how long it may be.
#[derive(Debug)]
pub struct FieldDef {
    pub field: Field,
    pub name: &'static str,
    /// Characters.
    pub max: usize,
    pub synonyms: &'static [&'static str],
}

const fn def(
    field: Field,
    name: &'static str,
    max: usize,
    synonyms: &'static [&'static str],
) -> FieldDef {
    FieldDef {
        field,
        name,
        max,
        synonyms,
    }
}

const ID: &[&str] = &[
    "id",
    "externalkey",
    "recordid",
    "crmid",
    "sourceid",
    "uniqueid",
];
const COUNTRY: &[&str] = &[
    "countryregion",
    "countrycode",
    "land",
    "pays",
    "pais",
    "nation",
];
const CITY: &[&str] = &[
    "town", "ort", "stadt", "ville", "ciudad", "locality", "hqcity",
];
const PHONE: &[&str] = &[
    "phonenumber",
    "telephone",
    "tel",
    "telefon",
    "telefonnummer",
    "mobile",
    "mobilephone",
    "cell",
    "handy",
    "telefono",
    "workphone",
    "directphone",
];
const LINKEDIN: &[&str] = &[
    "linkedin",
    "linkedinprofile",
    "linkedinpage",
    "linkedinlink",
    "personlinkedinurl",
    "companylinkedinurl",
];

static ACCOUNT_FIELDS: &[FieldDef] = &[
    def(
        Field::Name,
        "name",
        300,
        &[
            "companyname",
            "company",
            "account",
            "accountname",
            "organization",
            "organisation",
            "organizationname",
            "firma",
            "firmenname",
            "unternehmen",
            "business",
            "businessname",
            "societe",
            "empresa",
        ],
    ),
    def(
        Field::Domain,
        "domain",
        253,
        &[
            "companydomain",
            "domainname",
            "primarydomain",
            "emaildomain",
            "webdomain",
        ],
    ),
    def(
        Field::Website,
        "website",
        2_000,
        &[
            "url",
            "web",
            "webaddress",
            "webpage",
            "homepage",
            "site",
            "companywebsite",
            "websiteurl",
            "internetadresse",
            "webseite",
        ],
    ),
    def(
        Field::Industry,
        "industry",
        200,
        &["branche", "sector", "vertical", "industria"],
    ),
    def(
        Field::EmployeeCount,
        "employee_count",
        100,
        &[
            "employees",
            "employeecount",
            "numberofemployees",
            "noofemployees",
            "headcount",
            "mitarbeiter",
            "mitarbeiterzahl",
            "companysize",
            "size",
            "staff",
        ],
    ),
    def(
        Field::AnnualRevenue,
        "annual_revenue",
        100,
        &[
            "revenue",
            "annualrevenue",
            "umsatz",
            "jahresumsatz",
            "sales",
            "turnover",
            "yearlyrevenue",
        ],
    ),
    def(Field::Country, "country", 100, COUNTRY),
    def(Field::City, "city", 200, CITY),
    def(Field::Phone, "phone", 60, PHONE),
    def(Field::LinkedinUrl, "linkedin_url", 2_000, LINKEDIN),
    def(
        Field::Description,
        "description",
        10_000,
        &[
            "about",
            "notes",
            "beschreibung",
            "summary",
            "companydescription",
        ],
    ),
    def(
        Field::Technologies,
        "technologies",
        5_000,
        &["technology", "techstack", "tech"],
    ),
    def(Field::ExternalId, "external_id", 255, ID),
];

static CONTACT_FIELDS: &[FieldDef] = &[
    def(
        Field::Email,
        "email",
        254,
        &[
            "emailaddress",
            "mail",
            "emailadresse",
            "workemail",
            "businessemail",
            "emails",
            "primaryemail",
            "correo",
        ],
    ),
    def(
        Field::FirstName,
        "first_name",
        200,
        &[
            "firstname",
            "first",
            "fname",
            "givenname",
            "forename",
            "vorname",
            "prenom",
            "nombre",
        ],
    ),
    def(
        Field::LastName,
        "last_name",
        200,
        &[
            "lastname",
            "last",
            "lname",
            "surname",
            "familyname",
            "nachname",
            "apellido",
            "apellidos",
        ],
    ),
    def(
        Field::FullName,
        "full_name",
        400,
        &[
            "name",
            "contact",
            "contactname",
            "person",
            "fullname",
            "kontakt",
            "ansprechpartner",
        ],
    ),
    def(
        Field::Title,
        "title",
        300,
        &[
            "jobtitle",
            "position",
            "role",
            "jobposition",
            "funktion",
            "poste",
            "cargo",
        ],
    ),
    def(Field::Phone, "phone", 60, PHONE),
    def(Field::LinkedinUrl, "linkedin_url", 2_000, LINKEDIN),
    def(
        Field::Company,
        "company",
        300,
        &[
            "companyname",
            "account",
            "accountname",
            "organization",
            "organisation",
            "firma",
            "firmenname",
            "unternehmen",
            "employer",
            "empresa",
            "societe",
        ],
    ),
    def(
        Field::CompanyDomain,
        "company_domain",
        253,
        &[
            "companydomain",
            "domain",
            "website",
            "companywebsite",
            "accountdomain",
            "homepage",
        ],
    ),
    def(Field::Country, "country", 100, COUNTRY),
    def(Field::City, "city", 200, CITY),
    def(Field::ExternalId, "external_id", 255, ID),
];

/// All fields of a kind of record.
pub fn fields_of(entity: EntityType) -> &'static [FieldDef] {
    match entity {
        EntityType::Accounts => ACCOUNT_FIELDS,
        EntityType::Contacts => CONTACT_FIELDS,
    }
}

/// The fields of which a file must have at least one column, or no row could be told from another.
pub fn required_of(entity: EntityType) -> &'static [Field] {
    match entity {
        EntityType::Accounts => &[Field::Name],
        EntityType::Contacts => &[Field::Email, Field::LinkedinUrl, Field::ExternalId],
    }
}

/// The definition of a field by its exact name.
pub fn by_name(entity: EntityType, name: &str) -> Option<&'static FieldDef> {
    fields_of(entity).iter().find(|def| def.name == name)
}

/// The definition of a field; every field of an entity has one.
pub fn def_of(entity: EntityType, field: Field) -> Option<&'static FieldDef> {
    fields_of(entity).iter().find(|def| def.field == field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::import_csv::normalize::fold;

    #[test]
    fn no_header_names_two_fields_and_synonyms_are_folded() {
        for entity in [EntityType::Accounts, EntityType::Contacts] {
            let mut seen = std::collections::HashMap::new();
            for def in fields_of(entity) {
                let own = fold(def.name);
                for name in def.synonyms.iter().map(|s| (*s).to_owned()).chain([own]) {
                    assert_eq!(fold(&name), name);
                    let other = seen.insert(name.clone(), def.field);
                    assert!(other.is_none_or(|field| field == def.field), "{name}");
                }
            }
        }
    }
}
