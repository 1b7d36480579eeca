//! Jobs that redrive many dead letters or replay many events, at a bounded rate so that live traffic is not slowed.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::delivery::Status;
use crate::limits;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveKind {
    /// Redrives dead letters of one partner or of all; for operators.
    Redrive,
    /// Redrives webhooks of one endpoint that failed or wait for a retry.
    Recover,
    /// Sends the events of a time window to one endpoint again, each under its original event id.
    Replay,
}

/// Every kind of job.
pub const REDRIVE_KINDS: [RedriveKind; 3] = [RedriveKind::Redrive, RedriveKind::Recover, RedriveKind::Replay];

impl RedriveKind {
    /// The stable word in the database and the API, such as `REDRIVE`.
    pub fn as_str(self) -> &'static str {
        match self {
            RedriveKind::Redrive => "REDRIVE",
            RedriveKind::Recover => "RECOVER",
            RedriveKind::Replay => "REPLAY",
        }
    }
}

impl std::str::FromStr for RedriveKind {
    type Err = ();
    fn from_str(text: &str) -> Result<RedriveKind, ()> {
        REDRIVE_KINDS.into_iter().find(|k| k.as_str() == text).ok_or(())
    }
}

/// The status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveStatus {
    Running,
    Done,
    Canceled,
}

/// Every status of a job.
pub const REDRIVE_STATUSES: [RedriveStatus; 3] = [RedriveStatus::Running, RedriveStatus::Done, RedriveStatus::Canceled];

impl RedriveStatus {
    /// The stable word in the database and the API, such as `RUNNING`.
    pub fn as_str(self) -> &'static str {
        match self {
            RedriveStatus::Running => "RUNNING",
            RedriveStatus::Done => "DONE",
            RedriveStatus::Canceled => "CANCELED",
        }
    }
}

impl std::str::FromStr for RedriveStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<RedriveStatus, ()> {
        REDRIVE_STATUSES.into_iter().find(|s| s.as_str() == text).ok_or(())
    }
}

/// The statuses of dead letters, in the order in which a job walks them.
pub const DEAD_LETTER_STATUSES: [Status; 2] = [Status::Failed, Status::Undetermined];

/// Which dead letters or events a job handles, within its partner and endpoint. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobFilter {
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word")]
    pub channel: Option<Channel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Only this reason, a word of `DELIVERY_REASONS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// FAILED or UNDETERMINED; `None`: both.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word")]
    pub status: Option<Status>,
    /// Names of events; `None`: all that the endpoint subscribed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// Settled, or published, at this time or later …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// … and before this one. A delivery that fails again later is outside, so a job meets none twice.
    pub until: DateTime<Utc>,
}

/// Serialises an optional model word as its text.
mod word {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes the word, or null.
    ///
    /// # Errors
    /// The serialiser's error.
    #[expect(clippy::ref_option, reason = "serde asks for a reference")]
    pub fn serialize<T: Display, S: Serializer>(word: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        match word {
            Some(word) => s.collect_str(word),
            None => s.serialize_none(),
        }
    }

    /// Parses the word.
    ///
    /// # Errors
    /// The deserialiser's error if it is not a word of the model.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// Unused rate is kept for at most this long, so a job that was away for an hour does not catch up in one step.
const MAX_UNUSED: TimeDelta = TimeDelta::seconds(1);
/// Shortest time between two steps of a job, so that each step has enough work for its transaction.
pub const MIN_STEP: TimeDelta = TimeDelta::milliseconds(25);

/// How many items a job may handle now. `rate_per_second`: its rate. `stepped_at`: the time until which its rate is
/// used up, as `rate_used_until` returned it.
pub fn allowance(rate_per_second: i32, stepped_at: DateTime<Utc>, now: DateTime<Utc>) -> usize {
    let micros = (now - stepped_at).clamp(TimeDelta::zero(), MAX_UNUSED).num_microseconds().unwrap_or(0);
    let allowed = micros * i64::from(rate_per_second) / 1_000_000;
    usize::try_from(allowed).unwrap_or(0).min(limits::REDRIVE_CHUNK)
}

/// The time until which a job's rate is used up after `done` of `allowed` items. A job that searched long and found
/// little is due again at once, behind all other jobs, and loses what it did not use.
pub fn rate_used_until(
    rate_per_second: i32,
    stepped_at: DateTime<Utc>,
    now: DateTime<Utc>,
    allowed: usize,
    done: usize,
) -> DateTime<Utc> {
    let rate = i64::from(rate_per_second.max(1));
    let used = |n: i64| TimeDelta::microseconds((n * 1_000_000 + rate - 1) / rate);
    let after = stepped_at.max(now - MAX_UNUSED) + used(i64::try_from(done).unwrap_or(0));
    if done >= allowed { after } else { after.max(now - used(1).max(MIN_STEP)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    /// However often and however late its turns come, a job never does more than its rate allows since it began, nor
    /// makes up for more than a second.
    #[test]
    fn rate_is_never_exceeded() {
        for rate in [1, 3, 7, 10, 333, 2_000, 10_000] {
            for found in [1.0, 0.3] {
                let (mut stepped_at, mut done) = (at(0), 0);
                for turn in 1..=400 {
                    // Steps of 1 ms to 250 ms, and now and then a long break.
                    let now = at(turn * 113 % 250 + turn * 250 + if turn > 200 { 3_600_000 } else { 0 });
                    let allowed = allowance(rate, stepped_at, now);
                    let did = (allowed as f64 * found) as usize;
                    stepped_at = rate_used_until(rate, stepped_at, now, allowed, did);
                    assert!(allowance(rate, stepped_at, now) + did <= allowed.max(rate as usize), "{rate}");
                    assert!(stepped_at <= now + TimeDelta::microseconds(1), "{rate}");
                    done += did as i64;
                    let awake = (now - at(if turn > 200 { 3_600_000 - 1_000 } else { 0 })).num_microseconds().unwrap();
                    assert!(done * 1_000_000 <= i64::from(rate) * awake, "{rate}: {done} after {awake} µs");
                }
            }
        }
    }

    #[test]
    fn rate_is_reached_when_steps_run_in_time() {
        for rate in [1, 3, 10, 2_000, 4_000] {
            let (mut stepped_at, mut done) = (at(0), 0);
            for turn in 1..=240 {
                let now = at(turn * 250);
                let allowed = allowance(rate, stepped_at, now);
                stepped_at = rate_used_until(rate, stepped_at, now, allowed, allowed);
                done += allowed;
            }
            assert!((rate as usize * 60 - 1..=rate as usize * 60).contains(&done), "{rate}: {done}");
        }
        assert_eq!(allowance(10, at(0), at(1_000)), 10);
    }

    #[test]
    fn job_filter_round_trips() {
        let filter = JobFilter {
            channel: Some(Channel::KakaoAlimtalk),
            provider: None,
            error: Some("unreachable".into()),
            status: Some(Status::Failed),
            events: None,
            since: None,
            until: at(0),
        };
        let text = serde_json::to_value(&filter).unwrap();
        assert_eq!((&text["channel"], &text["status"]), (&"KAKAO_ALIMTALK".into(), &"FAILED".into()));
        assert_eq!(serde_json::from_value::<JobFilter>(text).unwrap(), filter);
    }
}
