//! Contacts: the people that a workspace knows.

/// One contact as a file or a provider describes it. Absent means "says nothing", not "is empty".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContactRow {
    pub external_id: Option<String>,
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub title: Option<String>,
    pub phone: Option<String>,
    pub linkedin_url: Option<String>,
    pub company: Option<String>,
    /// The registrable domain of the employer; links the contact to an account.
    pub company_domain: Option<String>,
    pub country: Option<String>,
    pub city: Option<String>,
    /// A JSON object.
    pub custom: Option<serde_json::Value>,
}
