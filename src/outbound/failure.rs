//! What a failed request means, in words that have none of its address.

use super::Forbidden;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The guard said no: it will not get better.
    Forbidden(Forbidden),
    /// The server leads in circles, or nowhere.
    Redirect(String),
    /// It may work later.
    Unavailable(String),
}

/// Sorts an error of the client. The address, with its secrets, stays out of the message.
pub fn explain(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut message = String::new();
    while let Some(source) = cause {
        if let Some(forbidden) = source.downcast_ref::<Forbidden>() {
            return Failure::Forbidden(forbidden.clone());
        }
        message = format!(
            "{message}{}{source}",
            if message.is_empty() { "" } else { ": " }
        );
        cause = source.source();
    }
    match error.is_redirect() {
        true => Failure::Redirect(message),
        false => Failure::Unavailable(message),
    }
}
