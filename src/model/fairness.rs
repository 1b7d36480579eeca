//! Fairness, decided at intake (engine.md §4): a partner whose unfinished work in a lane exceeds its fair share has what
//! it posts further put in the lane's overflow, which gets whatever the prompt lanes leave. So a flood is served at full
//! speed while nobody else is there, and delays nobody when somebody is.
//!
//! Unfinished is estimated in memory, without a counter in the database: lanes are served in order, so what a partner has
//! unfinished is what it was accepted since the oldest that still waits there. Wrong by what a restart forgets, and by
//! other processes' intake of the last second; never wrong for long.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::watermark::Place;
use crate::id::Tsid;
use crate::limits;

/// Deliveries accepted at about the same time are counted together.
const BUCKET: TimeDelta = TimeDelta::milliseconds(50);

/// What was accepted into one partner's share of one prompt lane.
#[derive(Debug, Default)]
struct Unfinished {
    /// From when on, how many; the oldest first.
    since: VecDeque<(DateTime<Utc>, u64)>,
    sum: u64,
    /// By minute, how many are scheduled for it.
    scheduled: BTreeMap<i64, u64>,
    /// Not told to other processes yet.
    untold: u64,
}

/// How much was accepted by one process, as it tells others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub partner_id: Tsid,
    pub place: Place,
    pub count: u64,
}

#[derive(Debug)]
pub struct Fairness {
    fair: u64,
    places: HashMap<Place, HashMap<Tsid, Unfinished>>,
    /// The oldest that waited when last asked.
    heads: HashMap<Place, DateTime<Utc>>,
}

fn minute(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(60)
}

impl Fairness {
    /// A partner may have so many deliveries unfinished in a lane.
    pub fn new(fair: u64) -> Fairness {
        Fairness { fair, places: HashMap::new(), heads: HashMap::new() }
    }

    /// Counts one more delivery of this partner in this prompt lane; false when it has its fair share already, and this
    /// one belongs in the overflow.
    pub fn admit(&mut self, partner_id: Tsid, place: Place, ready_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let mine = self.places.entry(place).or_default().entry(partner_id).or_default();
        if minute(ready_at) > minute(now) {
            let count = mine.scheduled.entry(minute(ready_at)).or_default();
            let fair = *count < self.fair;
            *count += u64::from(fair);
            return fair;
        }
        let fair = mine.sum < self.fair;
        if fair {
            mine.add(now, 1);
            mine.untold += 1;
        }
        fair
    }

    /// Lanes in which somebody may have more than its share, and from where on to look for the oldest that waits there.
    pub fn in_question(&self) -> Vec<(Place, DateTime<Utc>)> {
        let much = |mine: &Unfinished| mine.sum > self.fair / 2;
        let places = self.places.iter().filter(|(_, partners)| partners.values().any(much));
        places.map(|(place, _)| (*place, self.heads.get(place).copied().unwrap_or(DateTime::UNIX_EPOCH))).collect()
    }

    /// The oldest that waits in a lane, asked at `asked`; none when nothing does.
    pub fn learn(&mut self, place: Place, oldest: Option<DateTime<Utc>>, asked: DateTime<Utc>) {
        // What is being written at this moment is not seen yet.
        let slack = TimeDelta::from_std(limits::FAIR_SLACK).unwrap_or_default();
        let head = oldest.unwrap_or(asked).min(asked - slack);
        self.heads.insert(place, head);
        let Some(partners) = self.places.get_mut(&place) else { return };
        partners.retain(|_, mine| {
            mine.begin_scheduled(asked);
            mine.end_before(head);
            mine.sum > 0 || !mine.scheduled.is_empty()
        });
        if partners.is_empty() {
            self.places.remove(&place);
        }
    }

    /// What others should know: what was accepted here since this was asked last, where it matters.
    pub fn tell(&mut self) -> Vec<Share> {
        let mut shares = Vec::new();
        for (place, partners) in &mut self.places {
            for (partner_id, mine) in partners {
                if mine.untold >= self.fair / 20 {
                    shares.push(Share { partner_id: *partner_id, place: *place, count: mine.untold });
                    mine.untold = 0;
                }
            }
        }
        shares
    }

