//! Redriving many dead letters, or replaying many events: jobs that go at a bounded rate, so that live traffic keeps its
//! pace.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::delivery::Status;
use crate::limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveKind {
    /// Dead letters of one partner or all, by an operator.
    Redrive,
    /// What failed on its way to one endpoint, or waits there for its next try.
    Recover,
    /// Events of a window of time are sent to one endpoint again, each under its own id.
    Replay,
}

pub const REDRIVE_KINDS: [RedriveKind; 3] = [RedriveKind::Redrive, RedriveKind::Recover, RedriveKind::Replay];

impl RedriveKind {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveStatus {
    Running,
    Done,
    Canceled,
}

pub const REDRIVE_STATUSES: [RedriveStatus; 3] = [RedriveStatus::Running, RedriveStatus::Done, RedriveStatus::Canceled];

impl RedriveStatus {
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

/// What is dead and may be tried again, in the order in which it is walked.
pub const DEAD_LETTER_STATUSES: [Status; 2] = [Status::Failed, Status::Undetermined];

/// Which dead letters, or which events, beside whose and for which endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobFilter {
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word")]
    pub channel: Option<Channel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// FAILED or UNDETERMINED.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word")]
    pub status: Option<Status>,
    /// Which events; none: all that the endpoint asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// Died, or happened, at this time or later …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// … and before this one: what dies later is not of this job, so it never meets the same one twice.
    pub until: DateTime<Utc>,
}

/// A word of the model as its text.
mod word {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde asks for a reference")]
    pub fn serialize<T: Display, S: Serializer>(word: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        match word {
            Some(word) => s.collect_str(word),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// What was not used of the rate is kept no longer than this: nobody who was away for an hour makes up for it at once.
const MAX_UNUSED: TimeDelta = TimeDelta::seconds(1);
/// A step does something worth its transaction.
pub const MIN_STEP: TimeDelta = TimeDelta::milliseconds(25);

/// How many a job may do now. `stepped_at` is until when its rate is used up.
pub fn allowance(rate_per_second: i32, stepped_at: DateTime<Utc>, now: DateTime<Utc>) -> usize {
    let micros = (now - stepped_at).clamp(TimeDelta::zero(), MAX_UNUSED).num_microseconds().unwrap_or(0);
    let allowed = micros * i64::from(rate_per_second) / 1_000_000;
    usize::try_from(allowed).unwrap_or(0).min(limits::REDRIVE_CHUNK)
}

/// Until when its rate is used up once `done` of the `allowed` are done. A job that looked long and found little has its turn
/// again at once, and behind all others; what it did not use is lost.
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

    /// However often and however late its turns come, a job never does more than its rate allows since it began, nor makes
    /// up for more than a second.
    #[test]
    fn the_rate_is_never_exceeded() {
        for rate in [1, 3, 7, 10, 333, 2_000, 10_000] {
            for found in [1.0, 0.3] {
                let (mut stepped_at, mut done) = (at(0), 0);
                for turn in 1..=400 {
                    // Turns of 1 ms to 250 ms, and now and then nobody for long.
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
    fn a_rate_is_met_when_turns_come_in_time() {
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
    fn a_filter_is_read_as_it_is_written() {
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
