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
pub struct RateLimitUsage {
    /// How many requests were made when, in microseconds since 1970, sorted. What lies ahead was taken, and may yet be made
    /// until then.
    #[serde(rename = "at")]
    entries: Vec<(i64, u32)>,
    /// Of a token bucket: what it lacked of being full, in parts of a token (there are as many as the limit's time has
    /// microseconds), …
    #[serde(rename = "lack")]
    deficit: i64,
    /// … and when: after all that is no longer listed above.
    #[serde(rename = "since")]
    deficit_at: i64,
}

/// What a take brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitGrant {
    pub granted: u32,
    /// Until when those may be made.
    pub valid_until: DateTime<Utc>,
    /// So many more are free.
    pub free: u32,
    /// When one is free, if none is; or earlier, if what others took is given back.
    pub next_free_at: DateTime<Utc>,
    /// Some are taken that are not made yet.
    pub has_outstanding: bool,
}

/// What became of one request that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitReport {
    /// As `Taken::until` said.
    pub valid_until: DateTime<Utc>,
    /// When it was made; None: it was not, and will not be.
    pub made_at: Option<DateTime<Utc>>,
}

/// Requests whose times are kept one by one; of larger limits times are rounded up to such a part of theirs.
const MAX_EXACT: u32 = 1_000;
/// Two processes' clocks may differ by so much, in microseconds.
const MAX_CLOCK_SKEW_US: i64 = 1_000_000;
/// No bucket keeps more.
const MAX_BURST: u32 = 1_000_000;

impl RateLimit {
    fn period_us(&self) -> i64 {
        i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    /// How many may come at once, when none came before.
    pub fn capacity(&self) -> u32 {
        if self.strategy == Strategy::TokenBucket { self.burst() } else { self.count }
    }

    fn burst(&self) -> u32 {
        self.burst.clamp(1, MAX_BURST)
    }

    /// How long one that was taken may wait to be made: long enough to load and begin it, short beside the limit's time.
    fn validity_us(&self) -> i64 {
        (self.period_us() / 10).clamp(50_000, 1_000_000)
    }

    /// How many a process takes at once: so few that several share what is free.
    pub fn chunk_size(&self) -> u32 {
        let chunk = (self.count / 10).max(1);
        if self.strategy == Strategy::TokenBucket { chunk.min(self.burst()) } else { chunk }
    }

    fn rounded(&self, at: i64) -> i64 {
        let grain = if self.count > MAX_EXACT { (self.period_us() / i64::from(MAX_EXACT)).max(1) } else { 1 };
        at.div_euclid(grain).saturating_add(i64::from(at.rem_euclid(grain) > 0)) * grain
    }

    /// Until when what is taken now may be made.
    fn valid_until_us(&self, now: i64) -> i64 {
        let last = match self.strategy {
            Strategy::FixedWindow => self.window_start(now) + self.period_us() - 1,
            Strategy::SlidingWindow | Strategy::TokenBucket => i64::MAX,
        };
        self.rounded(now + self.validity_us()).min(last)
    }

    fn window_start(&self, at: i64) -> i64 {
        at.div_euclid(self.period_us()) * self.period_us()
    }
}

impl RateLimitUsage {
    /// Takes what is free of `wanted`. Never more than the law allows whenever within their time they are made.
    pub fn take(&mut self, limit: &RateLimit, wanted: u32, now: DateTime<Utc>) -> RateLimitGrant {
        let now = now.timestamp_micros();
        self.drop_expired(limit, now);
        let free = self.free(limit, now);
        let granted = wanted.min(free);
        let until = limit.valid_until_us(now);
        let outstanding = self.entries.last().is_some_and(|last| last.0 > now);
        self.add(until, granted);
        let next = if free > granted { now } else { self.next_free(limit, now) };
        RateLimitGrant {
            granted,
            valid_until: time(until),
            free: free - granted,
            next_free_at: time(next),
            has_outstanding: outstanding,
        }
    }

    /// Books what became of requests that were taken.
    pub fn apply_reports(&mut self, limit: &RateLimit, reports: &[PermitReport]) {
        for report in reports {
            let until = report.valid_until.timestamp_micros();
            let Some(booked) = self.entries.iter_mut().find(|(at, n)| *at == until && *n > 0) else { continue };
            booked.1 -= 1;
            if let Some(made) = report.made_at {
                self.add(limit.rounded(made.timestamp_micros()).min(until), 1);
            }
        }
        self.entries.retain(|(_, n)| *n > 0);
    }

