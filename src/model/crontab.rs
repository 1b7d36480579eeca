//! Schedules as crontab(5) defines them, on top of the `cron` crate, which counts weekdays from Sunday = 1 and requires
//! both day of month *and* day of week to match.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use cron::Schedule;

const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// The times at which a crontab line fires, in UTC.
#[derive(Debug, Clone)]
pub struct Crontab {
    /// The line fires when any of these does: two where both day fields are restricted, which cron joins by *or*.
    schedules: Vec<Schedule>,
}

impl Crontab {
    /// Reads five fields as crontab(5) has them, or six with seconds in front.
    ///
    /// # Errors
    /// A text that says which field is wrong and how it is written.
    pub fn parse(text: &str) -> Result<Crontab, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (seconds, [minute, hour, day, month, weekday]) = match fields[..] {
            [minute, hour, day, month, weekday] => ("0", [minute, hour, day, month, weekday]),
            [seconds, minute, hour, day, month, weekday] => (seconds, [minute, hour, day, month, weekday]),
            _ => return Err(format!("has {} fields; write five, or six with seconds in front", fields.len())),
        };
        for (name, text, least, most) in [
            ("second", seconds, 0, 59),
            ("minute", minute, 0, 59),
            ("hour", hour, 0, 23),
            ("day of month", day, 1, 31),
            ("month", month, 1, 12),
        ] {
            check(name, text, least, most)?;
        }
        let days = weekdays(weekday)?;
        let schedule = |day: &str, weekday: &str| {
            let text = format!("{seconds} {minute} {hour} {day} {month} {weekday}");
            Schedule::from_str(&text).map_err(|_| "has a field that cannot be read".to_owned())
        };
        // crontab(5): a field that begins with * does not restrict; two that restrict are joined by *or*.
        let restricts = |field: &str| !field.starts_with('*') && field != "?";
        let schedules = if restricts(day) && restricts(weekday) {
            vec![schedule(day, "*")?, schedule("*", &days)?]
        } else {
            vec![schedule(day, &days)?]
        };
        Ok(Crontab { schedules })
    }

    /// The first time after `now` at which the line fires; `None` if it never fires again.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.schedules.iter().filter_map(|schedule| schedule.after(&now).next()).min()
    }
}

/// Checks that each number of a field is in its range; a month may also be a name.
fn check(name: &str, field: &str, least: u32, most: u32) -> Result<(), String> {
    let number = |text: &str| text.parse().ok().filter(|n| (least..=most).contains(n));
    let value = |text: &str| match MONTHS.iter().position(|month| month.eq_ignore_ascii_case(text)) {
        Some(n) if name == "month" => u32::try_from(n + 1).ok(),
        _ => number(text),
    };
    let is_good = |part: &str| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let in_range = match range.split_once('-') {
            _ if range == "*" || range == "?" => true,
            Some((first, last)) => value(first).zip(value(last)).is_some_and(|(first, last)| first <= last),
            None => value(range).is_some(),
        };
        in_range && step.is_none_or(|step| step.parse().is_ok_and(|n: u32| (1..=most).contains(&n)))
    };
    match field.split(',').find(|part| !is_good(part)) {
        None => Ok(()),
        Some(part) => Err(format!(
            "has '{part}' as its {name}, which must be {least} to {most}, written as {most}, {least}-{most}, \
             {least},{most} or */2"
        )),
    }
}

/// The weekday field (0 and 7: Sunday) as names, because the crate numbers weekdays differently.
fn weekdays(field: &str) -> Result<String, String> {
    if field == "*" || field == "?" {
        return Ok("*".into());
    }
    let mut chosen = [false; 7];
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse().ok().filter(|n| (1..=7).contains(n)).ok_or_else(|| wrong(part))?)
            }
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((first, last)) => (weekday(first, part)?, weekday(last, part)?),
            None if part.contains('/') => return Err(wrong(part)),
            None => (weekday(range, part)?, weekday(range, part)?),
        };
        // FRI-SUN ends on the following Sunday.
        let last = if last == 0 && first > 0 { 7 } else { last };
        if last < first {
            return Err(wrong(part));
        }
        (first..=last).step_by(step).for_each(|day| chosen[day % 7] = true);
    }
    let names = DAYS.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(name, _)| *name);
    Ok(names.collect::<Vec<_>>().join(","))
}

