//! A partner's request limit (S0-33, S0-34): at most so many in any second, over all processes. The books count in slots of
//! a second; a process leases a chunk and spends it without asking, so that no request waits for a row that all write.

use chrono::{DateTime, TimeDelta, Utc};

/// Slots of a second …
const SLOTS_PER_SECOND: i32 = 100;
/// … and how many are counted: with the one that has just begun, lest two seconds' worth come within one.
pub const COUNTED_SLOTS: i32 = SLOTS_PER_SECOND + 1;
const SECOND: TimeDelta = TimeDelta::seconds(1);
/// A lease is at most this part of the limit: what a process has in hand that another could have used.
const MIN_LEASES_PER_LIMIT: i32 = 50;
/// A lease that lasted less was too small.
const SHORT_LEASE: TimeDelta = TimeDelta::milliseconds(100);

/// The number of the slot that holds this moment.
pub fn slot(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros().div_euclid(1_000_000 / i64::from(SLOTS_PER_SECOND))
}

/// What one process has in hand of one partner's limit.
#[derive(Debug)]
pub struct RateLease {
    remaining: i32,
    /// What the books had free beyond it when last asked.
    free: i32,
    /// How much to lease next: little for one that posts little, or many processes would keep the limit from each other.
    chunk: i32,
    leased_at: DateTime<Utc>,
    /// Nothing was free when last asked: not worth asking before.
    ask_at: DateTime<Utc>,
}

impl Default for RateLease {
    fn default() -> RateLease {
        let never = DateTime::UNIX_EPOCH;
        RateLease { remaining: 0, free: 0, chunk: 1, leased_at: never, ask_at: never }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum TakeResult {
    /// Go on, and so many more are known to be free; or none.
    Decided(Option<i32>),
    /// The books have to be asked for so many.
    NeedsLease(i32),
}

impl RateLease {
    pub fn take(&mut self, cost: i32, limit: i32, now: DateTime<Utc>) -> TakeResult {
        // What was leased counts for a second, and is of no use after it; nor is what a clock says that was set back.
        let good = self.leased_at <= now && now < self.leased_at + SECOND;
        if good && self.remaining >= cost {
            self.remaining -= cost;
            return TakeResult::Decided(Some(self.remaining + self.free));
        }
        if now < self.ask_at && self.ask_at <= now + SECOND {
            return TakeResult::Decided(None);
        }
        let since = now - self.leased_at;
        self.chunk = match since {
            _ if good && since < SHORT_LEASE => self.chunk.saturating_mul(2).min(limit / MIN_LEASES_PER_LIMIT),
            _ if good || since < SECOND * 2 => self.chunk / 2,
            _ => 1,
        };
        self.chunk = self.chunk.max(1);
        if !good {
            self.remaining = 0;
        }
        TakeResult::NeedsLease(self.chunk.max(cost))
    }

    /// What the books gave for a request that costs so much, and what they have free beyond: then so many more are free, or
    /// the request is one too many.
    pub fn add_lease(&mut self, got: i32, free: i32, cost: i32, now: DateTime<Utc>) -> Option<i32> {
        self.free = free;
        if got < cost {
            // The next slot may free some. One that takes many may have asked for more than one that takes one.
            if cost == 1 {
                let micros = (slot(now) + 1) * (1_000_000 / i64::from(SLOTS_PER_SECOND));
                self.ask_at = DateTime::from_timestamp_micros(micros).unwrap_or(now);
            }
            return None;
        }
        self.remaining += got - cost;
        self.leased_at = now;
        Some(self.remaining + free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_spent_and_ends() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00.001Z".parse().unwrap();
        let ms = TimeDelta::milliseconds;
        let mut lease = RateLease::default();
        assert_eq!(lease.take(1, 1000, now), TakeResult::NeedsLease(1));
        assert_eq!(lease.add_lease(1, 999, 1, now), Some(999));
        let mut asked = Vec::new();
        for _ in 0..100 {
            if let TakeResult::NeedsLease(wanted) = lease.take(1, 1000, now) {
                asked.push(wanted);
                lease.add_lease(wanted, 0, 1, now);
            }
        }
        assert_eq!(asked, [2, 4, 8, 16, 20, 20, 20, 20], "more for one that posts much");
        let later = now + ms(1500);
        assert_eq!(lease.take(1, 1000, later), TakeResult::NeedsLease(10), "it counted for a second");
        let later = now + ms(4000);
        assert_eq!(lease.take(1, 1000, later), TakeResult::NeedsLease(1), "little for one that posts little");
        assert_eq!(lease.add_lease(0, 0, 1, later), None);
        assert_eq!(lease.take(1, 1000, later), TakeResult::Decided(None), "until the next slot");
        assert_eq!(lease.take(1, 1000, later + ms(8)), TakeResult::Decided(None));
        assert_eq!(lease.take(1, 1000, later + ms(9)), TakeResult::NeedsLease(1));
        lease.add_lease(20, 0, 1, later);
        assert_eq!(
            lease.take(1, 1000, later - TimeDelta::seconds(100)),
            TakeResult::NeedsLease(1),
            "the clock was set back"
        );
    }

    #[test]
    fn a_batch_takes_all_it_needs_at_once() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut lease = RateLease::default();
        assert_eq!(lease.take(500, 1000, now), TakeResult::NeedsLease(500));
        assert_eq!(lease.add_lease(500, 10, 500, now), Some(10), "and nobody else gets it in between");
        assert_eq!(lease.take(500, 1000, now), TakeResult::NeedsLease(500));
        assert_eq!(lease.add_lease(0, 10, 500, now), None);
        assert!(
            matches!(lease.take(1, 1000, now), TakeResult::NeedsLease(_)),
            "what was too little for a batch may do for one"
        );
    }
}
