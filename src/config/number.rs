//! Settings that are whole numbers.

use std::time::Duration;

use super::ConfigError;

/// From 1 to `max`; `default` if nothing is said.
pub(super) fn number(
    name: &'static str,
    value: Option<String>,
    default: u64,
    max: u64,
) -> Result<u64, ConfigError> {
    let Some(value) = value else {
        return Ok(default);
    };
    let parsed = value.parse().ok();
    let fits = parsed.filter(|number| (1..=max).contains(number));
    fits.ok_or_else(|| ConfigError::Invalid {
        name,
        value,
        why: format!("it must be a whole number from 1 to {max}, such as {default}"),
    })
}

/// The same of seconds.
pub(super) fn seconds(
    name: &'static str,
    read: impl Fn(&str) -> Option<String>,
    (default, max): (u64, u64),
) -> Result<Duration, ConfigError> {
    number(name, read(name), default, max).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "BULLWARK_PROVIDER_SECONDS";

    #[test]
    fn seconds_are_a_whole_number_within_bounds() {
        let with = |value: Option<&'static str>| {
            seconds(NAME, move |_| value.map(str::to_owned), (30, 30))
        };
        assert_eq!(with(None).unwrap(), Duration::from_secs(30));
        assert_eq!(with(Some("1")).unwrap(), Duration::from_secs(1));
        assert_eq!(with(Some("30")).unwrap(), Duration::from_secs(30));
        for wrong in ["0", "31", "-1", "1.5", "x", ""] {
            let error = with(Some(wrong)).unwrap_err().to_string();
            assert!(error.starts_with(NAME), "{wrong}: {error}");
        }
    }
}
