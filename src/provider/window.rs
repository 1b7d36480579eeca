//! Windows: how a vendor's list of results is read from where it was left, page by page. Each window begins before the end
//! of the one before, for a result may be listed later than its time says; what is read twice has the same key twice.

use chrono::{DateTime, TimeDelta, Utc};

/// The longest a vendor allows, less a little: a day.
const SPAN: TimeDelta = TimeDelta::hours(23);
/// How far back a window goes as a rule.
const SHORT: TimeDelta = TimeDelta::seconds(30);
/// And once in a while: what was listed up to five minutes late is found.
const LONG: TimeDelta = TimeDelta::minutes(10);
const LONG_EVERY: TimeDelta = TimeDelta::minutes(5);

#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// Up to when was read what is listed late.
    looked_back: DateTime<Utc>,
    /// Where in the window: a page's number, or the vendor's own key. None: at its beginning.
    pub place: Option<String>,
}

impl Window {
    /// Where to go on. Without a cursor, or with one nobody can read, everything of the last day is asked for.
    pub fn open(cursor: Option<&str>, now: DateTime<Utc>) -> Window {
        let mut parts = cursor.unwrap_or_default().splitn(4, ' ');
        let mut time = || DateTime::from_timestamp(parts.next()?.parse().ok()?, 0);
        let (from, looked_back, until) = (time(), time(), time());
        let from = from.unwrap_or(now - SPAN);
        let looked_back = looked_back.unwrap_or(from);
        match (until, parts.next()) {
            (Some(until), Some(place)) => Window { from, until, looked_back, place: Some(place.to_owned()) },
            _ => Window { from, until: now.min(from + SPAN).max(from), looked_back, place: None },
        }
    }

    /// The next cursor, and whether to ask again at once. `place`: where this window goes on, if it does.
    pub fn next(&self, place: Option<&str>, now: DateTime<Utc>) -> (String, bool) {
        let looked_back = self.looked_back.timestamp();
        if let Some(place) = place {
            return (format!("{} {looked_back} {} {place}", self.from.timestamp(), self.until.timestamp()), true);
        }
        let more = self.until + LONG < now;
        if self.until < self.looked_back + LONG_EVERY {
            return (format!("{} {looked_back}", (self.until - SHORT).timestamp()), more);
        }
        (format!("{} {}", (self.until - LONG).timestamp(), self.until.timestamp()), more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn windows_follow_each_other_with_an_overlap() {
        let first = Window::open(None, at(0));
        assert_eq!((first.from, first.until, &first.place), (at(0) - SPAN, at(0), &None));
        let (cursor, more) = first.next(Some("2"), at(9));
        assert!(more);
        let second = Window::open(Some(&cursor), at(10));
        assert_eq!(second, Window { place: Some("2".to_owned()), ..first }, "the same window to its end");
        let (cursor, more) = second.next(None, at(10));
        assert!(!more);
        let third = Window::open(Some(&cursor), at(20));
        assert_eq!((third.from, third.until, third.place), (at(0) - LONG, at(20), None));
    }

    /// Asked every five seconds, each time is read again a few times only, and yet what is listed five minutes late is found.
    #[test]
    fn little_is_read_again_and_nothing_late_is_missed() {
        let (mut cursor, mut windows) = (at(0).timestamp().to_string(), Vec::new());
        for n in 1..=720 {
            let window = Window::open(Some(&cursor), at(5 * n));
            cursor = window.next(None, at(5 * n)).0;
            windows.push((window.from, window.until));
        }
        let read: i64 = windows.iter().map(|(from, until)| (*until - *from).num_seconds()).sum();
        assert!(read < 12 * 3600, "{read} seconds were read of an hour");
        for second in 0..2400 {
            let (happened, listed) = (at(second), at(second + 300));
            let found = windows.iter().any(|(from, until)| *from <= happened && listed <= *until);
            assert!(found, "of second {second}");
        }
    }

    /// After an outage of days nothing is left out, and no window is longer than vendors allow.
    #[test]
    fn what_was_missed_is_caught_up_with() {
        let now = at(3 * 86_400);
        let (mut cursor, mut more, mut covered) = (at(0).timestamp().to_string(), true, at(0));
        while more {
            let window = Window::open(Some(&cursor), now);
            assert!(window.from <= covered && window.until - window.from <= SPAN, "{window:?}");
            covered = window.until;
            (cursor, more) = window.next(None, now);
        }
        assert_eq!(covered, now);
    }

    #[test]
    fn a_cursor_nobody_can_read_costs_a_day_and_loses_nothing() {
        for cursor in ["", "x", "x y z", "99999999999999999999"] {
            assert_eq!(Window::open(Some(cursor), at(0)).from, at(0) - SPAN, "{cursor}");
        }
        let ahead = Window::open(Some(&at(60).timestamp().to_string()), at(0));
        assert_eq!((ahead.from, ahead.until), (at(60), at(60)), "a clock that was set back");
    }
}
