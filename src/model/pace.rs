//! Pacing of destinations. A destination that answers "too fast" gets nothing until the time it named, and then one
//! message at a time at the rate it was seen to accept. The interval shrinks while all goes well, and the pace is
//! forgotten after a quiet time.
//!
//! Where each destination is a server of its own, one that fails repeatedly is not called for a while and then tried
//! with one message at a time until it works, so that its failures do not delay others.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::delivery::Outcome;
use super::retry::ErrorClass;

/// What a provider's "too fast" applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// A single message, or unknown.
    Message,
    /// Everything sent with the account.
    Account,
    /// One chat destination, which gets one request at a time.
    Destination,
    /// One partner's endpoint. The number of concurrent requests to it is limited by `model::concurrency`.
    Endpoint,
}

/// The pace of one destination or account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Nothing is sent before this time.
    pub next_at: DateTime<Utc>,
    /// From then on one message in each interval.
    pub interval: Duration,
    /// Failures since it is in trouble; 0: it is not.
    pub failures: i16,
}

/// Failures in a row that put a destination in trouble.
pub const FAILURES_TO_TROUBLED: u32 = 5;
/// Pause after the first of them; doubled with each further failure …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … up to this.
const MAX_FAILURE_PAUSE: Duration = Duration::from_secs(300);

/// Pause where the destination names no time.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// A shorter interval limits nothing, so its pace is not listed.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Longest interval.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// After this many messages without a "too fast" the interval shrinks by a fifth.
pub const EASE_AFTER_MESSAGES: i32 = 10;
/// A pace that delayed nothing for this long is forgotten.
pub const FORGET_AFTER: TimeDelta = TimeDelta::minutes(5);
/// Distance between messages that waited for an outage to end.
const OUTAGE_SPACING: Duration = Duration::from_millis(250);
/// Distance between messages that waited for an account. The vendor counts the account's limit itself, so this only
/// avoids a burst.
const ACCOUNT_SPACING: Duration = Duration::from_millis(20);
/// Distance between messages that wait for a failing destination.
const FAILING_SPACING: Duration = Duration::from_millis(10);
/// A message that waits behind others tries again after this, or at the time that the destination named if that is
/// later: the pace may have eased by then.
const MAX_SLOT_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// No single wait is longer.
const MAX_PAUSE: TimeDelta = TimeDelta::hours(1);

impl Pace {
    /// The pace that an outcome asks for; `None`: it asks for none.
    pub fn from_outcome(outcome: &Outcome, limited_by: LimitScope, now: DateTime<Utc>) -> Option<Pace> {
        let Outcome::Rejected { class, retry_after, .. } = outcome else { return None };
        let (said, interval) = match (class, retry_after) {
            (ErrorClass::Throttled, said) => {
                (said.unwrap_or(DEFAULT_PAUSE), said.unwrap_or(DEFAULT_PAUSE).min(MAX_INTERVAL))
            }
            (ErrorClass::ProviderInternal | ErrorClass::EndpointRefused, Some(said)) => (*said, OUTAGE_SPACING),
            _ => return None,
        };
        let interval = if limited_by == LimitScope::Account { ACCOUNT_SPACING } else { interval.max(OUTAGE_SPACING) };
        // A destination that names a longer time is asked again before, and may name it again.
        let said = TimeDelta::from_std(said).unwrap_or(MAX_PAUSE).min(MAX_PAUSE);
        Some(Pace { next_at: now + said, interval, failures: 0 })
    }

    /// The pace of a destination in trouble after `failures` failures (from 1). `jitter` in 0..1 spreads destinations
    /// that failed together.
    pub fn after_failures(failures: i16, now: DateTime<Utc>, jitter: f64) -> Pace {
        let doubled = 1 << u32::try_from(failures - 1).unwrap_or(0).min(16);
        let most = FIRST_PAUSE.saturating_mul(doubled).min(MAX_FAILURE_PAUSE);
        let interval = most.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        Pace { next_at: now + interval, interval, failures }
    }

    /// Distance between waiting messages: a little more than the interval, because a message is not sent at the exact
    /// time.
    pub fn spacing(&self) -> Duration {
        match self.interval {
            // They are tried soon after it works again; one that comes too early waits once more.
            _ if self.failures > 0 => FAILING_SPACING,
            interval if interval <= ACCOUNT_SPACING => interval,
            interval => interval.mul_f64(1.1) + OUTAGE_SPACING,
        }
    }

    /// The time at which the next waiting message may be tried, and the time to pass as `last` for the one after it.
    /// `last`: the second value of the previous call.
    pub fn next_slot(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let longest = MAX_SLOT_AHEAD.max(self.next_at - now).min(MAX_PAUSE);
        let slot = last.unwrap_or(self.next_at).max(self.next_at).min(now + longest);
        (slot, slot + self.spacing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn rejected(class: ErrorClass, seconds: Option<u64>) -> Outcome {
        let retry_after = seconds.map(Duration::from_secs);
        Outcome::Rejected { class, code: "x".into(), detail: "x".into(), retry_after }
    }

    #[test]
    fn throttling_sets_the_interval_and_an_outage_only_the_time() {
        let asked = |outcome, by| {
            Pace::from_outcome(&outcome, by, at(0))
                .map(|pace| ((pace.next_at - at(0)).num_seconds(), pace.interval.as_millis()))
        };
        let throttled = |seconds| rejected(ErrorClass::Throttled, seconds);
        assert_eq!(asked(throttled(Some(5)), LimitScope::Destination), Some((5, 5_000)));
        assert_eq!(asked(throttled(Some(7_200)), LimitScope::Destination), Some((3_600, 60_000)));
        assert_eq!(asked(throttled(None), LimitScope::Endpoint), Some((1, 1_000)));
        assert_eq!(asked(throttled(Some(5)), LimitScope::Account), Some((5, 20)));
        assert_eq!(asked(rejected(ErrorClass::EndpointRefused, Some(9)), LimitScope::Endpoint), Some((9, 250)));
        assert_eq!(asked(rejected(ErrorClass::EndpointRefused, None), LimitScope::Endpoint), None);
        assert_eq!(asked(Outcome::Accepted { provider_ref: None }, LimitScope::Destination), None);
    }

    #[test]
    fn waiting_messages_are_spread() {
        let pace = Pace { next_at: at(5), interval: Duration::from_secs(5), failures: 0 };
        let (first, second) = pace.next_slot(None, at(0));
        assert_eq!((first, second), (at(5), at(10) + TimeDelta::milliseconds(750)));
        assert_eq!(pace.next_slot(Some(second), at(0)).0, second);
        assert_eq!(pace.next_slot(Some(at(-60)), at(0)).0, at(5), "what was told long ago");
        assert_eq!(pace.next_slot(Some(at(9_000)), at(0)).0, at(300), "the pace may have eased off by then");
        let named = Pace { next_at: at(1_000), ..pace };
        assert_eq!(named.next_slot(None, at(0)).0, at(1_000));
        assert_eq!(named.next_slot(Some(at(9_000)), at(0)).0, at(1_000));
    }

    #[test]
    fn failing_destination_pauses_longer_each_time() {
        let pauses =
            [1, 2, 3, 7, i16::MAX].map(|failures| Pace::after_failures(failures, at(0), 1.0).interval.as_secs());
        assert_eq!(pauses, [5, 10, 20, 300, 300]);
        let troubled = Pace::after_failures(7, at(0), 0.0);
        assert_eq!((troubled.next_at, troubled.spacing()), (at(150), FAILING_SPACING));
    }
}
