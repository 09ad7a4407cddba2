//! Which columns a sync may write, and what the providers call them.

use super::client::Entity;
use super::form::{Kind, TEXT_MAX};
use super::mapping::Flow;
use super::payload::CrmProvider;

/// Columns that a sync may write.
pub(super) fn columns(entity: Entity) -> &'static [(&'static str, Kind)] {
    match entity {
        Entity::Accounts => &[
            ("name", Kind::Text(300)),
            ("domain", Kind::Domain),
            ("website", Kind::Text(2000)),
            ("industry", Kind::Text(300)),
            ("employee_count", Kind::Integer),
            ("annual_revenue", Kind::Integer),
            ("country", Kind::Text(300)),
            ("city", Kind::Text(300)),
            ("phone", Kind::Text(100)),
            ("linkedin_url", Kind::Text(2000)),
            ("description", Kind::Text(TEXT_MAX)),
        ],
        Entity::Contacts => &[
            ("email", Kind::Email),
            ("first_name", Kind::Text(300)),
            ("last_name", Kind::Text(300)),
            ("title", Kind::Text(300)),
            ("phone", Kind::Text(100)),
            ("linkedin_url", Kind::Text(2000)),
            ("company", Kind::Text(300)),
            ("country", Kind::Text(300)),
            ("city", Kind::Text(300)),
        ],
        Entity::Opportunities => &[
            ("name", Kind::Text(300)),
            ("stage", Kind::Text(300)),
            ("amount", Kind::Money),
            ("currency", Kind::Text(3)),
            ("probability", Kind::Percent),
            ("close_date", Kind::Day),
            ("description", Kind::Text(TEXT_MAX)),
        ],
    }
}

pub(super) type Default = (&'static str, &'static str, Flow);

/// What the providers call them.
pub(super) fn defaults(provider: CrmProvider, entity: Entity) -> &'static [Default] {
    use Flow::{Both, Pull};
    match (provider, entity) {
        (CrmProvider::Hubspot, Entity::Accounts) => &[
            ("name", "name", Both),
            ("domain", "domain", Both),
            ("website", "website", Both),
            // A choice of theirs: free text would be refused.
            ("industry", "industry", Pull),
            ("employee_count", "numberofemployees", Both),
            ("annual_revenue", "annualrevenue", Both),
            ("country", "country", Both),
            ("city", "city", Both),
            ("phone", "phone", Both),
            ("linkedin_url", "linkedin_company_page", Both),
            ("description", "description", Both),
        ],
        (CrmProvider::Hubspot, Entity::Contacts) => &[
            ("email", "email", Both),
            ("first_name", "firstname", Both),
            ("last_name", "lastname", Both),
            ("title", "jobtitle", Both),
            ("phone", "phone", Both),
            ("company", "company", Both),
            ("country", "country", Both),
            ("city", "city", Both),
        ],
        (CrmProvider::Hubspot, Entity::Opportunities) => &[
            ("name", "dealname", Both),
            ("stage", "dealstage", Both),
            ("amount", "amount", Both),
            ("close_date", "closedate", Both),
            ("description", "description", Both),
        ],
        (CrmProvider::Salesforce, Entity::Accounts) => &[
            ("name", "Name", Both),
            ("website", "Website", Both),
            ("industry", "Industry", Both),
            ("employee_count", "NumberOfEmployees", Both),
            ("annual_revenue", "AnnualRevenue", Both),
            ("country", "BillingCountry", Both),
            ("city", "BillingCity", Both),
            ("phone", "Phone", Both),
            ("description", "Description", Both),
        ],
        (CrmProvider::Salesforce, Entity::Contacts) => &[
            ("email", "Email", Both),
            ("first_name", "FirstName", Both),
            ("last_name", "LastName", Both),
            ("title", "Title", Both),
            ("phone", "Phone", Both),
            ("country", "MailingCountry", Both),
            ("city", "MailingCity", Both),
        ],
        (CrmProvider::Salesforce, Entity::Opportunities) => &[
            ("name", "Name", Both),
            ("stage", "StageName", Both),
            ("amount", "Amount", Both),
            ("probability", "Probability", Both),
            ("close_date", "CloseDate", Both),
            ("description", "Description", Both),
        ],
    }
}
