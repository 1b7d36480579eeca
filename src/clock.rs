//! The only place that reads the time of day. Elapsed time is measured with `std::time::Instant`.
//!
//! The system clock is kept in step with the database's: hosts whose clocks disagree would write rows behind each
//! other's watermarks, and a scheduled message would leave early from one host and late from another. After `calibrate`
//! `now` is the database's time, read without a round trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// The time of day; clones share one clock.
#[derive(Clone)]
pub enum Clock {
    /// Microseconds to add to this host's clock.
    System(Arc<AtomicI64>),
    /// Microseconds since 1970; moves when a test says so.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Makes a clock that follows this host until `calibrate` is called.
    pub fn system() -> Clock {
        Clock::System(Arc::new(AtomicI64::new(0)))
    }

    /// Makes a clock for tests, which stands at `start` until `advance` moves it.
    pub fn manual(start: DateTime<Utc>) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(start.timestamp_micros())))
    }

    /// Returns the time in whole microseconds, the precision of PostgreSQL.
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Clock::System(offset) => micros(host_micros() + offset.load(Ordering::Relaxed)),
            Clock::Manual(at) => micros(at.load(Ordering::Relaxed)),
        }
    }

    /// Returns milliseconds since 1970, for ids.
    pub fn unix_millis(&self) -> i64 {
        self.now().timestamp_millis()
    }

    /// Takes over the database's time. `database` is its clock, read about half-way between `sent` and `received`, both
    /// by `host_now`. Returns how far this host's own clock is behind the database's; does not change a manual clock.
    pub fn calibrate(&self, sent: DateTime<Utc>, database: DateTime<Utc>, received: DateTime<Utc>) -> TimeDelta {
        let middle = sent + (received - sent) / 2;
        let off = database - middle;
        if let Clock::System(offset) = self {
            offset.store(off.num_microseconds().unwrap_or(0), Ordering::Relaxed);
        }
        off
    }

    /// Returns this host's own clock, uncorrected: for `calibrate` only.
    pub fn host_now() -> DateTime<Utc> {
        micros(host_micros())
    }

    /// Moves a manual clock; does nothing to a system clock.
    pub fn advance(&self, by: TimeDelta) {
        if let Clock::Manual(at) = self {
            at.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::Relaxed);
        }
    }
}

fn micros(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at).unwrap_or(DateTime::UNIX_EPOCH)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
fn host_micros() -> i64 {
    Utc::now().timestamp_micros()
}
