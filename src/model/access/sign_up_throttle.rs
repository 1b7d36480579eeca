//! Limit of sign-ups from one address. Counted by each process in memory.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

/// Sign-ups from one address (IPv6: one /64) within an hour, at one process.
pub const MAX_SIGN_UPS: u32 = 10;
const PERIOD: TimeDelta = TimeDelta::hours(1);
/// Most addresses counted. Beyond it, periods that are over are removed; if none is, further addresses are not counted.
const MAX_COUNTED: usize = 20_000;

/// The sign-ups that one process saw.
#[derive(Debug, Default)]
pub struct SignUpThrottle(HashMap<String, (DateTime<Utc>, u32)>);

impl SignUpThrottle {
    /// Counts a sign-up from an address, unless it has reached the limit: then the seconds to wait, at least 1. An
    /// unknown address has no limit.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn take(&mut self, network: Option<&str>, now: DateTime<Utc>) -> Result<(), u32> {
        let Some(network) = network else { return Ok(()) };
        let is_open = |since: DateTime<Utc>| since <= now && now < since + PERIOD;
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(network) {
            self.0.retain(|_, (since, _)| is_open(*since));
            if self.0.len() >= MAX_COUNTED {
                return Ok(());
            }
        }
        let (since, count) = self.0.entry(network.to_owned()).or_insert((now, 0));
        if !is_open(*since) {
            (*since, *count) = (now, 0);
        }
        if *count >= MAX_SIGN_UPS {
            return Err(u32::try_from((*since + PERIOD - now).num_seconds()).unwrap_or(1).max(1));
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eleventh_sign_up_of_an_address_waits_for_the_hour_to_end() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut throttle = SignUpThrottle::default();
        for _ in 0..MAX_SIGN_UPS {
            assert_eq!(throttle.take(Some("a"), now), Ok(()));
        }
        assert_eq!(throttle.take(Some("a"), now + TimeDelta::minutes(59)), Err(60));
        assert_eq!(throttle.take(Some("b"), now), Ok(()));
        assert_eq!(throttle.take(None, now), Ok(()));
        assert_eq!(throttle.take(Some("a"), now + PERIOD), Ok(()));
    }
}
