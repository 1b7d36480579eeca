//! Rate limits: how often a provider may be asked, by all processes together.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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
