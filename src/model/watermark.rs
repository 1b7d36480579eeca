//! Which lanes a claim looks at, and from which `ready_at` on (engine.md §3).
//!
//! A claimed row leaves a dead entry in the claim index, which vacuum cannot remove while an old snapshot is held. So
//! each lane of each shard is scanned from its *watermark*: the `ready_at` below which no claimable row was seen. The
//! watermark is a hint. It stays a little behind now, because rows commit out of order; a near sweep looks further back
//! now and then, and a deep sweep rarely looks at everything. So a row below the watermark is claimed late, never lost.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::channel::Channel;
use super::lane::{Lane, PRIORITIES, Priority};
use crate::limits;

/// A lane of a shard: (shard, lane).
pub type ShardLane = (i16, Lane);

/// A hint about new work: the earliest `ready_at` that is new in each lane of a shard.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReadyHints {
    pub places: HashMap<ShardLane, DateTime<Utc>>,
    /// Hints were lost: any lane may have new work.
    pub hints_lost: bool,
}

impl ReadyHints {
    /// Adds one lane of a shard with the earliest `ready_at` that is new there.
    pub fn add(&mut self, place: ShardLane, since: DateTime<Utc>) {
        self.places.entry(place).and_modify(|at| *at = since.min(*at)).or_insert(since);
    }

    /// Adds everything in `other`.
    pub fn merge(&mut self, other: &ReadyHints) {
        self.hints_lost |= other.hints_lost;
        other.places.iter().for_each(|(place, since)| self.add(*place, *since));
    }
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    mark: DateTime<Utc>,
    /// Known to have work: a hint named it, or the last claim was full.
    active: bool,
    near_at: DateTime<Utc>,
    deep_at: DateTime<Utc>,
}

/// One planned claim: the lane of a shard, the lowest `ready_at` to look at, and the most rows to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedClaim {
    pub place: ShardLane,
    pub from_ready_at: DateTime<Utc>,
    pub rows: i64,
}

/// The result of a planned claim: rows claimed, and the `ready_at` of the last one.
#[derive(Debug, Clone, Copy)]
pub struct PlannedClaimResult {
    pub rows: i64,
    pub last_ready_at: Option<DateTime<Utc>>,
}

/// The watermarks of one process: one for each lane of each shard.
#[derive(Debug, Default)]
pub struct Watermarks {
    marks: HashMap<ShardLane, Mark>,
    /// In the order in which claims visit them: urgent, normal, bulk; prompt lanes before overflow lanes.
    order: Vec<ShardLane>,
    turn: usize,
}

fn ago(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    now - TimeDelta::from_std(by).unwrap_or_default()
}

fn after(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(by).unwrap_or_default()
}

impl Watermarks {
    /// Sets the shards and lanes of this process. Lanes that stay keep their watermark; new ones start at the Unix
    /// epoch.
    pub fn set_places(&mut self, shards: &[i16], lanes: &[Lane]) {
        self.order = lanes.iter().flat_map(|&lane| shards.iter().map(move |&shard| (shard, lane))).collect();
        let fresh = Mark {
            mark: DateTime::UNIX_EPOCH,
            active: true,
            near_at: DateTime::UNIX_EPOCH,
            deep_at: DateTime::UNIX_EPOCH,
        };
        let known = std::mem::take(&mut self.marks);
        self.marks = self.order.iter().map(|place| (*place, known.get(place).copied().unwrap_or(fresh))).collect();
    }

    /// Applies a hint. A row that committed late may lie below the watermark, which then moves back. Returns false if
    /// the hint names an unknown shard.
    pub fn apply_hints(&mut self, ready: &ReadyHints) -> bool {
        if ready.hints_lost {
            self.marks.values_mut().for_each(|m| m.active = true);
        }
        for (place, since) in &ready.places {
            if let Some(mark) = self.marks.get_mut(place) {
                mark.active = true;
                mark.mark = mark.mark.min(*since);
            }
        }
        let known = |place: &ShardLane| self.marks.contains_key(place) || self.order.iter().any(|p| p.0 == place.0);
        ready.places.keys().all(known)
    }

