//! Token buckets: how often each of many may do a thing, in one process. Bounded in memory.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

/// Most buckets kept. Beyond it, full ones are removed, because a new one is full as well.
const MAX_KEPT: usize = 65_536;

/// Buckets of one kind, by the id of their owner.
#[derive(Debug)]
pub struct Buckets {
    per_second: f64,
    burst: f64,
    by_owner: HashMap<i64, (f64, DateTime<Utc>)>,
}

impl Buckets {
    /// Buckets that hold `burst` and fill at `per_second`.
    pub fn new(per_second: u32, burst: u32) -> Buckets {
        Buckets { per_second: per_second.into(), burst: burst.into(), by_owner: HashMap::new() }
    }

    /// Buckets that hold `per_hour` and fill at that rate.
    pub fn hourly(per_hour: u32) -> Buckets {
        Buckets { per_second: f64::from(per_hour) / 3_600.0, burst: per_hour.into(), by_owner: HashMap::new() }
    }

    /// Takes one from the bucket of `owner`. False if it is empty.
    pub fn take(&mut self, owner: i64, now: DateTime<Utc>) -> bool {
        if self.by_owner.len() >= MAX_KEPT && !self.by_owner.contains_key(&owner) {
            let (per_second, burst) = (self.per_second, self.burst);
            self.by_owner.retain(|_, bucket| level(*bucket, per_second, burst, now) < burst);
            if self.by_owner.len() >= MAX_KEPT {
                self.by_owner.clear();
            }
        }
        let bucket = self.by_owner.entry(owner).or_insert((self.burst, now));
        let level = level(*bucket, self.per_second, self.burst, now);
        let is_free = level >= 1.0;
        *bucket = (if is_free { level - 1.0 } else { level }, now);
        is_free
    }

    /// Whether the bucket of `owner` has one.
    pub fn is_free(&self, owner: i64, now: DateTime<Utc>) -> bool {
        self.by_owner.get(&owner).is_none_or(|bucket| level(*bucket, self.per_second, self.burst, now) >= 1.0)
    }
}

fn level((level, at): (f64, DateTime<Utc>), per_second: f64, burst: f64, now: DateTime<Utc>) -> f64 {
    // A clock that was set back fills nothing.
    let seconds = (now - at).as_seconds_f64().max(0.0);
    (level + seconds * per_second).min(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_its_burst_and_fills_with_time() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut buckets = Buckets::new(10, 20);
        assert_eq!((0..30).filter(|_| buckets.take(1, now)).count(), 20);
        assert!(buckets.take(2, now), "another's");
        let later = now + chrono::TimeDelta::milliseconds(500);
        assert_eq!((0..30).filter(|_| buckets.take(1, later)).count(), 5);
        assert!(!buckets.take(1, now), "a clock that was set back fills nothing");
    }

    #[test]
    fn memory_is_bounded() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut buckets = Buckets::new(10, 20);
        for owner in 0..100_000 {
            assert!(buckets.take(owner, now));
        }
        assert!(buckets.by_owner.len() <= MAX_KEPT);
    }
}
