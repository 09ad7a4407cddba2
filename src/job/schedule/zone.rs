//! Time zones by the names that `BullMQ` clients use.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

/// A place's clock: a name of the IANA list in any case, `UTC`, `GMT`, or `UTC+3`, `UTC-03:30`.
///
/// The default is UTC. `BullMQ` takes the zone of its process there, which differs between the
/// processes that share a queue; name a zone wherever it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    Named(Tz),
    Fixed(FixedOffset),
}

/// Not the name of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time zone: use a name such as `Europe/Berlin`, or `UTC+3`")]
pub struct UnknownZone(pub String);

impl Default for Zone {
    fn default() -> Self {
        Self::Named(Tz::UTC)
    }
}

impl Zone {
    /// A moment, in ms since 1970, on the local clock.
    pub(super) fn local(self, moment_ms: i64) -> Option<DateTime<FixedOffset>> {
        let utc = DateTime::<Utc>::from_timestamp_millis(moment_ms)?;
        let seconds = self.offset(moment_ms.div_euclid(1000));
        let offset = FixedOffset::east_opt(i32::try_from(seconds).ok()?)?;
        Some(utc.with_timezone(&offset))
    }

    /// A moment on the local clock.
    pub fn local_time(self, moment: DateTime<Utc>) -> DateTime<FixedOffset> {
        let local = self.local(moment.timestamp_millis());
        local.unwrap_or_else(|| moment.fixed_offset())
    }

    /// The day that it is there.
    pub fn date(self, moment: DateTime<Utc>) -> NaiveDate {
        self.local_time(moment).date_naive()
    }

    /// When a day begins there: at midnight, the first one if there are two; where clocks leap over
    /// midnight, when they do.
    pub fn begin_of(self, day: NaiveDate) -> DateTime<Utc> {
        const DAY: i64 = 24 * 3600;
        let midnight = NaiveDateTime::from(day).and_utc().timestamp();
        // No clock is changed twice within two days.
        let [earlier, later] = [-DAY, DAY].map(|near| midnight - self.offset(midnight + near));
        let is_midnight = |moment: &i64| moment + self.offset(*moment) == midnight;
        let mut both = [earlier.min(later), earlier.max(later)].into_iter();
        let moment = both.find(is_midnight).unwrap_or(earlier);
        DateTime::from_timestamp(moment, 0).unwrap_or_default()
    }

    /// Seconds that the local clock is ahead of UTC at a moment, given in seconds since 1970.
    pub(super) fn offset(self, moment: i64) -> i64 {
        let utc = naive(moment);
        let offset = match self {
            Self::Named(zone) => zone.offset_from_utc_datetime(&utc).fix(),
            Self::Fixed(offset) => offset,
        };
        i64::from(offset.local_minus_utc())
    }
}

fn naive(moment: i64) -> NaiveDateTime {
    DateTime::<Utc>::from_timestamp(moment, 0)
        .unwrap_or_default()
        .naive_utc()
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(text: &str) -> Result<Self, UnknownZone> {
        if let Ok(zone) = text.parse() {
            return Ok(Self::Named(zone));
        }
        let named = TZ_VARIANTS
            .iter()
            .find(|zone| zone.name().eq_ignore_ascii_case(text));
        if let Some(zone) = named {
            return Ok(Self::Named(*zone));
        }
        fixed(text).ok_or_else(|| UnknownZone(text.to_owned()))
    }
}

/// `UTC+3`, `utc-03:30`.
fn fixed(text: &str) -> Option<Zone> {
    let (name, rest) = text.split_at_checked(3)?;
    if !name.eq_ignore_ascii_case("utc") {
        return None;
    }
    let sign = match rest.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = rest[1..].split_once(':').unwrap_or((&rest[1..], "0"));
    let is_number = |text: &str| text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    FixedOffset::east_opt(sign * seconds).map(Zone::Fixed)
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(zone) => f.write_str(zone.name()),
            Self::Fixed(offset) => write!(f, "UTC{offset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_the_names_that_clients_use() {
        let offset = |name: &str| name.parse::<Zone>().unwrap().offset(1_700_000_000);
        assert_eq!(offset("Europe/Berlin"), 3600);
        assert_eq!(offset("europe/berlin"), 3600);
        assert_eq!(offset("utc"), 0);
        assert_eq!(offset("GMT"), 0);
        assert_eq!(offset("UTC+3"), 3 * 3600);
        assert_eq!(offset("utc-03:30"), -12_600);
        for bad in [
            "",
            "Mars",
            "UTC+",
            "UTC+99",
            "UTC+1x",
            "Europe/Berlin ",
            "u+1",
        ] {
            assert_eq!(bad.parse::<Zone>(), Err(UnknownZone(bad.to_owned())));
        }
    }
}
