//! From a record of the file to a typed account or contact, or to the list of what is wrong with
//! it.
//!
//! Pure. A value in the wrong shape rejects its row, because a half imported row is harder to
//! notice than a reported one. The key under which a row is compared with the other rows of the
//! file is made here: external id first, then domain or e-mail address, then name or `LinkedIn`
//! page.

use uuid::Uuid;

use super::cells::{Cells, Rules, Warnings};
use super::country;
use super::fields::Field;
use super::issue::{Code, Complaint, Issue};
use super::link;
use super::mapping::Mapping;
use super::normalize;
use super::number;
use super::payload::{EntityType, NumberFormat};
use super::phone;
use crate::record::accounts::AccountRow;
use crate::record::contacts::ContactRow;

/// Most names in a list of technologies.
const TECHNOLOGIES_MAX: usize = 200;
/// Name space of the keys, so that they are the same on every machine.
const KEY_SPACE: Uuid = Uuid::from_u128(0x6d1c_3a52_8f0e_4a57_9b1d_27c1_40ad_91be);
/// Domains of mail providers: an address there says nothing about the employer.
const MAIL_PROVIDERS: [&str; 24] = [
    "gmail.com",
    "googlemail.com",
    "yahoo.com",
    "yahoo.co.uk",
    "yahoo.de",
    "yahoo.fr",
    "hotmail.com",
    "hotmail.co.uk",
    "hotmail.fr",
    "outlook.com",
    "live.com",
    "msn.com",
    "icloud.com",
    "me.com",
    "mac.com",
    "aol.com",
    "gmx.de",
    "gmx.net",
    "gmx.at",
    "web.de",
    "t-online.de",
    "proton.me",
    "protonmail.com",
    "mail.ru",
];

/// A row that can be written.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidRow<T> {
    pub entity: T,
    /// The same for two rows that mean the same record.
    pub key: Uuid,
}

/// What stays the same for all rows of a file.
#[derive(Debug, Clone)]
pub struct Validator {
    rules: Rules,
    number_format: NumberFormat,
    default_country: Option<&'static country::Country>,
}

impl Validator {
    pub fn new(
        entity: EntityType,
        mapping: &Mapping,
        number_format: NumberFormat,
        default_country: Option<&str>,
    ) -> Self {
        let default_country = default_country.and_then(country::by_code);
        Self {
            rules: Rules::new(entity, mapping, number_format),
            number_format,
            default_country,
        }
    }

    /// An account, or every complaint about the row.
    pub fn account(
        &self,
        cells: &[&[u8]],
        warnings: &mut Warnings,
    ) -> Result<ValidRow<AccountRow>, Vec<Issue>> {
        let mut row = Cells::collect(&self.rules, cells, warnings);
        let format = self.number_format;
        let country = self.country(&mut row);
        let dial = self.dial(country.as_deref());
        let mut account = AccountRow {
            external_id: row.typed(Field::ExternalId, external_id),
            name: row.text(Field::Name).unwrap_or_default(),
            domain: row.typed(Field::Domain, normalize::domain),
            website: row.typed(Field::Website, link::website),
            industry: row.text(Field::Industry),
            employee_count: row.typed(Field::EmployeeCount, |t| number::employees(t, format)),
            annual_revenue: row.typed(Field::AnnualRevenue, |t| number::amount(t, format)),
            country,
            city: row.text(Field::City),
            phone: row.typed(Field::Phone, |text| phone::phone(text, dial)),
            linkedin_url: row.typed(Field::LinkedinUrl, link::linkedin),
            description: row.long_text(Field::Description),
            technologies: row
                .long_text(Field::Technologies)
                .and_then(|text| technologies(&text)),
            custom: row.custom(),
        };
        if account.domain.is_none()
            && let Some(website) = &account.website
        {
            account.domain = normalize::domain(website).ok();
        }
        if account.name.is_empty() {
            row.require(
                &[Field::Name],
                "an account needs a name",
                account.domain.clone(),
            );
        }
        finish(row.issues, account, account_key)
    }