fn weekday(text: &str, part: &str) -> Result<usize, String> {
    let named = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    named.or_else(|| text.parse().ok().filter(|n| *n <= 7)).ok_or_else(|| wrong(part))
}

fn wrong(part: &str) -> String {
    format!("has the weekday '{part}'; weekdays are 0 to 7 (0 and 7: Sunday) or SUN to SAT, as 1-5, MON,WED or */2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike as _, TimeDelta, Timelike as _};

    /// Days of 2027-03 (the 1st is a Monday) on which a line fires at nine.
    fn days(line: &str) -> Vec<u32> {
        let crontab = Crontab::parse(line).unwrap();
        let mut at: DateTime<Utc> = "2027-02-28T23:59:59Z".parse().unwrap();
        let mut found = Vec::new();
        while let Some(next) = crontab.next_after(at).filter(|next| next.month() == 3) {
            assert_eq!((next.hour(), next.minute(), next.second()), (9, 0, 0));
            found.push(next.day());
            at = next + TimeDelta::seconds(1);
        }
        found
    }

    /// Fault D8: weekdays and days of month as Debian's cron reads them (crontab(5)).
    #[test]
    fn crontab_weekdays_count_from_sunday_0() {
        let (mondays, sundays) = (vec![1, 8, 15, 22, 29], vec![7, 14, 21, 28]);
        for (line, wanted) in [
            ("0 9 * * 1", mondays.clone()),
            ("0 9 * * mon", mondays.clone()),
            ("0 0 9 * * 1", mondays.clone()),
            ("0 9 * * 0", sundays.clone()),
            ("0 9 * * 7", sundays.clone()),
            ("0 9 * * 0,7", sundays.clone()),
            ("0 9 1-7 * 1", vec![1, 2, 3, 4, 5, 6, 7, 8, 15, 22, 29]),
            ("0 9 13 * 5", vec![5, 12, 13, 19, 26]),
            ("0 9 */10 * 1", vec![1]),
            ("0 9 * * 5-7", vec![5, 6, 7, 12, 13, 14, 19, 20, 21, 26, 27, 28]),
            ("0 9 * * FRI-SUN", vec![5, 6, 7, 12, 13, 14, 19, 20, 21, 26, 27, 28]),
            ("0 9 * * 1-5/2", vec![1, 3, 5, 8, 10, 12, 15, 17, 19, 22, 24, 26, 29, 31]),
            ("0 9 * * */3", vec![3, 6, 7, 10, 13, 14, 17, 20, 21, 24, 27, 28, 31]),
            ("0 9 31 * *", vec![31]),
        ] {
            assert_eq!(days(line), wanted, "{line}");
        }
        for good in ["*/10 * * * * *", "0-59/15,7 9 1 jan-dec/2 ?", "5/10 * * FEB *", "59 23 31 12 *"] {
            Crontab::parse(good).unwrap();
        }
        for (line, field) in [
            ("61 * * * *", "'61' as its minute, which must be 0 to 59"),
            ("60 * * * * *", "'60' as its second, which must be 0 to 59"),
            ("0 24 * * *", "'24' as its hour, which must be 0 to 23"),
            ("0 9 0 * *", "'0' as its day of month, which must be 1 to 31"),
            ("0 9 * 3-13 *", "'3-13' as its month, which must be 1 to 12"),
            ("1,x * * * *", "'x' as its minute"),
            ("*/0 * * * *", "'*/0' as its minute"),
            ("9-3 * * * *", "'9-3' as its minute"),
        ] {
            let told = Crontab::parse(line).unwrap_err();
            assert!(told.contains(field), "{line}: {told}");
        }
        for wrong in ["0 9 * * 8", "0 9 * * 5-2", "0 9 * * MO", "0 9 * * 1/2", "0 9 * * */0", "0 9 * *", "0 25 * * 1"] {
            assert!(Crontab::parse(wrong).is_err(), "{wrong}");
        }
    }
}
