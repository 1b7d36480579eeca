//! Rate limits: how often all processes together may call a provider. A process takes permits ahead and uses them
//! within a moment. Each permit is recorded at the last instant at which it is valid, until the process reports when it
//! was used.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The rate limit of a provider account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed …
    pub count: u32,
    /// … in this period.
    pub per: Duration,
    pub strategy: Strategy,
    /// Size of the token bucket; ignored by other strategies.
    pub burst: u32,
}

/// How a rate limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// At most `count` in any period, wherever it begins.
    #[default]
    SlidingWindow,
    /// At most `count` in each period that begins at a multiple of it since 1970.
    FixedWindow,
    /// A token is added every `per` / `count`; unused tokens are kept, up to `burst`.
    TokenBucket,
}

impl RateLimit {
    /// A sliding window of `count` requests in any minute.
    pub const fn per_minute(count: u32) -> RateLimit {
        RateLimit { count, per: Duration::from_secs(60), strategy: Strategy::SlidingWindow, burst: 1 }
    }
}

/// The recorded use of one rate limit. Stored as JSON in the database; the serde names never change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RateLimitUsage {
    /// Sorted (time in µs since 1970, count). Past entries are requests made; future entries are permits granted and
    /// valid until that time.
    #[serde(rename = "at")]
    entries: Vec<(i64, u32)>,
    /// Token bucket only: what the bucket lacks of being full, in fractions of a token. One token is `per` in µs …
    #[serde(rename = "lack")]
    deficit: i64,
    /// … at this time, µs since 1970. It covers all requests that are no longer in `entries`.
    #[serde(rename = "since")]
    deficit_at: i64,
}

/// The answer to a request for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitGrant {
    /// Permits granted, at most the number wanted.
    pub granted: u32,
    /// Each permit must be used until this time.
    pub valid_until: DateTime<Utc>,
    /// Permits still free after these.
    pub free: u32,
    /// When the next permit is free; now, if `free` > 0. Earlier if another process gives permits back.
    pub next_free_at: DateTime<Utc>,
    /// Permits were granted before that are not reported used yet.
    pub has_outstanding: bool,
}

/// What happened to one granted permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitReport {
    /// The `valid_until` of its grant.
    pub valid_until: DateTime<Utc>,
    /// When the request was made; `None`: the permit was not used and never will be.
    pub made_at: Option<DateTime<Utc>>,
}

/// Limits up to this count record every time exactly; larger ones round times up to this fraction of the period.
const MAX_EXACT: u32 = 1_000;
/// Clocks of two processes may differ by this many microseconds.
const MAX_CLOCK_SKEW_US: i64 = 1_000_000;
/// Largest bucket.
const MAX_BURST: u32 = 1_000_000;

impl RateLimit {
    fn period_us(&self) -> i64 {
        i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    /// Requests allowed at once if none was made before.
    pub fn capacity(&self) -> u32 {
        if self.strategy == Strategy::TokenBucket { self.burst() } else { self.count }
    }

    fn burst(&self) -> u32 {
        self.burst.clamp(1, MAX_BURST)
    }

    /// How long a permit is valid, in µs: long enough to load and start the call, short compared with the period.
    fn validity_us(&self) -> i64 {
        (self.period_us() / 10).clamp(50_000, 1_000_000)
    }

    /// How many permits a process takes at once: few enough that several processes share what is free.
    pub fn chunk_size(&self) -> u32 {
        let chunk = (self.count / 10).max(1);
        if self.strategy == Strategy::TokenBucket { chunk.min(self.burst()) } else { chunk }
    }

    fn rounded(&self, at: i64) -> i64 {
        let grain = if self.count > MAX_EXACT { (self.period_us() / i64::from(MAX_EXACT)).max(1) } else { 1 };
        at.div_euclid(grain).saturating_add(i64::from(at.rem_euclid(grain) > 0)) * grain
    }

    /// The time, µs since 1970, until which a permit granted now is valid. Never beyond a fixed window.
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
    /// Grants up to `wanted` permits. Whenever the permits are used within their time, the limit is not exceeded.
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

    /// Records what happened to granted permits: a used one moves to its real time, an unused one is freed. A report
    /// whose permit is no longer recorded is ignored.
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

    /// Requests that count against the limit now, granted permits included, and when the next permit is free.
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

    /// Drops entries that no longer count.
    fn drop_expired(&mut self, limit: &RateLimit, now: i64) {
        self.clamp_future(limit, now);
        match limit.strategy {
            Strategy::SlidingWindow => self.entries.retain(|(at, _)| *at > now - limit.period_us()),
            Strategy::FixedWindow => self.entries.retain(|(at, _)| *at >= limit.window_start(now)),
            Strategy::TokenBucket => {
                // Permits this old are no longer reported.
                let old = self.entries.partition_point(|(at, _)| *at <= now - 2 * limit.validity_us());
                for (at, n) in self.entries.drain(..old).collect::<Vec<_>>() {
                    (self.deficit, self.deficit_at) = (deficit_after(limit, self.deficit, self.deficit_at, at, n), at);
                }
            }
        }
    }

    /// An entry further ahead than any permit granted now was recorded by a clock that was set back since. It is moved
    /// to the latest time that a permit granted now can have, so that it does not block until that clock's time comes
    /// again.
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

    /// What the bucket lacks if every granted permit is used now, which is the worst case.
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
                // This many requests must leave the window before one permit is free.
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

/// What a bucket lacks at `at`, after `n` further requests.
fn deficit_after(limit: &RateLimit, lack: i64, since: i64, at: i64, n: u32) -> i64 {
    let refilled = at.saturating_sub(since).max(0).saturating_mul(i64::from(limit.count));
    lack.saturating_sub(refilled).max(0).saturating_add(i64::from(n).saturating_mul(limit.period_us()))
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl FromStr for RateLimit {
    type Err = String;

    /// Parses `COUNT/UNIT`, as in `100/m`; the unit is s, m, h or d.
    fn from_str(text: &str) -> Result<RateLimit, String> {
        let wrong = || format!("'{text}' is not a rate such as 100/m (units: s second, m minute, h hour, d day)");
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
