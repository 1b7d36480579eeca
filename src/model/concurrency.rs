//! Gates: how many webhooks may be on their way at once, to one endpoint and to one partner's, from this process. An
//! endpoint that answers fast is called more at once, one that is slow less, so that a tarpit holds few calls and nobody
//! else waits for it. Who finds a gate full is told when to come back.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::id::Tsid;

/// Calls at once to an endpoint nobody knows yet.
const INITIAL_LIMIT: usize = 16;
const MAX_PER_ENDPOINT: usize = 64;
/// To all endpoints of a partner.
const MAX_PER_PARTNER: usize = 128;
/// An answer that takes longer is slow.
const SLOW: Duration = Duration::from_secs(10);
/// Nobody is told to stay away for longer: an endpoint may recover meanwhile. Not much shorter, either: each who comes in
/// vain costs a claim.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Calls that follow each other, released at once.
const MAX_IN_A_ROW: i64 = 32;
/// Gates without a call are forgotten when there are more.
const REMEMBERED: usize = 4_096;

#[derive(Debug, Default)]
pub struct EndpointConcurrency {
    by_endpoint: HashMap<Tsid, EndpointGate>,
    by_partner: HashMap<Tsid, usize>,
}

#[derive(Debug)]
struct EndpointGate {
    calls: usize,
    most: usize,
    /// What a call takes, of late.
    mean: Duration,
    /// When the next who finds it full may come.
    next: Option<DateTime<Utc>>,
}

impl EndpointConcurrency {
    /// In, or how long to stay away. Who is in leaves by `leave`.
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
        // Each who is sent away gets the moment when a call is expected to end for it.
        let earliest = now + gate.mean;
        let next = gate.next.map_or(earliest, |next| next.max(earliest));
        let step = gate.mean / u32::try_from(gate.most.max(1)).unwrap_or(1);
        // Beyond the longest nobody is sent away: who comes then is given the moments after that anew.
        gate.next = Some((next + step).min(now + MAX_WAIT));
        Err((next - now).to_std().unwrap_or_default().min(MAX_WAIT))
    }

    /// How many calls to an endpoint one after the other are expected to end within so long, one at least; one alone while
    /// calls have to stay away.
    pub fn calls_within(&self, endpoint_id: Tsid, within: Duration, now: DateTime<Utc>) -> i64 {
        let Some(gate) = self.by_endpoint.get(&endpoint_id) else { return 1 };
        if gate.next.is_some_and(|next| next > now) {
            return 1;
        }
        let calls = within.as_millis() / gate.mean.as_millis().max(1);
        i64::try_from(calls).unwrap_or(i64::MAX).clamp(1, MAX_IN_A_ROW)
    }

    /// Out again, after so long. `answered`: the endpoint said something, be it no.
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
    fn a_tarpit_gets_ever_fewer_calls_and_a_fast_endpoint_more() {
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
    fn one_partners_endpoints_share_its_limit() {
        let (mut gates, now) = (EndpointConcurrency::default(), DateTime::UNIX_EPOCH);
        let all: usize = (0..40).map(|n| fill(&mut gates, Tsid(100 + n), now)).sum();
        assert_eq!(all, MAX_PER_PARTNER);
        assert!(gates.try_acquire(Tsid(9), Tsid(8), now).is_ok(), "another partner has its own");
    }

    #[test]
    fn calls_in_a_row_are_as_many_as_end_in_time() {
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
    fn who_is_sent_away_is_spread_over_the_time_it_takes() {
        let (mut gates, now) = (EndpointConcurrency::default(), DateTime::UNIX_EPOCH);
        fill(&mut gates, ENDPOINT, now);
        let waits: Vec<Duration> =
            (0..10_000).filter_map(|_| gates.try_acquire(ENDPOINT, PARTNER, now).err()).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1]), "in their order");
        assert!(waits[0] >= Duration::from_millis(100) && waits[99] > waits[0], "{:?}", &waits[..3]);
        assert!(waits.iter().all(|w| *w <= MAX_WAIT));
    }
}
