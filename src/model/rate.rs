//! A partner's request limit (S0-33, S0-34): at most so many in any second, over all processes. The books count in slots of
//! a second; a process leases a chunk and spends it without asking, so that no request waits for a row that all write.

use chrono::{DateTime, TimeDelta, Utc};

/// Slots of a second.
pub const SLOTS: i32 = 20;
const SECOND: TimeDelta = TimeDelta::seconds(1);
/// A lease is this part of the limit: what a process may at most have in hand that another could have used.
const CHUNKS: i32 = 50;

/// The number of the slot that holds this moment.
pub fn slot(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros().div_euclid(1_000_000 / i64::from(SLOTS))
}

/// How many to lease at once.
pub fn chunk(limit: i32, cost: i32) -> i32 {
    (limit / CHUNKS).max(cost)
}

/// What one process has in hand of one partner's limit.
#[derive(Debug)]
pub struct Lease {
    left: i32,
    /// What was leased counts for a second, and is of no use after it.
    until: DateTime<Utc>,
    /// Nothing was free when last asked: not worth asking before.
    ask_at: DateTime<Utc>,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease { left: 0, until: DateTime::UNIX_EPOCH, ask_at: DateTime::UNIX_EPOCH }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Go on; so many are left in hand.
    Yes(i32),
    No,
    /// The books have to be asked.
    Ask,
}

impl Lease {
    pub fn take(&mut self, cost: i32, now: DateTime<Utc>) -> Taken {
        // A lease from further ahead than a second is one of a clock that was set back.
        if now >= self.until || self.until > now + SECOND {
            self.left = 0;
        }
        if self.left >= cost {
            self.left -= cost;
            return Taken::Yes(self.left);
        }
        if now < self.ask_at && self.ask_at <= now + SECOND { Taken::No } else { Taken::Ask }
    }

    /// What the books gave, asked at `now` for a request that costs so much.
    pub fn leased(&mut self, got: i32, cost: i32, now: DateTime<Utc>) {
        if got == 0 && cost == 1 {
            // The next slot may free some.
            let micros = (slot(now) + 1) * (1_000_000 / i64::from(SLOTS));
            self.ask_at = DateTime::from_timestamp_micros(micros).unwrap_or(now);
        }
        if got > 0 {
            self.left = if now < self.until { self.left + got } else { got };
            self.until = now + SECOND;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_spent_and_ends() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00.010Z".parse().unwrap();
        let mut lease = Lease::default();
        assert_eq!(lease.take(1, now), Taken::Ask);
        lease.leased(chunk(1000, 1), 1, now);
        assert_eq!(lease.take(1, now), Taken::Yes(19));
        assert_eq!(lease.take(19, now), Taken::Yes(0));
        assert_eq!(lease.take(1, now), Taken::Ask);
        lease.leased(0, 1, now);
        assert_eq!(lease.take(1, now), Taken::No, "until the next slot");
        assert_eq!(lease.take(1, now + TimeDelta::milliseconds(39)), Taken::No);
        assert_eq!(lease.take(1, now + TimeDelta::milliseconds(40)), Taken::Ask);
        lease.leased(20, 1, now);
        assert_eq!(lease.take(1, now + TimeDelta::milliseconds(1000)), Taken::Ask, "it counted for a second");
        lease.leased(20, 1, now);
        assert_eq!(lease.take(1, now - TimeDelta::seconds(100)), Taken::Ask, "the clock was set back");
    }

    #[test]
    fn a_batch_takes_all_it_needs_at_once() {
        assert_eq!((chunk(1000, 1), chunk(1000, 500), chunk(5, 1)), (20, 500, 1));
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut lease = Lease::default();
        lease.leased(0, 500, now);
        assert_eq!(lease.take(1, now), Taken::Ask, "what was too little for a batch may do for one");
    }
}
