//! A partner's request limit (S0-33, S0-34): at most `limit` requests in any second, over all processes. The database
//! counts in slots of 10 ms. A process leases a share of the limit and spends it without a query, so that requests do
//! not queue for a row that all of them write.

use chrono::{DateTime, TimeDelta, Utc};

/// Slots in a second …
const SLOTS_PER_SECOND: i32 = 100;
/// … and slots that are counted. One more than a second has: the current slot has just begun, and without the extra one
/// almost two seconds' worth could fall into one second.
pub const COUNTED_SLOTS: i32 = SLOTS_PER_SECOND + 1;
const SECOND: TimeDelta = TimeDelta::seconds(1);
/// A lease is at most this fraction of the limit, because no other process can use it.
const MIN_LEASES_PER_LIMIT: i32 = 50;
/// A lease used up faster than this was too small.
const SHORT_LEASE: TimeDelta = TimeDelta::milliseconds(100);

/// The number of the slot, counted from 1970, that contains this moment.
pub fn slot(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros().div_euclid(1_000_000 / i64::from(SLOTS_PER_SECOND))
}

/// The part of a partner's limit that one process has leased.
#[derive(Debug)]
pub struct RateLease {
    remaining: i32,
    /// Free in the database beyond this lease, as of the last query.
    free: i32,
    /// Size of the next lease. Small for a partner that posts little; otherwise many processes would hold back parts of
    /// the limit from each other.
    chunk: i32,
    leased_at: DateTime<Utc>,
    /// Nothing was free at the last query; the database is not asked before this time.
    ask_at: DateTime<Utc>,
}

impl Default for RateLease {
    fn default() -> RateLease {
        let never = DateTime::UNIX_EPOCH;
        RateLease { remaining: 0, free: 0, chunk: 1, leased_at: never, ask_at: never }
    }
}

/// The answer to a request for permission.
#[derive(Debug, PartialEq, Eq)]
pub enum TakeResult {
    /// `Some`: permitted, with the number known to be still free. `None`: over the limit.
    Decided(Option<i32>),
    /// Not known here: lease this many in the database, then call `add_lease`.
    NeedsLease(i32),
}

impl RateLease {
    /// Takes permission for `cost` requests of a partner with `limit` requests a second.
    pub fn take(&mut self, cost: i32, limit: i32, now: DateTime<Utc>) -> TakeResult {
        // A lease is worth one second, because the database counts it for that long. A lease from the future was taken
        // by a clock that was set back since.
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

    /// Adds a lease of `got` requests and takes `cost` of it; `free`: what the database has free beyond it. Returns the
    /// number still free, or `None` if the request is over the limit.
    pub fn add_lease(&mut self, got: i32, free: i32, cost: i32, now: DateTime<Utc>) -> Option<i32> {
        self.free = free;
        if got < cost {
            // The next slot may free some. Only a request of cost 1 proves that nothing was free.
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
    fn lease_is_used_up_and_expires() {
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
    fn batch_takes_its_whole_cost_at_once() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut lease = RateLease::default();
        assert_eq!(lease.take(500, 1000, now), TakeResult::NeedsLease(500));
        assert_eq!(lease.add_lease(500, 10, 500, now), Some(10), "and no other request takes the permits first");
        assert_eq!(lease.take(500, 1000, now), TakeResult::NeedsLease(500));
        assert_eq!(lease.add_lease(0, 10, 500, now), None);
        assert!(
            matches!(lease.take(1, 1000, now), TakeResult::NeedsLease(_)),
            "what was too little for a batch may do for one"
        );
    }
}