    /// Whether a lane with known work belongs to a channel in `room`.
    pub fn any_active_with_room(&self, room: &HashMap<Channel, i64>) -> bool {
        self.marks.iter().any(|(place, mark)| mark.active && room.contains_key(&place.1.channel()))
    }

    /// Whether any lane has known work.
    pub fn any_active(&self) -> bool {
        self.marks.values().any(|m| m.active)
    }

    /// Plans the next claims. `room`: how many more deliveries this process may hold, by channel; the planned rows of a
    /// channel never exceed it. With `everywhere`, lanes without known work are included, for a few rows each. Records
    /// sweeps as done: pass every planned claim to `record_result`, `record_skipped` or `record_failed`.
    pub fn plan_claims(
        &mut self,
        now: DateTime<Utc>,
        room: &HashMap<Channel, i64>,
        everywhere: bool,
    ) -> Vec<PlannedClaim> {
        self.turn = self.turn.wrapping_add(1);
        let mut looks = Vec::new();
        for (&channel, &room) in room {
            let mine = |p: &&ShardLane| p.1.channel() == channel;
            let mut active: Vec<ShardLane> =
                self.order.iter().filter(mine).filter(|p| self.marks[*p].active).copied().collect();
            let mut quiet: Vec<ShardLane> =
                self.order.iter().filter(mine).filter(|p| !self.marks[*p].active).copied().collect();
            // `room` may be used up before the list ends, so each plan starts at another lane.
            let begin = self.turn % quiet.len().max(1);
            quiet.rotate_left(begin);
            let mut left = room;
            // A few rows for each quiet lane first: a look at an empty lane costs little, and no lane starves.
            if everywhere {
                let each = if active.is_empty() { (room / quiet.len().max(1) as i64).max(1) } else { 1 };
                self.share_out(now, &quiet, |_| each, &mut left, &mut looks);
            }
            let budget = left;
            if budget < active.len() as i64 {
                // Not enough room for every lane: one priority class takes all of it, as often as its share says.
                let first = self.first_class(&active);
                active.sort_by_key(|p| Some(p.1.priority()) != first);
            }
            let alike = |class: Priority| active.iter().filter(|p| p.1.priority() == class).count() as i64;
            let classes = PRIORITIES.iter().filter(|class| alike(**class) > 0);
            let total: i64 = classes.map(|class| i64::from(class.share_percent())).sum();
            let share = |place: &ShardLane| {
                let class = place.1.priority();
                (budget * i64::from(class.share_percent()) / (total.max(1) * alike(class).max(1))).max(1)
            };
            self.share_out(now, &active, share, &mut left, &mut looks);
        }
        looks
    }

    /// The priority class that goes first in this turn.
    fn first_class(&self, active: &[ShardLane]) -> Option<Priority> {
        let there = |class: &Priority| active.iter().any(|p| p.1.priority() == *class);
        let classes: Vec<Priority> = PRIORITIES.into_iter().filter(there).collect();
        let turns = |class: &Priority| class.share_percent() as usize / 10;
        let mut turn = self.turn % classes.iter().map(turns).sum::<usize>().max(1);
        classes.into_iter().find(|class| {
            let mine = turn < turns(class);
            turn = turn.saturating_sub(turns(class));
            mine
        })
    }

    /// Gives each lane its share while something is left, in the order of priorities; within a lane each turn starts at
    /// another shard.
    fn share_out(
        &mut self,
        now: DateTime<Utc>,
        places: &[ShardLane],
        share: impl Fn(&ShardLane) -> i64,
        left: &mut i64,
        looks: &mut Vec<PlannedClaim>,
    ) {
        for lane_places in places.chunk_by(|a, b| a.1 == b.1) {
            let start = self.turn % lane_places.len();
            for place in lane_places[start..].iter().chain(&lane_places[..start]) {
                let take = share(place).min(*left);
                if take <= 0 {
                    continue;
                }
                *left -= take;
                looks.push(PlannedClaim { place: *place, from_ready_at: self.mark_for(place, now), rows: take });
            }
        }
    }

