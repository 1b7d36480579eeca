//! Limits how many webhook calls run at once to one endpoint, and to all endpoints of one partner, from this process.
//! The limit of an endpoint rises by one with each fast answer and is halved by a slow or missing one, so a tarpit
//! holds few calls and delays no other endpoint. A call over the limit learns when to come back.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::id::Tsid;

/// Limit of an endpoint that was not called yet.
const INITIAL_LIMIT: usize = 16;
const MAX_PER_ENDPOINT: usize = 64;
/// Limit of all endpoints of a partner together.
const MAX_PER_PARTNER: usize = 128;
/// An answer that takes at least this long is slow.
const SLOW: Duration = Duration::from_secs(10);
/// Longest wait: an endpoint may recover meanwhile. Not much shorter either, because each call that comes in vain costs
/// a claim.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Most calls in sequence that are released at once.
const MAX_IN_A_ROW: i64 = 32;
/// Above this many endpoints, those without a running call are forgotten.
const REMEMBERED: usize = 4_096;

/// The running calls and limits of every endpoint, in this process.
#[derive(Debug, Default)]
pub struct EndpointConcurrency {
    by_endpoint: HashMap<Tsid, EndpointGate>,
    by_partner: HashMap<Tsid, usize>,
}

#[derive(Debug)]
struct EndpointGate {
    calls: usize,
    most: usize,
    /// Moving average of a call's duration.
    mean: Duration,
    /// When the next call over the limit may come.
    next: Option<DateTime<Utc>>,
}

impl EndpointConcurrency {
    /// Takes a slot for one call. Pair each success with one `release`.
    ///
    /// # Errors
    /// How long to wait, at most `MAX_WAIT`, if the endpoint or the partner is at its limit. Nothing was taken.
    pub fn try_acquire(&mut self, endpoint_id: Tsid, partner_id: Tsid, now: DateTime<Utc>) -> Result<(), Duration> {
        let gate = self.by_endpoint.entry(endpoint_id).or_insert(EndpointGate {
            calls: 0,
            most: INITIAL_LIMIT,
            mean: Duration::from_millis(100),
            next: None,
        });
        let of_partner = self.by_partner.entry(partner_id).or_default();
        if gate.calls < gate.most && *of_partner < MAX_PER_PARTNER {
            gate.calls += 1;
            *of_partner += 1;
            return Ok(());
        }
        // Each waiting call gets the time at which a running call is expected to end for it.
        let earliest = now + gate.mean;
        let next = gate.next.map_or(earliest, |next| next.max(earliest));
        let step = gate.mean / u32::try_from(gate.most.max(1)).unwrap_or(1);
        // Beyond `MAX_WAIT` the times start again from the front.
        gate.next = Some((next + step).min(now + MAX_WAIT));
        Err((next - now).to_std().unwrap_or_default().min(MAX_WAIT))
    }

    /// How many calls to an endpoint, one after the other, are expected to end within this time: at least 1, and 1
    /// while calls must wait.
    pub fn calls_within(&self, endpoint_id: Tsid, within: Duration, now: DateTime<Utc>) -> i64 {
        let Some(gate) = self.by_endpoint.get(&endpoint_id) else { return 1 };
        if gate.next.is_some_and(|next| next > now) {
            return 1;
        }
        let calls = within.as_millis() / gate.mean.as_millis().max(1);
        i64::try_from(calls).unwrap_or(i64::MAX).clamp(1, MAX_IN_A_ROW)
    }

