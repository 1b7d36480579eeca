//! Limits of failed sign-ins, by client and by address. A secret of 256 bits cannot be guessed; the limits bound the
//! cost of callers that try, and point out a client whose settings are wrong.
//!
//! A client's failures are counted in the database, over all processes and addresses. They cannot lock its owner out: a
//! network in which the client holds a refresh token is counted apart from all others. An address's failures are
//! counted by each process in memory, because one caller can use any number of IPv6 addresses.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

/// Failures in a period after which even the right secret must wait, for a client …
pub const MAX_CLIENT_FAILURES: u32 = 10;
/// … and for one address in one process, whatever clients it names.
pub const MAX_ADDRESS_FAILURES: u32 = 100;
/// The period in which failures are counted.
pub const PERIOD: TimeDelta = TimeDelta::seconds(60);
/// Most counters kept in memory.
const MAX_COUNTED: usize = 20_000;
const SWEPT_EVERY: TimeDelta = TimeDelta::seconds(1);

/// Failures within the period that began at `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    pub since: DateTime<Utc>,
    pub count: u32,
}

impl Failures {
    /// Seconds until the period ends if `count` reached `most`, at least 1; `None`: no wait. A period in the future was
    /// begun by a clock that was set back since and does not count.
    pub fn wait_s(&self, most: u32, now: DateTime<Utc>) -> Option<u32> {
        let left = (self.since + PERIOD - now).num_seconds();
        (self.count >= most && self.is_open(now)).then(|| u32::try_from(left).unwrap_or(1).max(1))
    }

    fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.since <= now && now < self.since + PERIOD
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    Address(String),
    /// A client that does not exist. Counted like one that exists, so callers cannot find out which do.
    UnknownClient(String),
    /// A client that has reached its limit for callers from this network: refused from memory.
    ClientAt(String, String),
}

impl Counted {
    /// Names are cut to 64 characters, to bound the memory that a caller can use.
    fn client(client_id: &str) -> String {
        client_id.chars().take(64).collect()
    }

    fn client_at(client_id: &str, network: Option<&str>) -> Counted {
        Counted::ClientAt(Counted::client(client_id), network.unwrap_or_default().to_owned())
    }
}

/// The failures that one process knows of.
#[derive(Debug, Default)]
pub struct SignInThrottle {
    counts: HashMap<Counted, Failures>,
    /// When expired periods were last removed; scanning on each failure would cost too much.
    swept_at: DateTime<Utc>,
}

impl SignInThrottle {
    /// Seconds that every sign-in from this address must wait; `None`: no wait. An unknown address has no limit,
    /// because all callers with an unknown address would share it.
    pub fn address_waits_s(&self, network: Option<&str>, now: DateTime<Utc>) -> Option<u32> {
        self.waits_s(&Counted::Address(network?.to_owned()), MAX_ADDRESS_FAILURES, now)
    }

    /// Seconds that a sign-in of this client from this network must wait, as far as this process knows; `None`: no
    /// wait.
    pub fn client_waits_s(&self, client_id: &str, network: Option<&str>, now: DateTime<Utc>) -> Option<u32> {
        let unknown = Counted::UnknownClient(Counted::client(client_id));
        let struck = Counted::client_at(client_id, network);
        self.waits_s(&unknown, MAX_CLIENT_FAILURES, now).max(self.waits_s(&struck, MAX_CLIENT_FAILURES, now))
    }

    fn waits_s(&self, counted: &Counted, most: u32, now: DateTime<Utc>) -> Option<u32> {
        self.counts.get(counted)?.wait_s(most, now)
    }

    /// Counts a failed sign-in from this address.
    pub fn address_failed(&mut self, network: Option<&str>, now: DateTime<Utc>) {
        if let Some(network) = network {
            self.failed(Counted::Address(network.to_owned()), now);
        }
    }

    /// Counts a failed sign-in with a client id that does not exist.
    pub fn unknown_client_failed(&mut self, client_id: &str, now: DateTime<Utc>) {
        self.failed(Counted::UnknownClient(Counted::client(client_id)), now);
    }

    /// Remembers that the database limits this client for callers from this network, `by` these failures.
    pub fn client_is_limited(&mut self, client_id: &str, network: Option<&str>, by: Failures, now: DateTime<Utc>) {
        let counted = Counted::client_at(client_id, network);
        if self.has_room(&counted, now) {
            self.counts.insert(counted, by);
        }
    }

    fn failed(&mut self, counted: Counted, now: DateTime<Utc>) {
        if !self.has_room(&counted, now) {
            return;
        }
        let failures = self.counts.entry(counted).or_insert(Failures { since: now, count: 0 });
        if !failures.is_open(now) {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count += 1;
    }

    fn has_room(&mut self, counted: &Counted, now: DateTime<Utc>) -> bool {
        if self.counts.len() >= MAX_COUNTED && (now - self.swept_at).abs() >= SWEPT_EVERY {
            self.swept_at = now;
            self.counts.retain(|_, failures| failures.is_open(now));
        }
        self.counts.len() < MAX_COUNTED || self.counts.contains_key(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_over_its_limit_waits_and_others_do_not() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let (one, other) = (Some("1.1.1.1"), Some("2.2.2.2"));
        let mut strikes = SignInThrottle::default();
        for _ in 0..MAX_ADDRESS_FAILURES {
            assert_eq!(strikes.address_waits_s(one, now), None);
            strikes.address_failed(one, now);
            strikes.address_failed(None, now);
        }
        assert_eq!(strikes.address_waits_s(one, now), Some(60));
        assert_eq!(strikes.address_waits_s(other, now), None);
        assert_eq!(strikes.address_waits_s(None, now), None);
        assert_eq!(strikes.address_waits_s(one, now + TimeDelta::seconds(59)), Some(1));
        assert_eq!(strikes.address_waits_s(one, now + PERIOD), None);
        assert_eq!(strikes.address_waits_s(one, now - PERIOD), None, "a clock that was set back locks nobody out");
    }

    #[test]
    fn limited_client_waits_in_every_network_counted_together() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut strikes = SignInThrottle::default();
        for _ in 0..MAX_CLIENT_FAILURES {
            assert_eq!(strikes.client_waits_s("nobody", Some("1.1.1.1"), now), None);
            strikes.unknown_client_failed("nobody", now);
        }
        assert_eq!(strikes.client_waits_s("nobody", Some("2.2.2.2"), now), Some(60));
        assert_eq!(strikes.client_waits_s("nobody else", Some("1.1.1.1"), now), None);
        let by = Failures { since: now - TimeDelta::seconds(20), count: MAX_CLIENT_FAILURES };
        strikes.client_is_limited("a", None, by, now);
        assert_eq!(strikes.client_waits_s("a", None, now), Some(40));
        assert_eq!(strikes.client_waits_s("a", Some("1.1.1.1"), now), None, "the database knows");
    }

    #[test]
    fn memory_is_bounded() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut strikes = SignInThrottle::default();
        for n in 0..2 * MAX_COUNTED {
            strikes.unknown_client_failed(&n.to_string(), now);
            strikes.address_failed(Some(&n.to_string()), now);
        }
        assert_eq!(strikes.counts.len(), MAX_COUNTED);
        strikes.address_failed(Some("9.9.9.9"), now + PERIOD);
        assert_eq!(strikes.counts.len(), 1, "periods that are over are forgotten");
    }
}