    /// A contact, or every complaint about the row.
    pub fn contact(
        &self,
        cells: &[&[u8]],
        warnings: &mut Warnings,
    ) -> Result<ValidRow<ContactRow>, Vec<Issue>> {
        let mut row = Cells::collect(&self.rules, cells, warnings);
        let country = self.country(&mut row);
        let dial = self.dial(country.as_deref());
        let full_name = row.text(Field::FullName);
        let mut contact = ContactRow {
            external_id: row.typed(Field::ExternalId, external_id),
            email: row.typed(Field::Email, normalize::email),
            first_name: row.text(Field::FirstName),
            last_name: row.text(Field::LastName),
            title: row.text(Field::Title),
            phone: row.typed(Field::Phone, |text| phone::phone(text, dial)),
            linkedin_url: row.typed(Field::LinkedinUrl, link::linkedin),
            company: row.text(Field::Company),
            company_domain: row.typed(Field::CompanyDomain, normalize::domain),
            country,
            city: row.text(Field::City),
            custom: row.custom(),
        };
        if let Some(full_name) = full_name
            && contact.first_name.is_none()
            && contact.last_name.is_none()
        {
            (contact.first_name, contact.last_name) = split_name(&full_name);
        }
        if contact.company_domain.is_none() {
            contact.company_domain = contact.email.as_deref().and_then(employer_domain);
        }
        let keys = [&contact.email, &contact.linkedin_url, &contact.external_id];
        if keys.iter().all(|key| key.is_none()) {
            let fields = [Field::Email, Field::LinkedinUrl, Field::ExternalId];
            let why = "a contact needs an e-mail address, a LinkedIn address or an external id";
            row.require(&fields, why, None);
        }
        finish(row.issues, contact, contact_key)
    }

    fn country(&self, row: &mut Cells<'_, '_>) -> Option<String> {
        let Some(text) = row.text(Field::Country) else {
            return self.default_country.map(|country| country.code.to_owned());
        };
        let known = country::by_name(&text);
        row.warnings.unknown_countries += u64::from(known.is_none());
        Some(known.map_or(text, |country| country.code.to_owned()))
    }

    /// The dialling prefix for numbers without one: the row's country, else the default.
    fn dial(&self, country: Option<&str>) -> &'static str {
        let own = country.and_then(country::by_code);
        own.or(self.default_country)
            .map_or("", |country| country.dial)
    }
}

fn finish<T>(
    issues: Vec<Issue>,
    entity: T,
    key: impl FnOnce(&T) -> String,
) -> Result<ValidRow<T>, Vec<Issue>> {
    if !issues.is_empty() {
        return Err(issues);
    }
    let key = Uuid::new_v5(&KEY_SPACE, key(&entity).as_bytes());
    Ok(ValidRow { entity, key })
}

fn external_id(text: &str) -> Result<String, Complaint> {
    if normalize::is_rounded_number(text) {
        let message = "a spreadsheet has rounded this id; format the column as text";
        return Err(Complaint::new(Code::ExcelDamage, message));
    }
    Ok(normalize::one_line(text).into_owned())
}

fn technologies(text: &str) -> Option<serde_json::Value> {
    let names: Vec<_> = text
        .split([',', ';', '|', '\n'])
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(TECHNOLOGIES_MAX)
        .collect();
    (!names.is_empty()).then(|| names.into())
}

fn account_key(account: &AccountRow) -> String {
    match (&account.external_id, &account.domain) {
        (Some(id), _) => format!("id:{id}"),
        (None, Some(domain)) => format!("domain:{domain}"),
        (None, None) => format!("name:{}", account.name.to_lowercase()),
    }
}

fn contact_key(contact: &ContactRow) -> String {
    match (&contact.external_id, &contact.email, &contact.linkedin_url) {
        (Some(id), _, _) => format!("id:{id}"),
        (None, Some(email), _) => format!("email:{}", email.to_lowercase()),
        (None, None, link) => format!("linkedin:{}", link.as_deref().unwrap_or_default()),
    }
}

/// The domain of an address, unless anybody can have an address there.
fn employer_domain(email: &str) -> Option<String> {
    let host = email.rsplit_once('@')?.1;
    let domain = normalize::registrable(host)?;
    (!MAIL_PROVIDERS.contains(&domain)).then(|| domain.to_owned())
}

/// `Lovelace, Ada` and `Ada King Lovelace`: the last word is the family name.
fn split_name(full_name: &str) -> (Option<String>, Option<String>) {
    let (first, last) = match full_name.split_once(',') {
        Some((last, first)) => (first.trim(), last.trim()),
        None => full_name.rsplit_once(' ').unwrap_or((full_name, "")),
    };
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (filled(first), filled(last))
}

#[cfg(test)]
mod tests;