    /// How many count now, and when one more is free.
    pub fn used(&self, limit: &RateLimit, now: DateTime<Utc>) -> (u32, DateTime<Utc>) {
        let (mut seen, now) = (self.clone(), now.timestamp_micros());
        seen.drop_expired(limit, now);
        let free = seen.free(limit, now);
        let all = limit.capacity();
        let next = if free > 0 { now } else { seen.next_free(limit, now) };
        (all.saturating_sub(free), time(next))
    }

    fn add(&mut self, at: i64, n: u32) {
        if n == 0 {
            return;
        }
        let place = self.entries.partition_point(|(other, _)| *other < at);
        match self.entries.get_mut(place).filter(|(other, _)| *other == at) {
            Some(booked) => booked.1 += n,
            None => self.entries.insert(place, (at, n)),
        }
    }

    /// Drops what counts no more.
    fn drop_expired(&mut self, limit: &RateLimit, now: i64) {
        self.clamp_future(limit, now);
        match limit.strategy {
            Strategy::SlidingWindow => self.entries.retain(|(at, _)| *at > now - limit.period_us()),
            Strategy::FixedWindow => self.entries.retain(|(at, _)| *at >= limit.window_start(now)),
            Strategy::TokenBucket => {
                // A report of these comes no more.
                let old = self.entries.partition_point(|(at, _)| *at <= now - 2 * limit.validity_us());
                for (at, n) in self.entries.drain(..old).collect::<Vec<_>>() {
                    (self.deficit, self.deficit_at) = (deficit_after(limit, self.deficit, self.deficit_at, at, n), at);
                }
            }
        }
    }

    /// What lies further ahead than anything can that is taken now was booked by a clock that was set back since. It counts as
    /// made at the last instant it could be, and not until that clock's time comes again.
    fn clamp_future(&mut self, limit: &RateLimit, now: i64) {
        let (most, until) = (limit.rounded(now + limit.validity_us()) + MAX_CLOCK_SKEW_US, limit.valid_until_us(now));
        let ahead = self.entries.partition_point(|(at, _)| *at <= most);
        for (_, n) in self.entries.split_off(ahead) {
            self.add(until, n);
        }
        if self.deficit_at > most {
            self.deficit_at = until;
        }
    }

    fn free(&self, limit: &RateLimit, now: i64) -> u32 {
        match limit.strategy {
            Strategy::SlidingWindow | Strategy::FixedWindow => {
                let counted: u64 = self.entries.iter().map(|(_, n)| u64::from(*n)).sum();
                limit.count.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
            }
            Strategy::TokenBucket => {
                let left = i64::from(limit.burst()) * limit.period_us() - self.deficit_now(limit, now);
                u32::try_from((left / limit.period_us()).max(0)).unwrap_or(0)
            }
        }
    }

    /// What the bucket lacks if all that was taken is made now: later is no better for it.
    fn deficit_now(&self, limit: &RateLimit, now: i64) -> i64 {
        let (lack, since) = self.entries.iter().fold((self.deficit, self.deficit_at), |(lack, since), (at, n)| {
            let at = (*at).min(now);
            (deficit_after(limit, lack, since, at, *n), at.max(since))
        });
        deficit_after(limit, lack, since, now, 0)
    }

    fn next_free(&self, limit: &RateLimit, now: i64) -> i64 {
        match limit.strategy {
            Strategy::FixedWindow => limit.window_start(now) + limit.period_us(),
            Strategy::SlidingWindow => {
                // So many must have gone for one to be free.
                let counted: u64 = self.entries.iter().map(|(_, n)| u64::from(*n)).sum();
                let (mut gone, enough) = (0, (counted + 1).saturating_sub(u64::from(limit.count)));
                let freeing = self.entries.iter().find(|(_, n)| {
                    gone += u64::from(*n);
                    gone >= enough
                });
                freeing.map_or(now, |(at, _)| at.saturating_add(limit.period_us()))
            }
            Strategy::TokenBucket => {
                let over = self.deficit_now(limit, now) - i64::from(limit.burst() - 1) * limit.period_us();
                let count = i64::from(limit.count.max(1));
                now + over.max(0) / count + i64::from(over.max(0) % count > 0)
            }
        }
    }
}

/// What a bucket lacks at a later time, after so many more.
fn deficit_after(limit: &RateLimit, lack: i64, since: i64, at: i64, n: u32) -> i64 {
    let refilled = at.saturating_sub(since).max(0).saturating_mul(i64::from(limit.count));
    lack.saturating_sub(refilled).max(0).saturating_add(i64::from(n).saturating_mul(limit.period_us()))
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
