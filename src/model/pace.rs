//! Pace: a destination that answers "too fast" gets nothing until the time it named, and then one message at a time, as
//! often as it was seen to take one. The pace eases off while all goes well, and is forgotten after a quiet time.
//!
//! Where each destination is a server of its own, one that fails again and again is left alone for a while, and then
//! tried with one message at a time until it works: its trouble is not the others'.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::delivery::Outcome;
use super::retry::ErrorClass;

/// To what a provider's "too fast" applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// To one message, or it is not known.
    Message,
    /// To everything sent with the account.
    Account,
    /// To one destination of a chat, which is called by one request at a time.
    Destination,
    /// To one partner's endpoint; how many requests it gets at a time is its gate's (`model::gate`).
    Endpoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Nothing is sent before.
    pub next_at: DateTime<Utc>,
    /// After that, one message each.
    pub interval: Duration,
    /// How often it was seen to fail while it is in trouble; 0: it is not.
    pub failures: i16,
}

/// A destination that failed so often in a row is in trouble.
pub const FAILURES_TO_TROUBLED: u32 = 5;
/// It is left alone for so long at first, twice as long after each further failure …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … and no longer than this.
const MAX_FAILURE_PAUSE: Duration = Duration::from_secs(300);

/// Where a destination names no time.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// A shorter interval limits nothing.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// After so many messages without a "too fast" the interval is a fifth shorter.
pub const EASE_AFTER_MESSAGES: i32 = 10;
/// A destination to which nothing had to wait for so long is as one that never said anything.
pub const FORGET_AFTER: TimeDelta = TimeDelta::minutes(5);
/// After an outage, not a limit: how far apart messages come that waited for it to end.
const OUTAGE_SPACING: Duration = Duration::from_millis(250);
/// The same of an account, whose limit is counted by its vendor: only the herd is avoided.
const ACCOUNT_SPACING: Duration = Duration::from_millis(20);
/// How far apart those come that wait for a destination that fails.
const FAILING_SPACING: Duration = Duration::from_millis(10);
/// A message that waits behind others looks again after so long, or at the time that the destination named if that is
/// later: its pace may have eased off by then.
const MAX_SLOT_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// Nothing is put off for longer in one step.
const MAX_PAUSE: TimeDelta = TimeDelta::hours(1);

impl Pace {
    /// The pace that an answer asks for; None: it asks for none.
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
        // One that names a longer time is asked again before, and may name it again.
        let said = TimeDelta::from_std(said).unwrap_or(MAX_PAUSE).min(MAX_PAUSE);
        Some(Pace { next_at: now + said, interval, failures: 0 })
    }

    /// The pace of a destination that was seen to fail so often while in trouble. `jitter` in 0..1, so that those that
    /// failed together do not come back together.
    pub fn after_failures(failures: i16, now: DateTime<Utc>, jitter: f64) -> Pace {
        let doubled = 1 << u32::try_from(failures - 1).unwrap_or(0).min(16);
        let most = FIRST_PAUSE.saturating_mul(doubled).min(MAX_FAILURE_PAUSE);
        let interval = most.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        Pace { next_at: now + interval, interval, failures }
    }

    /// How far apart those that wait are let go: a little more than the interval, for they are not sent at the very
    /// moment.
    pub fn spacing(&self) -> Duration {
        match self.interval {
            // They come soon after it works again: one that comes too early is put off once more.
            _ if self.failures > 0 => FAILING_SPACING,
            interval if interval <= ACCOUNT_SPACING => interval,
            interval => interval.mul_f64(1.1) + OUTAGE_SPACING,
        }
    }

    /// When the next one that has to wait may come, and the one after it. `last`: as it was told the one before.
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
    fn a_429_sets_the_pace_and_an_outage_only_the_time() {
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
    fn those_that_wait_are_spread() {
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
    fn a_destination_in_trouble_is_left_alone_for_longer_each_time() {
        let pauses =
            [1, 2, 3, 7, i16::MAX].map(|failures| Pace::after_failures(failures, at(0), 1.0).interval.as_secs());
        assert_eq!(pauses, [5, 10, 20, 300, 300]);
        let troubled = Pace::after_failures(7, at(0), 0.0);
        assert_eq!((troubled.next_at, troubled.spacing()), (at(150), FAILING_SPACING));
    }
}
