//! Rate limits: how often a provider may be asked, by all processes together. A process takes some requests ahead, to be
//! made within a moment; each is booked at the last instant at which it may be made, until it is told when it was.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests …
    pub count: u32,
    /// … in this time.
    pub per: Duration,
    pub strategy: Strategy,
    /// Of a token bucket: how many may come at once. Else without meaning.
    pub burst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// In no span of that length more, wherever it begins.
    #[default]
    SlidingWindow,
    /// In no span of that length more that begins at a multiple of it.
    FixedWindow,
    /// One every so often; what was not used is kept, up to the burst.
    TokenBucket,
}

impl RateLimit {
    /// So many a minute, in any minute.
    pub const fn per_minute(count: u32) -> RateLimit {
        RateLimit { count, per: Duration::from_secs(60), strategy: Strategy::SlidingWindow, burst: 1 }
    }
}

/// What is booked of a limit. The database keeps it as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Booked {
    /// How many requests were made when, in microseconds since 1970, sorted. What lies ahead was taken, and may yet be made
    /// until then.
    at: Vec<(i64, u32)>,
    /// Of a token bucket: what it lacked of being full, in parts of a token (there are as many as the limit's time has
    /// microseconds), …
    lack: i64,
    /// … and when: after all that is no longer listed above.
    since: i64,
}

/// What a take brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub granted: u32,
    /// Until when those may be made.
    pub until: DateTime<Utc>,
    /// So many more are free.
    pub free: u32,
    /// When one is free, if none is; or earlier, if what others took is given back.
    pub next: DateTime<Utc>,
    /// Some are taken that are not made yet.
    pub outstanding: bool,
}

/// What became of one request that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// As `Taken::until` said.
    pub until: DateTime<Utc>,
    /// When it was made; None: it was not, and will not be.
    pub made_at: Option<DateTime<Utc>>,
}

/// Requests whose times are kept one by one; of larger limits times are rounded up to such a part of theirs.
const EXACT: u32 = 1_000;
/// Two processes' clocks may differ by so much, in microseconds.
const CLOCKS_DIFFER: i64 = 1_000_000;
/// No bucket keeps more.
const MOST_BURST: u32 = 1_000_000;

impl RateLimit {
    fn micros(&self) -> i64 {
        i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    /// How many may come at once, when none came before.
    pub fn at_once(&self) -> u32 {
        if self.strategy == Strategy::TokenBucket { self.burst() } else { self.count }
    }

    fn burst(&self) -> u32 {
        self.burst.clamp(1, MOST_BURST)
    }

    /// How long one that was taken may wait to be made: long enough to load and begin it, short beside the limit's time.
    fn valid(&self) -> i64 {
        (self.micros() / 10).clamp(50_000, 1_000_000)
    }

    /// How many a process takes at once: so few that several share what is free.
    pub fn chunk(&self) -> u32 {
        let chunk = (self.count / 10).max(1);
        if self.strategy == Strategy::TokenBucket { chunk.min(self.burst()) } else { chunk }
    }

    fn rounded(&self, at: i64) -> i64 {
        let grain = if self.count > EXACT { (self.micros() / i64::from(EXACT)).max(1) } else { 1 };
        at.div_euclid(grain).saturating_add(i64::from(at.rem_euclid(grain) > 0)) * grain
    }

    /// Until when what is taken now may be made.
    fn until(&self, now: i64) -> i64 {
        let last = match self.strategy {
            Strategy::FixedWindow => self.window_of(now) + self.micros() - 1,
            Strategy::SlidingWindow | Strategy::TokenBucket => i64::MAX,
        };
        self.rounded(now + self.valid()).min(last)
    }

    fn window_of(&self, at: i64) -> i64 {
        at.div_euclid(self.micros()) * self.micros()
    }
}

impl Booked {
    /// Takes what is free of `wanted`. Never more than the law allows whenever within their time they are made.
    pub fn take(&mut self, limit: &RateLimit, wanted: u32, now: DateTime<Utc>) -> Taken {
        let now = now.timestamp_micros();
        self.forget(limit, now);
        let free = self.free(limit, now);
        let granted = wanted.min(free);
        let until = limit.until(now);
        let outstanding = self.at.last().is_some_and(|last| last.0 > now);
        self.add(until, granted);
        let next = if free > granted { now } else { self.next(limit, now) };
        Taken { granted, until: time(until), free: free - granted, next: time(next), outstanding }
    }

    /// Books what became of requests that were taken.
    pub fn settle(&mut self, limit: &RateLimit, reports: &[Report]) {
        for report in reports {
            let until = report.until.timestamp_micros();
            let Some(booked) = self.at.iter_mut().find(|(at, n)| *at == until && *n > 0) else { continue };
            booked.1 -= 1;
            if let Some(made) = report.made_at {
                self.add(limit.rounded(made.timestamp_micros()).min(until), 1);
            }
        }
        self.at.retain(|(_, n)| *n > 0);
    }

