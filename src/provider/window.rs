//! Time windows, in which a vendor's list of results is polled page by page. Each window begins before the end of the
//! previous one, because a result may be listed later than its own time. A result that is read twice has the same event
//! key.

use chrono::{DateTime, TimeDelta, Utc};

/// The longest window: vendors allow a day; this is a little less.
const MAX_SPAN: TimeDelta = TimeDelta::hours(23);
/// How far most windows reach back into the previous one.
const OVERLAP: TimeDelta = TimeDelta::seconds(30);
/// How far one window in each `LATE_EVERY` reaches back, to find results that were listed up to five minutes late.
const LATE_OVERLAP: TimeDelta = TimeDelta::minutes(10);
const LATE_EVERY: TimeDelta = TimeDelta::minutes(5);

/// The time range of one poll, and the page in it.
#[derive(Debug, PartialEq, Eq)]
pub struct PollWindow {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// The end of the last window that was followed by a long overlap.
    late_read_until: DateTime<Utc>,
    /// The page in the window: its number, or the vendor's own key. `None` is the first page.
    pub position: Option<String>,
}

impl PollWindow {
    /// Continues at a cursor of [`PollWindow::next_cursor`]. Without a cursor, or with one that cannot be read, the
    /// window is the last day.
    pub fn from_cursor(cursor: Option<&str>, now: DateTime<Utc>) -> PollWindow {
        let mut parts = cursor.unwrap_or_default().splitn(4, ' ');
        let mut time = || DateTime::from_timestamp(parts.next()?.parse().ok()?, 0);
        let (from, looked_back, until) = (time(), time(), time());
        let from = from.unwrap_or(now - MAX_SPAN);
        let looked_back = looked_back.unwrap_or(from);
        match (until, parts.next()) {
            (Some(until), Some(place)) => {
                PollWindow { from, until, late_read_until: looked_back, position: Some(place.to_owned()) }
            }
            _ => PollWindow {
                from,
                until: now.min(from + MAX_SPAN).max(from),
                late_read_until: looked_back,
                position: None,
            },
        }
    }

    /// Returns the next cursor, and whether to poll again at once. `next_page`: the next page in this window, or `None`
    /// if this page was its last.
    pub fn next_cursor(&self, next_page: Option<&str>, now: DateTime<Utc>) -> (String, bool) {
        let looked_back = self.late_read_until.timestamp();
        if let Some(next_page) = next_page {
            return (format!("{} {looked_back} {} {next_page}", self.from.timestamp(), self.until.timestamp()), true);
        }
        let more = self.until + LATE_OVERLAP < now;
        if self.until < self.late_read_until + LATE_EVERY {
            return (format!("{} {looked_back}", (self.until - OVERLAP).timestamp()), more);
        }
        (format!("{} {}", (self.until - LATE_OVERLAP).timestamp(), self.until.timestamp()), more)
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
        let first = PollWindow::from_cursor(None, at(0));
        assert_eq!((first.from, first.until, &first.position), (at(0) - MAX_SPAN, at(0), &None));
        let (cursor, more) = first.next_cursor(Some("2"), at(9));
        assert!(more);
        let second = PollWindow::from_cursor(Some(&cursor), at(10));
        assert_eq!(second, PollWindow { position: Some("2".to_owned()), ..first }, "the same window to its end");
        let (cursor, more) = second.next_cursor(None, at(10));
        assert!(!more);
        let third = PollWindow::from_cursor(Some(&cursor), at(20));
        assert_eq!((third.from, third.until, third.position), (at(0) - LATE_OVERLAP, at(20), None));
    }

    /// With a poll every five seconds, each time is read only a few times, and a result listed five minutes late is
    /// found.
    #[test]
    fn late_results_are_found_and_little_is_read_again() {
        let (mut cursor, mut windows) = (at(0).timestamp().to_string(), Vec::new());
        for n in 1..=720 {
            let window = PollWindow::from_cursor(Some(&cursor), at(5 * n));
            cursor = window.next_cursor(None, at(5 * n)).0;
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

    /// After an outage of days no time is left out, and no window is longer than vendors allow.
    #[test]
    fn outage_of_days_is_caught_up_with() {
        let now = at(3 * 86_400);
        let (mut cursor, mut more, mut covered) = (at(0).timestamp().to_string(), true, at(0));
        while more {
            let window = PollWindow::from_cursor(Some(&cursor), now);
            assert!(window.from <= covered && window.until - window.from <= MAX_SPAN, "{window:?}");
            covered = window.until;
            (cursor, more) = window.next_cursor(None, now);
        }
        assert_eq!(covered, now);
    }

    #[test]
    fn unreadable_cursor_reads_the_last_day() {
        for cursor in ["", "x", "x y z", "99999999999999999999"] {
            assert_eq!(PollWindow::from_cursor(Some(cursor), at(0)).from, at(0) - MAX_SPAN, "{cursor}");
        }
        let ahead = PollWindow::from_cursor(Some(&at(60).timestamp().to_string()), at(0));
        assert_eq!((ahead.from, ahead.until), (at(60), at(60)), "a clock that was set back");
    }
}