    /// Gives back the slot of a call that took `took`. `answered`: the endpoint sent any answer, success or not.
    pub fn release(&mut self, endpoint_id: Tsid, partner_id: Tsid, took: Duration, answered: bool) {
        if let Some(gate) = self.by_endpoint.get_mut(&endpoint_id) {
            gate.calls = gate.calls.saturating_sub(1);
            gate.mean = gate.mean.mul_f64(0.8) + took.mul_f64(0.2);
            gate.most =
                if took >= SLOW || !answered { (gate.most / 2).max(1) } else { (gate.most + 1).min(MAX_PER_ENDPOINT) };
        }
        if let Some(calls) = self.by_partner.get_mut(&partner_id) {
            *calls = calls.saturating_sub(1);
        }
        if self.by_endpoint.len() > REMEMBERED {
            self.by_endpoint.retain(|_, gate| gate.calls > 0);
            self.by_partner.retain(|_, calls| *calls > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTNER: Tsid = Tsid(1);
    const ENDPOINT: Tsid = Tsid(2);

    fn fill(gates: &mut EndpointConcurrency, endpoint: Tsid, now: DateTime<Utc>) -> usize {
        (0..1_000).take_while(|_| gates.try_acquire(endpoint, PARTNER, now).is_ok()).count()
    }

    #[test]
    fn slow_endpoint_limit_falls_and_fast_endpoint_limit_rises() {
        let (mut gates, now) = (EndpointConcurrency::default(), DateTime::UNIX_EPOCH);
        assert_eq!(fill(&mut gates, ENDPOINT, now), INITIAL_LIMIT);
        (0..INITIAL_LIMIT).for_each(|_| gates.release(ENDPOINT, PARTNER, Duration::from_secs(15), false));
        assert_eq!(fill(&mut gates, ENDPOINT, now), 1);
        gates.release(ENDPOINT, PARTNER, Duration::from_secs(15), false);
        for _ in 0..200 {
            gates.try_acquire(ENDPOINT, PARTNER, now).unwrap();
            gates.release(ENDPOINT, PARTNER, Duration::from_millis(5), true);
        }
        assert_eq!(fill(&mut gates, ENDPOINT, now), MAX_PER_ENDPOINT);
    }

    #[test]
    fn endpoints_of_a_partner_share_its_limit() {
        let (mut gates, now) = (EndpointConcurrency::default(), DateTime::UNIX_EPOCH);
        let all: usize = (0..40).map(|n| fill(&mut gates, Tsid(100 + n), now)).sum();
        assert_eq!(all, MAX_PER_PARTNER);
        assert!(gates.try_acquire(Tsid(9), Tsid(8), now).is_ok(), "another partner has its own");
    }

    #[test]
    fn calls_within_counts_calls_that_end_in_time() {
        let (mut gates, now, within) =
            (EndpointConcurrency::default(), DateTime::UNIX_EPOCH, Duration::from_millis(2_500));
        assert_eq!(gates.calls_within(ENDPOINT, within, now), 1, "of an endpoint that was not called yet");
        gates.try_acquire(ENDPOINT, PARTNER, now).unwrap();
        assert_eq!(gates.calls_within(ENDPOINT, within, now), 25);
        for _ in 0..50 {
            gates.release(ENDPOINT, PARTNER, Duration::from_secs(1), true);
        }
        assert_eq!(gates.calls_within(ENDPOINT, within, now), 2);
        for _ in 0..50 {
            gates.release(ENDPOINT, PARTNER, Duration::from_millis(1), true);
        }
        assert_eq!(gates.calls_within(ENDPOINT, within, now), MAX_IN_A_ROW);
        while gates.try_acquire(ENDPOINT, PARTNER, now).is_ok() {}
        assert_eq!(gates.calls_within(ENDPOINT, within, now), 1, "while calls have to stay away");
    }

    #[test]
    fn calls_over_the_limit_are_spread_over_time() {
        let (mut gates, now) = (EndpointConcurrency::default(), DateTime::UNIX_EPOCH);
        fill(&mut gates, ENDPOINT, now);
        let waits: Vec<Duration> =
            (0..10_000).filter_map(|_| gates.try_acquire(ENDPOINT, PARTNER, now).err()).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1]), "in their order");
        assert!(waits[0] >= Duration::from_millis(100) && waits[99] > waits[0], "{:?}", &waits[..3]);
        assert!(waits.iter().all(|w| *w <= MAX_WAIT));
    }
}