    fn mark_for(&mut self, place: &ShardLane, now: DateTime<Utc>) -> DateTime<Utc> {
        let Some(mark) = self.marks.get_mut(place) else { return DateTime::UNIX_EPOCH };
        if now >= mark.deep_at {
            mark.deep_at = after(now, limits::DEEP_SWEEP_EVERY);
            mark.near_at = after(now, limits::NEAR_SWEEP_EVERY);
            return DateTime::UNIX_EPOCH;
        }
        if now >= mark.near_at {
            mark.near_at = after(now, limits::NEAR_SWEEP_EVERY);
            return mark.mark.min(ago(now, limits::NEAR_SWEEP));
        }
        mark.mark
    }

    /// Records the result of a claim that began at `now`. A full claim saw no claimable row before its last one; one
    /// that was not full saw every row.
    pub fn record_result(&mut self, look: &PlannedClaim, found: PlannedClaimResult, now: DateTime<Utc>) {
        let Some(mark) = self.marks.get_mut(&look.place) else { return };
        let slack = ago(now, limits::WATERMARK_SLACK);
        let full = found.rows >= look.rows;
        mark.active = full;
        mark.mark = match found.last_ready_at {
            Some(last) if full => last.min(slack),
            _ => slack,
        };
    }

    /// Records that a planned claim was not made, or was cut off before this lane. It is planned again as it was.
    pub fn record_skipped(&mut self, look: &PlannedClaim) {
        let Some(mark) = self.marks.get_mut(&look.place) else { return };
        mark.active = true;
        if look.from_ready_at == DateTime::UNIX_EPOCH {
            mark.deep_at = DateTime::UNIX_EPOCH;
        } else if look.from_ready_at < mark.mark {
            mark.near_at = DateTime::UNIX_EPOCH;
        }
    }

    /// Records that a planned claim failed. The next one is a deep sweep.
    pub fn record_failed(&mut self, look: &PlannedClaim) {
        if let Some(mark) = self.marks.get_mut(&look.place) {
            mark.active = true;
            mark.deep_at = DateTime::UNIX_EPOCH;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + ms).unwrap()
    }

    fn lane(priority: Priority) -> Lane {
        Lane::new(Channel::Email, priority, false)
    }

    fn room(n: i64) -> HashMap<Channel, i64> {
        HashMap::from([(Channel::Email, n)])
    }

    fn marks(shards: &[i16]) -> Watermarks {
        let mut marks = Watermarks::default();
        marks.set_places(shards, &Lane::all_of(&[Channel::Email]));
        marks
    }

    fn hint(places: &[ShardLane], since: DateTime<Utc>) -> ReadyHints {
        ReadyHints { places: places.iter().map(|p| (*p, since)).collect(), hints_lost: false }
    }

    fn quiet(marks: &mut Watermarks, now: DateTime<Utc>) {
        for look in marks.plan_claims(now, &room(1000), true) {
            marks.record_result(&look, PlannedClaimResult { rows: 0, last_ready_at: None }, now);
        }
    }

    #[test]
    fn first_claim_and_deep_sweep_look_at_everything() {
        let mut marks = marks(&[0]);
        assert!(marks.plan_claims(at(0), &room(100), false).iter().all(|l| l.from_ready_at == DateTime::UNIX_EPOCH));
        quiet(&mut marks, at(0));
        assert!(!marks.any_active());
        let soon = marks.plan_claims(at(100), &room(100), true);
        assert!(soon.iter().all(|l| l.from_ready_at == ago(at(0), limits::WATERMARK_SLACK)), "{soon:?}");
        let later = marks.plan_claims(at(61_000), &room(100), true);
        assert!(later.iter().all(|l| l.from_ready_at == DateTime::UNIX_EPOCH));
    }