    /// How many count now, and when one more is free.
    pub fn used(&self, limit: &RateLimit, now: DateTime<Utc>) -> (u32, DateTime<Utc>) {
        let (mut seen, now) = (self.clone(), now.timestamp_micros());
        seen.forget(limit, now);
        let free = seen.free(limit, now);
        let all = limit.at_once();
        let next = if free > 0 { now } else { seen.next(limit, now) };
        (all.saturating_sub(free), time(next))
    }

    fn add(&mut self, at: i64, n: u32) {
        if n == 0 {
            return;
        }
        let place = self.at.partition_point(|(other, _)| *other < at);
        match self.at.get_mut(place).filter(|(other, _)| *other == at) {
            Some(booked) => booked.1 += n,
            None => self.at.insert(place, (at, n)),
        }
    }

    /// Drops what counts no more.
    fn forget(&mut self, limit: &RateLimit, now: i64) {
        self.set_back(limit, now);
        match limit.strategy {
            Strategy::SlidingWindow => self.at.retain(|(at, _)| *at > now - limit.micros()),
            Strategy::FixedWindow => self.at.retain(|(at, _)| *at >= limit.window_of(now)),
            Strategy::TokenBucket => {
                // A report of these comes no more.
                let old = self.at.partition_point(|(at, _)| *at <= now - 2 * limit.valid());
                for (at, n) in self.at.drain(..old).collect::<Vec<_>>() {
                    (self.lack, self.since) = (lacks(limit, self.lack, self.since, at, n), at);
                }
            }
        }
    }

    /// What lies further ahead than anything can that is taken now was booked by a clock that was set back since. It counts as
    /// made at the last instant it could be, and not until that clock's time comes again.
    fn set_back(&mut self, limit: &RateLimit, now: i64) {
        let (most, until) = (limit.rounded(now + limit.valid()) + CLOCKS_DIFFER, limit.until(now));
        let ahead = self.at.partition_point(|(at, _)| *at <= most);
        for (_, n) in self.at.split_off(ahead) {
            self.add(until, n);
        }
        if self.since > most {
            self.since = until;
        }
    }

    fn free(&self, limit: &RateLimit, now: i64) -> u32 {
        match limit.strategy {
            Strategy::SlidingWindow | Strategy::FixedWindow => {
                let counted: u64 = self.at.iter().map(|(_, n)| u64::from(*n)).sum();
                limit.count.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
            }
            Strategy::TokenBucket => {
                let left = i64::from(limit.burst()) * limit.micros() - self.lacks_at(limit, now);
                u32::try_from((left / limit.micros()).max(0)).unwrap_or(0)
            }
        }
    }

    /// What the bucket lacks if all that was taken is made now: later is no better for it.
    fn lacks_at(&self, limit: &RateLimit, now: i64) -> i64 {
        let (lack, since) = self.at.iter().fold((self.lack, self.since), |(lack, since), (at, n)| {
            let at = (*at).min(now);
            (lacks(limit, lack, since, at, *n), at.max(since))
        });
        lacks(limit, lack, since, now, 0)
    }

    fn next(&self, limit: &RateLimit, now: i64) -> i64 {
        match limit.strategy {
            Strategy::FixedWindow => limit.window_of(now) + limit.micros(),
            Strategy::SlidingWindow => {
                // So many must have gone for one to be free.
                let counted: u64 = self.at.iter().map(|(_, n)| u64::from(*n)).sum();
                let (mut gone, enough) = (0, (counted + 1).saturating_sub(u64::from(limit.count)));
                let freeing = self.at.iter().find(|(_, n)| {
                    gone += u64::from(*n);
                    gone >= enough
                });
                freeing.map_or(now, |(at, _)| at.saturating_add(limit.micros()))
            }
            Strategy::TokenBucket => {
                let over = self.lacks_at(limit, now) - i64::from(limit.burst() - 1) * limit.micros();
                let count = i64::from(limit.count.max(1));
                now + over.max(0) / count + i64::from(over.max(0) % count > 0)
            }
        }
    }
}

/// What a bucket lacks at a later time, after so many more.
fn lacks(limit: &RateLimit, lack: i64, since: i64, at: i64, n: u32) -> i64 {
    let refilled = at.saturating_sub(since).max(0).saturating_mul(i64::from(limit.count));
    lack.saturating_sub(refilled).max(0).saturating_add(i64::from(n).saturating_mul(limit.micros()))
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl FromStr for RateLimit {
    type Err = String;

    /// `100/m`: s, m, h or d.
    fn from_str(text: &str) -> Result<RateLimit, String> {
        let wrong = || format!("'{text}' is not like 100/m (so many a second s, minute m, hour h or day d)");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        Ok(RateLimit { per: Duration::from_secs(seconds), ..RateLimit::per_minute(count) })
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Strategy, String> {
        match text {
            "sliding-window" => Ok(Strategy::SlidingWindow),
            "fixed-window" => Ok(Strategy::FixedWindow),
            "token-bucket" => Ok(Strategy::TokenBucket),
            other => Err(format!("'{other}' is none of sliding-window, fixed-window, token-bucket")),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Strategy::SlidingWindow => "sliding-window",
            Strategy::FixedWindow => "fixed-window",
            Strategy::TokenBucket => "token-bucket",
        })
    }
}
