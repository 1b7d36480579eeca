//! Windows: how a vendor's list of results is read from where it was left, page by page. Each window begins before the end
//! of the one before, for a result may be listed later than its time says; what is read twice has the same key twice.

use chrono::{DateTime, TimeDelta, Utc};

/// The longest a vendor allows, less a little: a day.
const SPAN: TimeDelta = TimeDelta::hours(23);
const OVERLAP: TimeDelta = TimeDelta::minutes(5);

#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// Where in the window: a page's number, or the vendor's own key. None: at its beginning.
    pub place: Option<String>,
}

impl Window {
    /// Where to go on. Without a cursor, or with one nobody can read, everything of the last day is asked for.
    pub fn open(cursor: Option<&str>, now: DateTime<Utc>) -> Window {
        let mut parts = cursor.unwrap_or_default().splitn(3, ' ');
        let mut time = || DateTime::from_timestamp(parts.next()?.parse().ok()?, 0);
        let (from, until) = (time(), time());
        let from = from.unwrap_or(now - SPAN);
        match (until, parts.next()) {
            (Some(until), Some(place)) => Window { from, until, place: Some(place.to_owned()) },
            _ => Window { from, until: now.min(from + SPAN).max(from), place: None },
        }
    }

    /// The next cursor, and whether to ask again at once. `place`: where this window goes on, if it does.
    pub fn next(&self, place: Option<&str>, now: DateTime<Utc>) -> (String, bool) {
        if let Some(place) = place {
            return (format!("{} {} {place}", self.from.timestamp(), self.until.timestamp()), true);
        }
        let from = self.from.max(self.until - OVERLAP);
        (from.timestamp().to_string(), self.until + OVERLAP < now)
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
        assert_eq!(first, Window { from: at(0) - SPAN, until: at(0), place: None });
        let (cursor, more) = first.next(Some("2"), at(9));
        assert!(more);
        let second = Window::open(Some(&cursor), at(10));
        assert_eq!(second, Window { place: Some("2".to_owned()), ..first }, "the same window to its end");
        let (cursor, more) = second.next(None, at(10));
        assert!(!more);
        let third = Window::open(Some(&cursor), at(20));
        assert_eq!(third, Window { from: at(0) - OVERLAP, until: at(20), place: None });
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
