//! Settings of the probe of mail servers: `BULLWARK_SMTP_PROBE_…`.

use std::time::Duration;

use super::ConfigError;
use super::number::number;
use crate::job::smtp_probe::SmtpProbe;

const FROM: &str = "BULLWARK_SMTP_PROBE_FROM";
const PORT: &str = "BULLWARK_SMTP_PROBE_PORT";
const SECONDS: &str = "BULLWARK_SMTP_PROBE_SECONDS";

const DEFAULT_PORT: u16 = 25;
const DEFAULT_SECONDS: u64 = 10;
const SECONDS_MAX: u64 = 30;

/// Puts them together; none: nobody is asked.
pub(super) fn settle(
    read: impl Fn(&str) -> Option<String>,
) -> Result<Option<SmtpProbe>, ConfigError> {
    let port = number(
        PORT,
        read(PORT),
        u64::from(DEFAULT_PORT),
        u64::from(u16::MAX),
    )?;
    let seconds = number(SECONDS, read(SECONDS), DEFAULT_SECONDS, SECONDS_MAX)?;
    let Some(from) = read(FROM) else {
        return Ok(None);
    };
    let Some(parts) = sender(&from) else {
        return Err(ConfigError::Invalid {
            name: FROM,
            value: from,
            why: "it must be an address of mail, such as probe@mail.example.com; what is behind \
                  the @ is a name that leads to this machine"
                .to_owned(),
        });
    };
    Ok(Some(SmtpProbe {
        from: parts,
        port: u16::try_from(port).unwrap_or(DEFAULT_PORT),
        step: Duration::from_secs(seconds),
    }))
}

/// A plain address: its parts go into commands of SMTP as they are.
fn sender(text: &str) -> Option<(String, String)> {
    let (local, domain) = text.split_once('@')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._+=".contains(c);
    let is_local = (1..=64).contains(&local.len())
        && local.chars().all(is_plain)
        && local.split('.').all(|part| !part.is_empty());
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = domain.split('.').collect();
    let ending = labels.last()?;
    let is_name = labels.len() > 1 && ending.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_domain = domain.len() <= 253 && is_name && labels.into_iter().all(is_label);
    (is_local && is_domain).then(|| (local.to_owned(), domain.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[(&str, &str)]) -> Result<Option<SmtpProbe>, ConfigError> {
        settle(|name| {
            let found = settings.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nobody_is_asked_unless_there_is_a_sender() {
        assert_eq!(with(&[]).unwrap(), None);
        assert_eq!(with(&[(PORT, "2525")]).unwrap(), None);
        let probe = with(&[(FROM, "probe@Mail.example.com")]).unwrap().unwrap();
        assert_eq!(
            probe.from,
            ("probe".to_owned(), "mail.example.com".to_owned())
        );
        assert_eq!((probe.port, probe.step), (25, Duration::from_secs(10)));
        let other = [(FROM, "p@example.com"), (PORT, "2525"), (SECONDS, "1")];
        let probe = with(&other).unwrap().unwrap();
        assert_eq!((probe.port, probe.step), (2525, Duration::from_secs(1)));
    }

    #[test]
    fn what_is_no_sender_is_refused() {
        for wrong in [
            "probe",
            "@example.com",
            "probe@example",
            "probe@127.0.0.1",
            "probe@[127.0.0.1]",
            "probe@-a.example",
            "probe@example.com.",
            "probe@a@example.com",
            "pro be@example.com",
            ".probe@example.com",
            "Probe <probe@example.com>",
            "probe@example.com\r\nDATA",
        ] {
            let error = with(&[(FROM, wrong)]).unwrap_err().to_string();
            assert!(error.starts_with(FROM), "{error}");
        }
        for (name, wrong) in [
            (PORT, "0"),
            (PORT, "65536"),
            (SECONDS, "31"),
            (SECONDS, "x"),
        ] {
            let error = with(&[(name, wrong)]).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
