//! Fairness, decided at intake (engine.md §4). A partner whose unfinished deliveries in a lane exceed its fair share
//! gets further ones into the lane's overflow lane, which is served with the capacity that prompt lanes leave. So one
//! partner's burst runs at full speed while the hub is idle and delays no other partner while it is not.
//!
//! Unfinished deliveries are estimated in memory, without a counter in the database. Lanes are served in order, so a
//! partner has unfinished what it posted since the oldest delivery that still waits in the lane. Once a partner
//! overflows, it stays in overflow until its overflow lane is claimed: this keeps its deliveries in order and does not
//! fill a worker whose provider is slow. The estimate misses what was posted before a restart and what other processes
//! accepted in the last second; both errors are short.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::watermark::ShardLane;
use crate::id::Tsid;
use crate::limits;

/// Deliveries accepted within this time share a bucket.
const BUCKET: TimeDelta = TimeDelta::milliseconds(50);

/// One partner's deliveries in one prompt lane of one shard.
#[derive(Debug, Default)]
struct Unfinished {
    /// (Start of bucket, count), the oldest first.
    since: VecDeque<(DateTime<Utc>, u64)>,
    sum: u64,
    /// Deliveries scheduled ahead, by minute since 1970.
    scheduled: BTreeMap<i64, u64>,
    /// Time of the last overflow; cleared once the overflow lane has been claimed up to it.
    overflowed: Option<DateTime<Utc>>,
    /// Count not reported to other processes yet.
    unreported: u64,
}

/// Deliveries that one process accepted, as it reports them to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedCount {
    pub partner_id: Tsid,
    pub place: ShardLane,
    pub count: u64,
}

/// Estimates of unfinished deliveries for each partner, in memory.
#[derive(Debug)]
pub struct Fairness {
    fair_share: u64,
    places: HashMap<ShardLane, HashMap<Tsid, Unfinished>>,
    /// `ready_at` of the oldest waiting delivery when last looked up.
    oldest_waiting: HashMap<ShardLane, DateTime<Utc>>,
}

fn minute(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(60)
}

impl Fairness {
    /// `fair`: the unfinished deliveries that a partner may have in a lane before it overflows.
    pub fn new(fair: u64) -> Fairness {
        Fairness { fair_share: fair, places: HashMap::new(), oldest_waiting: HashMap::new() }
    }

    /// Counts one delivery and returns whether it goes into the prompt lane; false: it goes into the overflow lane and
    /// is not counted. `place` is a prompt lane. A delivery scheduled ahead counts in its minute.
    pub fn admit(&mut self, partner_id: Tsid, place: ShardLane, ready_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let mine = self.places.entry(place).or_default().entry(partner_id).or_default();
        if ready_at > now {
            // Past minutes no longer count.
            mine.scheduled = mine.scheduled.split_off(&minute(now));
            let count = mine.scheduled.entry(minute(ready_at)).or_default();
            let fair = *count < self.fair_share;
            *count += u64::from(fair);
            return fair;
        }
        let fair = mine.sum < self.fair_share && mine.overflowed.is_none();
        if fair {
            mine.add(now, 1);
            mine.unreported += 1;
        } else {
            mine.overflowed = Some(now);
        }
        fair
    }

    /// Lanes whose oldest waiting delivery must be looked up, each with the `ready_at` from which to look. Pass each
    /// answer to `record_oldest`.
    pub fn lanes_to_check(&self) -> Vec<(ShardLane, DateTime<Utc>)> {
        let mut places = Vec::new();
        for (&(shard, lane), partners) in &self.places {
            let overflowed = partners.values().any(|mine| mine.overflowed.is_some());
            if overflowed || partners.values().any(|mine| mine.sum > self.fair_share / 2) {
                places.push((shard, lane));
            }
            if overflowed {
                places.push((shard, lane.overflow()));
            }
        }
        let head = |place: ShardLane| self.oldest_waiting.get(&place).copied().unwrap_or(DateTime::UNIX_EPOCH);
        places.into_iter().map(|place| (place, head(place))).collect()
    }

    /// Records the oldest waiting delivery of a lane, looked up at `asked`; `None` if none waits.
    pub fn record_oldest(&mut self, place: ShardLane, oldest: Option<DateTime<Utc>>, asked: DateTime<Utc>) {
        // A delivery that is being written at this moment is not visible yet.
        let slack = TimeDelta::from_std(limits::FAIR_SLACK).unwrap_or_default();
        let head = oldest.unwrap_or(asked).min(asked - slack);
        self.oldest_waiting.insert(place, head);
        let prompt = (place.0, place.1.prompt());
        let Some(partners) = self.places.get_mut(&prompt) else { return };
        partners.retain(|_, mine| {
            if place == prompt {
                mine.drop_finished(head, asked);
            } else {
                // A time ahead of now was recorded by a clock that was set back since.
                mine.overflowed = mine.overflowed.filter(|at| *at >= head && *at <= asked);
            }
            mine.sum > 0 || mine.overflowed.is_some() || !mine.scheduled.is_empty()
        });
        if partners.is_empty() {
            self.places.remove(&prompt);
        }
    }

    /// Counts accepted here that were not reported yet and are large enough to matter. Marks them as reported.
    pub fn take_unreported(&mut self) -> Vec<AcceptedCount> {
        let mut shares = Vec::new();
        for (place, partners) in &mut self.places {
            for (partner_id, mine) in partners {
                if mine.unreported > 0 && mine.unreported >= self.fair_share / 20 {
                    shares.push(AcceptedCount { partner_id: *partner_id, place: *place, count: mine.unreported });
                    mine.unreported = 0;
                }
            }
        }
        shares
    }