    #[test]
    fn watermark_stays_below_slack_and_below_a_full_claims_last_row() {
        let mut marks = marks(&[0]);
        quiet(&mut marks, at(0));
        let place = (0, lane(Priority::Normal));
        marks.apply_hints(&hint(&[place], at(1000)));
        let looks = marks.plan_claims(at(1000), &room(10), false);
        let [look] = looks.as_slice() else { panic!("{looks:?}") };
        marks.record_result(look, PlannedClaimResult { rows: look.rows, last_ready_at: Some(at(500)) }, at(1000));
        assert_eq!(
            marks.plan_claims(at(1001), &room(10), false)[0].from_ready_at,
            at(500),
            "what lies behind the last row is next"
        );
        marks.record_result(look, PlannedClaimResult { rows: look.rows, last_ready_at: Some(at(999)) }, at(1000));
        assert_eq!(
            marks.plan_claims(at(1002), &room(10), false)[0].from_ready_at,
            ago(at(1000), limits::WATERMARK_SLACK)
        );
    }

    #[test]
    fn hint_of_a_late_commit_moves_the_watermark_back() {
        let mut marks = marks(&[0]);
        quiet(&mut marks, at(5000));
        let place = (0, lane(Priority::Normal));
        marks.apply_hints(&hint(&[place], at(3000)));
        assert_eq!(marks.plan_claims(at(5001), &room(10), false)[0].from_ready_at, at(3000));
    }

    /// Urgent goes first, yet every class has its share, and never more is asked for than there is room.
    #[test]
    fn every_priority_has_its_share_of_the_room() {
        for shards in [&[0][..], &[0, 1, 2]] {
            for n in [0, 1, 2, 7, 100, 333] {
                let mut marks = marks(shards);
                let looks = marks.plan_claims(at(0), &room(n), true);
                assert!(looks.iter().map(|l| l.rows).sum::<i64>() <= n, "{n}: {looks:?}");
            }
        }
        let mut marks = marks(&[0]);
        quiet(&mut marks, at(0));
        let places = [Priority::Bulk, Priority::Urgent, Priority::Normal].map(|p| (0, lane(p)));
        marks.apply_hints(&hint(&places, at(1)));
        let looks = marks.plan_claims(at(1), &room(100), false);
        let takes: Vec<_> = looks.iter().map(|l| (l.place.1.priority(), l.rows)).collect();
        assert_eq!(takes, [(Priority::Urgent, 60), (Priority::Normal, 30), (Priority::Bulk, 10)]);
        for look in &looks[..2] {
            marks.record_result(look, PlannedClaimResult { rows: 0, last_ready_at: None }, at(1));
        }
        let alone = marks.plan_claims(at(2), &room(100), false);
        assert_eq!(alone.iter().map(|l| l.rows).collect::<Vec<_>>(), [100], "what others leave goes to who is there");
    }

    /// Where there is room for one at a time only, the less urgent have their share all the same.
    #[test]
    fn room_for_one_starves_no_priority() {
        let mut marks = marks(&[0, 1, 2]);
        let mut takes = [0; 3];
        for turn in 0..100 {
            let looks = marks.plan_claims(at(turn), &room(1), false);
            let [look] = looks.as_slice() else { panic!("{looks:?}") };
            takes[PRIORITIES.iter().position(|p| *p == look.place.1.priority()).unwrap()] += look.rows;
            marks.record_skipped(look);
        }
        assert_eq!(takes, [60, 30, 10]);
    }

    /// A claim cut off by its limit is planned again unchanged, not as a deep sweep.
    #[test]
    fn skipped_claim_is_planned_again_unchanged() {
        let mut marks = marks(&[0]);
        quiet(&mut marks, at(0));
        let place = (0, lane(Priority::Normal));
        for (now, what) in [(at(100), "a plain look"), (at(5_000), "a near sweep"), (at(61_000), "a deep sweep")] {
            marks.apply_hints(&hint(&[place], now));
            let [look] = <[PlannedClaim; 1]>::try_from(marks.plan_claims(now, &room(10), false)).unwrap();
            marks.record_skipped(&look);
            assert_eq!(marks.plan_claims(now, &room(10), false), [look], "{what}");
            marks.record_result(&look, PlannedClaimResult { rows: 0, last_ready_at: None }, now);
        }
    }

    #[test]
    fn hint_for_an_unknown_shard_returns_false() {
        let mut marks = marks(&[0]);
        assert!(marks.apply_hints(&hint(&[(0, lane(Priority::Bulk))], at(0))));
        assert!(!marks.apply_hints(&hint(&[(5, lane(Priority::Bulk))], at(0))));
    }
}
