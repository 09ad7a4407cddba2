//! Settings of the object storage: `BULLWARK_STORAGE_…`.

use super::{ConfigError, ENVIRONMENT};
use crate::storage::StorageOptions;

const START: &str = "BULLWARK_STORAGE_";

/// Puts them together; none: nothing is said of it.
pub(super) fn settle(
    read: impl Fn(&str) -> Option<String>,
) -> Result<Option<StorageOptions>, ConfigError> {
    let read = |end: &str| read(&format!("{START}{end}"));
    StorageOptions::read(read).map_err(|invalid| {
        let names = ENVIRONMENT.iter();
        let name = names
            .copied()
            .find(|name| name.strip_prefix(START) == Some(invalid.setting));
        let value = match invalid.setting {
            "SECRET" | "KEY_ID" => None,
            setting => read(setting),
        };
        ConfigError::Invalid {
            name: name.unwrap_or(START),
            value: value.unwrap_or_else(|| "(not shown)".to_owned()),
            why: invalid.why.to_owned(),
        }
    })
}