    /// Adds a count that another process accepted during the last `period`.
    pub fn add_remote(&mut self, share: AcceptedCount, now: DateTime<Utc>, period: Duration) {
        let then = now - TimeDelta::from_std(period / 2).unwrap_or_default();
        // More than the fair share makes no difference.
        let count = share.count.min(self.fair_share);
        let place = (share.place.0, share.place.1.prompt());
        self.places.entry(place).or_default().entry(share.partner_id).or_default().add(then, count);
    }
}

impl Unfinished {
    fn add(&mut self, at: DateTime<Utc>, count: u64) {
        self.sum += count;
        match self.since.back_mut() {
            // A late report of an earlier time joins the newest bucket: it counts a little too long.
            Some((since, n)) if at < *since + BUCKET => *n += count,
            _ => self.since.push_back((at, count)),
        }
    }

    fn drop_finished(&mut self, head: DateTime<Utc>, asked: DateTime<Utc>) {
        // A time ahead of now was recorded by a clock that was set back since.
        while let Some((_, count)) = self.since.front().filter(|(since, _)| *since + BUCKET <= head || *since > asked) {
            self.sum -= count;
            self.since.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::Channel;
    use crate::model::lane::{Lane, Priority};

    const FAIR: u64 = 200;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + ms).unwrap()
    }

    fn place() -> ShardLane {
        (0, Lane::new(Channel::Email, Priority::Normal, false))
    }

    fn flood(fairness: &mut Fairness, partner: i64, n: u64, now: DateTime<Utc>) -> u64 {
        (0..n).map(|_| u64::from(fairness.admit(Tsid(partner), place(), now, now))).sum()
    }

    fn overflow() -> ShardLane {
        (0, place().1.overflow())
    }

    #[test]
    fn partner_over_its_share_overflows_and_others_do_not() {
        let mut fairness = Fairness::new(FAIR);
        assert_eq!(flood(&mut fairness, 1, 5 * FAIR, at(0)), FAIR);
        assert_eq!(flood(&mut fairness, 2, 10, at(0)), 10);
        assert_eq!(fairness.lanes_to_check(), [(place(), DateTime::UNIX_EPOCH), (overflow(), DateTime::UNIX_EPOCH)]);
    }

    #[test]
    fn served_deliveries_free_the_share() {
        let mut fairness = Fairness::new(FAIR);
        assert_eq!(flood(&mut fairness, 1, FAIR / 2, at(0)), FAIR / 2);
        assert_eq!(flood(&mut fairness, 1, FAIR / 4, at(200)), FAIR / 4);
        // Of the first half all has gone.
        fairness.record_oldest(place(), Some(at(200)), at(300));
        assert_eq!(flood(&mut fairness, 1, FAIR, at(300)), FAIR - FAIR / 4);
    }

    /// Claimed is not finished: the overflow lane is claimed first, and only then is its partner prompt again.
    #[test]
    fn overflow_lasts_until_its_lane_is_served() {
        let mut fairness = Fairness::new(FAIR);
        flood(&mut fairness, 1, 2 * FAIR, at(0));
        fairness.record_oldest(place(), None, at(1000));
        fairness.record_oldest(overflow(), Some(at(0)), at(1000));
        assert_eq!(flood(&mut fairness, 1, 10, at(1000)), 0);
        fairness.record_oldest(place(), None, at(2000));
        fairness.record_oldest(overflow(), Some(at(1000)), at(2000));
        assert_eq!(flood(&mut fairness, 1, 1, at(2000)), 0);
        fairness.record_oldest(overflow(), None, at(3000));
        assert_eq!(fairness.lanes_to_check(), []);
        assert_eq!(flood(&mut fairness, 1, 2 * FAIR, at(3000)), FAIR);
    }

    #[test]
    fn deliveries_scheduled_for_one_minute_have_a_fair_share() {
        let mut fairness = Fairness::new(FAIR);
        for later in [at(1), at(600_000)] {
            let admitted = (0..3 * FAIR).filter(|_| fairness.admit(Tsid(1), place(), later, at(0))).count() as u64;
            assert_eq!(admitted, FAIR);
        }
        assert!(fairness.admit(Tsid(1), place(), at(0), at(0)), "what is due now has room of its own");
    }

    #[test]
    fn clock_set_back_ends_overflow() {
        let mut fairness = Fairness::new(FAIR);
        flood(&mut fairness, 1, 2 * FAIR, at(3_600_000));
        fairness.record_oldest(place(), None, at(0));
        fairness.record_oldest(overflow(), None, at(0));
        assert_eq!(flood(&mut fairness, 1, 10, at(0)), 10);
    }

    #[test]
    fn counts_of_other_processes_are_added() {
        let (mut here, mut there) = (Fairness::new(FAIR), Fairness::new(FAIR));
        flood(&mut there, 1, FAIR, at(0));
        flood(&mut there, 2, 1, at(0));
        let told = there.take_unreported();
        assert_eq!(
            told,
            [AcceptedCount { partner_id: Tsid(1), place: place(), count: FAIR }],
            "small ones do not matter"
        );
        assert_eq!(there.take_unreported(), []);
        told.into_iter().for_each(|share| here.add_remote(share, at(100), Duration::from_secs(1)));
        assert_eq!(flood(&mut here, 1, 10, at(100)), 0);
    }
}
