//! The settings of an object storage, checked.

use crate::secret::Secret;

/// The region that servers other than Amazon's take, as most do.
const REGION: &str = "us-east-1";
const BUCKET_MIN: usize = 3;
const BUCKET_MAX: usize = 63;
const PREFIX_MAX: usize = 200;

/// A bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    pub bucket: String,
    /// Before all names of objects; no slash at either end, and maybe empty.
    pub prefix: String,
    /// None: Amazon's, for the region. With one, the bucket stands in the path.
    pub endpoint: Option<String>,
    pub region: String,
    /// None: the role of the machine at Amazon.
    pub key: Option<(String, Secret)>,
}

/// A setting that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidStorage {
    /// The end of its name: `URL`, `ENDPOINT`, `REGION`, `KEY_ID` or `SECRET`.
    pub setting: &'static str,
    pub why: &'static str,
}

impl StorageOptions {
    /// `read` gives a setting by the end of its name. None: nothing is said of a storage.
    pub fn read(read: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, InvalidStorage> {
        let refuse = |setting, why| Err(InvalidStorage { setting, why });
        let Some(url) = read("URL") else {
            let others = ["ENDPOINT", "REGION", "KEY_ID", "SECRET"];
            return match others.into_iter().find(|name| read(name).is_some()) {
                Some(_) => refuse(
                    "URL",
                    "other settings of the object storage are there, so this one must name the \
                     bucket: s3://bucket, or s3://bucket/prefix",
                ),
                None => Ok(None),
            };
        };
        let Some(place) = url.strip_prefix("s3://") else {
            return refuse("URL", "it must be s3://bucket, or s3://bucket/prefix");
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_bucket = (BUCKET_MIN..=BUCKET_MAX).contains(&bucket.len())
            && (bucket.chars()).all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !is_bucket {
            return refuse(
                "URL",
                "the name of a bucket has 3 to 63 letters, digits, hyphens, dots or underscores",
            );
        }
        let prefix = prefix.trim_matches('/');
        let is_part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && (part.chars()).all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        };
        let is_prefix =
            prefix.is_empty() || (prefix.len() <= PREFIX_MAX && prefix.split('/').all(is_part));
        if !is_prefix {
            return refuse(
                "URL",
                "what stands behind the bucket has letters, digits, hyphens, dots, underscores \
                 and slashes only, and at most 200 of them",
            );
        }
        let endpoint = read("ENDPOINT").map(|url| url.trim_end_matches('/').to_owned());
        if endpoint.as_deref().is_some_and(|url| !is_endpoint(url)) {
            return refuse(
                "ENDPOINT",
                "it must be an address such as https://project.supabase.co/storage/v1/s3, \
                 without bucket, user or query; http:// only within this machine or network, \
                 by an address or a name without a dot",
            );
        }
        let region = read("REGION");
        if region.is_none() && endpoint.is_none() {
            return refuse("REGION", "Amazon's storage needs one, such as eu-central-1");
        }
        let key = match (read("KEY_ID"), read("SECRET")) {
            (Some(id), Some(secret)) => Some((id, Secret(secret))),
            (Some(_), None) => return refuse("SECRET", "there is a key without its secret"),
            (None, Some(_)) => return refuse("KEY_ID", "there is a secret without its key"),
            (None, None) if endpoint.is_some() => {
                return refuse(
                    "KEY_ID",
                    "a storage with an endpoint of its own needs a key",
                );
            }
            (None, None) => None,
        };
        Ok(Some(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint,
            region: region.unwrap_or_else(|| REGION.to_owned()),
            key,
        }))
    }
}

/// An address for people's files. Plain HTTP is for servers next door: the requests are signed,
/// the files are not hidden.
fn is_endpoint(url: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    if url.len() > 200 || !url.chars().all(is_plain) {
        return false;
    }
    if let Some(rest) = url.strip_prefix("https://") {
        return !rest.is_empty() && !rest.starts_with('/');
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let host = match rest.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => rest.split([':', '/']).next(),
    };
    let host = host.unwrap_or_default();
    let is_address = match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Err(_) => false,
    };
    let is_name = !host.is_empty() && !host.contains(['.', ':', '%']);
    is_address || is_name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Option<StorageOptions>, InvalidStorage> {
        StorageOptions::read(|name| {
            let found = given.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_said_is_no_storage_and_half_of_it_is_a_mistake() {
        assert!(read(&[]).unwrap().is_none());
        let mistakes: [(&[(&str, &str)], &str); 9] = [
            (&[("KEY_ID", "a")], "URL"),
            (&[("URL", "https://bucket")], "URL"),
            (&[("URL", "s3://b")], "URL"),
            (&[("URL", "s3://bucket/../x")], "URL"),
            (&[("URL", "s3://bucket")], "REGION"),
            (
                &[("URL", "s3://bucket"), ("REGION", "x"), ("KEY_ID", "a")],
                "SECRET",
            ),
            (
                &[("URL", "s3://bucket"), ("REGION", "x"), ("SECRET", "a")],
                "KEY_ID",
            ),
            (
                &[("URL", "s3://bucket"), ("ENDPOINT", "https://s3.example")],
                "KEY_ID",
            ),
            (
                &[("URL", "s3://bucket"), ("ENDPOINT", "http://s3.example")],
                "ENDPOINT",
            ),
        ];
        for (given, setting) in mistakes {
            assert_eq!(read(given).unwrap_err().setting, setting, "{given:?}");
        }
    }

    #[test]
    fn a_bucket_is_named_with_what_stands_before_its_objects() {
        let role = read(&[
            ("URL", "s3://bucket/some/where/"),
            ("REGION", "eu-central-1"),
        ]);
        let role = role.unwrap().unwrap();
        assert_eq!(
            (role.bucket.as_str(), role.prefix.as_str()),
            ("bucket", "some/where")
        );
        assert!(role.key.is_none() && role.endpoint.is_none());
        let other = read(&[
            ("URL", "s3://bucket"),
            ("ENDPOINT", "https://x.supabase.co/storage/v1/s3/"),
            ("KEY_ID", "id"),
            ("SECRET", "hush"),
        ]);
        let other = other.unwrap().unwrap();
        assert_eq!(
            other.endpoint.as_deref(),
            Some("https://x.supabase.co/storage/v1/s3")
        );
        assert_eq!(
            (other.prefix.as_str(), other.region.as_str()),
            ("", "us-east-1")
        );
        assert!(!format!("{other:?}").contains("hush"));
    }

    #[test]
    fn plain_http_stays_within_the_network() {
        for (url, is_taken) in [
            ("http://127.0.0.1:9000", true),
            ("http://[::1]:9000", true),
            ("http://minio:9000", true),
            ("http://10.1.2.3:9000", true),
            ("http://1.2.3.4:9000", false),
            ("http://minio.example:9000", false),
            ("http://u:p@minio:9000", false),
            ("https://", false),
            ("ftp://minio", false),
            ("https://s3.example?x=1", false),
        ] {
            assert_eq!(is_endpoint(url), is_taken, "{url}");
        }
    }
}
