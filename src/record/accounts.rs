//! Accounts: the companies that a workspace knows.

/// One account as a file or a provider describes it. Absent means "says nothing", not "is empty".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccountRow {
    pub external_id: Option<String>,
    pub name: String,
    pub domain: Option<String>,
    pub website: Option<String>,
    pub industry: Option<String>,
    pub employee_count: Option<i32>,
    /// Whole units of the account's currency.
    pub annual_revenue: Option<i64>,
    /// ISO 3166-1 alpha-2 where the country is known, else the text as given.
    pub country: Option<String>,
    pub city: Option<String>,
    pub phone: Option<String>,
    pub linkedin_url: Option<String>,
    pub description: Option<String>,
    /// A JSON array of names.
    pub technologies: Option<serde_json::Value>,
    /// A JSON object.
    pub custom: Option<serde_json::Value>,
}