    /// What another process accepted during the last `period`.
    pub fn heard(&mut self, share: Share, now: DateTime<Utc>, period: Duration) {
        let then = now - TimeDelta::from_std(period / 2).unwrap_or_default();
        self.places.entry(share.place).or_default().entry(share.partner_id).or_default().add(then, share.count);
    }
}

impl Unfinished {
    fn add(&mut self, at: DateTime<Utc>, count: u64) {
        self.sum += count;
        match self.since.back_mut() {
            // Also what is heard late, of a time before: counted a little too long.
            Some((since, n)) if at < *since + BUCKET => *n += count,
            _ => self.since.push_back((at, count)),
        }
    }

    fn begin_scheduled(&mut self, now: DateTime<Utc>) {
        while let Some(entry) = self.scheduled.first_entry().filter(|entry| *entry.key() <= minute(now)) {
            let count = entry.remove();
            self.add(now, count);
        }
    }

    fn end_before(&mut self, head: DateTime<Utc>) {
        while let Some((_, count)) = self.since.front().filter(|(since, _)| *since + BUCKET <= head) {
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

    fn place() -> Place {
        (0, Lane::new(Channel::Email, Priority::Normal, false))
    }

    fn flood(fairness: &mut Fairness, partner: i64, n: u64, now: DateTime<Utc>) -> u64 {
        (0..n).map(|_| u64::from(fairness.admit(Tsid(partner), place(), now, now))).sum()
    }

    #[test]
    fn a_flood_overflows_and_others_do_not() {
        let mut fairness = Fairness::new(FAIR);
        assert_eq!(flood(&mut fairness, 1, 5 * FAIR, at(0)), FAIR);
        assert_eq!(flood(&mut fairness, 2, 10, at(0)), 10);
        assert_eq!(fairness.in_question(), [(place(), DateTime::UNIX_EPOCH)]);
    }

    #[test]
    fn what_is_served_makes_room() {
        let mut fairness = Fairness::new(FAIR);
        assert_eq!(flood(&mut fairness, 1, FAIR / 2, at(0)), FAIR / 2);
        assert_eq!(flood(&mut fairness, 1, FAIR, at(200)), FAIR / 2);
        // Of the first half all has gone.
        fairness.learn(place(), Some(at(200)), at(300));
        assert_eq!(flood(&mut fairness, 1, FAIR, at(300)), FAIR / 2);
        // Nothing waits any more.
        fairness.learn(place(), None, at(1000));
        assert_eq!(fairness.in_question(), []);
        assert_eq!(flood(&mut fairness, 1, 2 * FAIR, at(1000)), FAIR);
    }

    #[test]
    fn what_is_scheduled_for_one_minute_is_shared_too() {
        let mut fairness = Fairness::new(FAIR);
        let later = at(600_000);
        let admitted = (0..3 * FAIR).filter(|_| fairness.admit(Tsid(1), place(), later, at(0))).count() as u64;
        assert_eq!(admitted, FAIR);
        assert!(fairness.admit(Tsid(1), place(), at(0), at(0)), "what is due now has room of its own");
        fairness.learn(place(), Some(later), later);
        assert_eq!(flood(&mut fairness, 1, 10, later), 0, "when its time has come it counts");
    }

    #[test]
    fn what_others_accept_counts_too() {
        let (mut here, mut there) = (Fairness::new(FAIR), Fairness::new(FAIR));
        flood(&mut there, 1, FAIR, at(0));
        flood(&mut there, 2, 1, at(0));
        let told = there.tell();
        assert_eq!(told, [Share { partner_id: Tsid(1), place: place(), count: FAIR }], "small ones do not matter");
        assert_eq!(there.tell(), []);
        told.into_iter().for_each(|share| here.heard(share, at(100), Duration::from_secs(1)));
        assert_eq!(flood(&mut here, 1, 10, at(100)), 0);
    }
}
