//! Circuit breakers: a provider in trouble is left alone for a while, then asked by one probe at a time, then by few at once.
//! What one process sees opens it for all. A recipient's fault never does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::delivery::Outcome;
use super::retry::{ErrorClass, HealthImpact};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerState {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "CLOSED",
            BreakerState::Open => "OPEN",
            BreakerState::HalfOpen => "HALF_OPEN",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BreakerState {
    type Err = String;

    fn from_str(text: &str) -> Result<BreakerState, String> {
        let all = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
        all.into_iter().find(|b| b.as_str() == text).ok_or_else(|| format!("'{text}' is no state of a breaker"))
    }
}

/// What all processes know of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedProviderState {
    pub paused_at: Option<DateTime<Utc>>,
    pub paused_by: Option<String>,
    pub breaker: BreakerState,
    /// Why it opened, when it was closed last: a class of errors, or the code of an unknown outcome. What probes say since
    /// does not change it: one trouble is told once.
    pub reason: Option<String>,
    pub opened_at: Option<DateTime<Utc>>,
    /// When it may be probed.
    pub open_until: Option<DateTime<Utc>>,
    /// How often it opened since it was closed for good.
    pub openings: i32,
    /// Good probes since it is half-open.
    pub good_probes: i16,
    /// Until when the answer of the probe under way is waited for.
    pub probe_until: Option<DateTime<Utc>>,
    /// No two states of a provider have the same: who writes one says which it saw.
    pub changed_at: DateTime<Utc>,
}

/// What an answer says of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works, be it that it said no.
    Healthy,
    /// It is in trouble.
    Failing(&'static str),
    /// It will not serve us.
    Refusing(&'static str),
    NoEvidence,
}

/// Open for so long the first time …
const FIRST_OPEN: Duration = Duration::from_secs(5);
/// … or, where a person has to do something, for so long; twice as long each further time …
const FIRST_OPEN_REFUSED: Duration = Duration::from_secs(30);
/// … and no longer than this.
const MAX_OPEN: Duration = Duration::from_secs(300);
/// No probe is put off for longer, nor waited for.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(15);
/// Closed for so long, what was before is forgotten.
const FORGET_OPENINGS_AFTER: TimeDelta = TimeDelta::minutes(10);
/// So many good probes, one after the other, close it.
pub const PROBES_TO_CLOSE: i16 = 3;
/// Calls at once with which it is no longer told apart from one that never failed.
const RAMP_END: usize = 256;

/// Seconds that are looked at.
const WINDOW_SECONDS: i64 = 10;
/// So many in a row with nothing good open it, …
const FAILURES_IN_A_ROW: u32 = 5;
/// … and half of so many.
const MIN_SAMPLE: u32 = 20;

/// What one answer says, or the answers to what went out in one request: one good among them is enough.
pub fn verdict(outcomes: &[Outcome]) -> Verdict {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Accepted { .. } => Verdict::Healthy,
        // It says that it lives, but not that it takes anything.
        Outcome::Rejected { class: ErrorClass::Throttled, .. } => Verdict::NoEvidence,
        Outcome::Rejected { class, .. } => match class.rule().health_impact {
            HealthImpact::NoImpact => Verdict::Healthy,
            HealthImpact::CountsAsFailure => Verdict::Failing(class.as_str()),
            HealthImpact::OpensBreaker => Verdict::Refusing(class.as_str()),
        },
        Outcome::Unknown { code, .. } => match *code {
            "no_answer" | "answer_cut" | "answer_unreadable" | "http_5xx" => Verdict::Failing(code),
            // Ours, or of one message alone.
            _ => Verdict::NoEvidence,
        },
        Outcome::Released | Outcome::Postponed | Outcome::Deferred { .. } | Outcome::Expired | Outcome::Canceled => {
            Verdict::NoEvidence
        }
    };
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Healthy => 3,
        Verdict::Refusing(_) => 2,
        Verdict::Failing(_) => 1,
        Verdict::NoEvidence => 0,
    };
    outcomes.iter().map(of).max_by_key(rank).unwrap_or(Verdict::NoEvidence)
}

impl Default for SharedProviderState {
    fn default() -> SharedProviderState {
        SharedProviderState {
            paused_at: None,
            paused_by: None,
            breaker: BreakerState::Closed,
            reason: None,
            opened_at: None,
            open_until: None,
            openings: 0,
            good_probes: 0,
            probe_until: None,
            changed_at: DateTime::UNIX_EPOCH,
        }
    }
}

impl SharedProviderState {
    fn changed(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now.max(self.changed_at + TimeDelta::microseconds(1))
    }

    /// Opens it. `jitter` in 0..1, so that what failed together does not come back together.
    pub fn with_breaker_opened(
        &self,
        reason: &str,
        refused: bool,
        now: DateTime<Utc>,
        jitter: f64,
    ) -> SharedProviderState {
        let forgiven = self.breaker == BreakerState::Closed && now - self.changed_at >= FORGET_OPENINGS_AFTER;
        let openings = if forgiven { 1 } else { self.openings.saturating_add(1) };
        let first = if refused { FIRST_OPEN_REFUSED } else { FIRST_OPEN };
        let doubled = first.saturating_mul(1 << u32::try_from(openings - 1).unwrap_or(0).min(16)).min(MAX_OPEN);
        let lasting = doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        let since = if self.breaker == BreakerState::Closed { None } else { self.opened_at };
        SharedProviderState {
            breaker: BreakerState::Open,
            reason: self.reason.clone().filter(|_| self.breaker != BreakerState::Closed).or(Some(reason.to_owned())),
            opened_at: since.or(Some(now)),
            open_until: Some(now + lasting),
            openings,
            good_probes: 0,
            probe_until: None,
            changed_at: self.changed(now),
            ..self.clone()
        }
    }

    /// When a probe may be made; None: nothing has to be probed.
    pub fn next_probe_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = match self.breaker {
            BreakerState::Closed => return None,
            BreakerState::Open => self.open_until.unwrap_or(self.changed_at),
            BreakerState::HalfOpen => self.probe_until.unwrap_or(DateTime::UNIX_EPOCH),
        };
        // Nothing is ever so far ahead but what a clock wrote that was set back since.
        Some(if at > now + MAX_AHEAD { now } else { at })
    }

    /// With a probe under way, of which nobody waits for longer than `lasting`: what is lost holds up nobody for ever.
    pub fn with_probe_begun(&self, now: DateTime<Utc>, lasting: Duration) -> Option<SharedProviderState> {
        self.next_probe_at(now).filter(|at| *at <= now)?;
        let probe_until = Some(now + lasting);
        Some(SharedProviderState {
            breaker: BreakerState::HalfOpen,
            probe_until,
            changed_at: self.changed(now),
            ..self.clone()
        })
    }

    /// After a probe that was good, or said nothing.
    pub fn with_probe_answered(&self, good: bool, now: DateTime<Utc>) -> SharedProviderState {
        let probes = self.good_probes + i16::from(good);
        let changed_at = self.changed(now);
        if probes < PROBES_TO_CLOSE {
            return SharedProviderState { good_probes: probes, probe_until: None, changed_at, ..self.clone() };
        }
        let breaker = BreakerState::Closed;
        SharedProviderState { breaker, good_probes: 0, probe_until: None, open_until: None, changed_at, ..self.clone() }
    }

    pub fn with_pause(&self, by: Option<&str>, now: DateTime<Utc>) -> SharedProviderState {
        let (paused_at, paused_by) = (by.map(|_| now), by.map(str::to_owned));
        let mut state = SharedProviderState { paused_at, paused_by, changed_at: self.changed(now), ..self.clone() };
        // Who says that it may be asked again has seen to it: it is probed now, and soon again.
        if by.is_none() && self.breaker == BreakerState::Open {
            (state.open_until, state.openings) = (Some(now), 1);
        }
        state
    }
}

/// Calls at once while a provider recovers: one, and one more for each that was good, which is twice as many each time
/// round. None: it has recovered.
pub fn next_concurrency(at_once: usize) -> Option<usize> {
    (at_once < RAMP_END).then_some(at_once + 1)
}

/// What one process saw of a provider of late.
#[derive(Debug, Default)]
pub struct OutcomeWindow {
    /// Second, good, bad.
    seconds: Vec<(i64, u32, u32)>,
    in_a_row: u32,
}

impl OutcomeWindow {
    pub fn record(&mut self, second: i64, good: u32, bad: u32) {
        self.seconds.retain(|s| s.0 > second - WINDOW_SECONDS);
        match self.seconds.iter_mut().find(|s| s.0 == second) {
            Some(s) => (s.1, s.2) = (s.1.saturating_add(good), s.2.saturating_add(bad)),
            None => self.seconds.push((second, good, bad)),
        }
        self.in_a_row = if good > 0 { bad } else { self.in_a_row.saturating_add(bad) };
    }

    /// Whether that is enough. One that recovers has less credit.
    pub fn should_open(&self, second: i64, recovering: bool) -> bool {
        let late = self.seconds.iter().filter(|s| s.0 > second - WINDOW_SECONDS);
        let (good, bad) = late.fold((0u32, 0u32), |(good, bad), s| (good.saturating_add(s.1), bad.saturating_add(s.2)));
        let all = good.saturating_add(bad);
        (recovering && self.in_a_row >= 2)
            || (good == 0 && bad >= FAILURES_IN_A_ROW && self.in_a_row >= FAILURES_IN_A_ROW)
            || (all >= MIN_SAMPLE && bad >= all - bad)
    }

    pub fn clear(&mut self) {
        *self = OutcomeWindow::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn rejected(class: ErrorClass) -> Outcome {
        Outcome::Rejected { class, code: "x".into(), detail: "x".into(), retry_after: None }
    }

    /// S1-54: closed, open, half-open; longer each time; three good probes close it.
    #[test]
    fn a_breaker_opens_for_longer_each_time_and_closes_by_probes() {
        let opened = SharedProviderState::default().with_breaker_opened("provider_error", false, at(0), 1.0);
        assert_eq!((opened.breaker, opened.next_probe_at(at(0))), (BreakerState::Open, Some(at(5))));
        assert_eq!(opened.with_probe_begun(at(4), Duration::from_secs(20)), None);
        let probing = opened.with_probe_begun(at(5), Duration::from_secs(20)).unwrap();
        assert_eq!(probing.with_probe_begun(at(6), Duration::from_secs(20)), None, "one at a time");
        assert!(
            probing.with_probe_begun(at(25), Duration::from_secs(20)).is_some(),
            "one that was lost holds up nobody"
        );
        let again = probing.with_breaker_opened("provider_error", false, at(6), 1.0);
        assert_eq!((again.open_until, again.opened_at), (Some(at(16)), Some(at(0))));
        let other = probing.with_breaker_opened("credentials_refused", true, at(6), 1.0);
        assert_eq!(other.reason.as_deref(), Some("provider_error"), "one trouble, one reason");
        let long =
            (0..20).fold(again.clone(), |state, _| state.with_breaker_opened("provider_error", false, at(6), 1.0));
        assert_eq!(long.open_until, Some(at(306)));
        let mut state = again;
        for second in 16..19 {
            state = state
                .with_probe_begun(at(second), Duration::from_secs(20))
                .unwrap()
                .with_probe_answered(true, at(second));
        }
        assert_eq!((state.breaker, state.next_probe_at(at(18)), state.openings), (BreakerState::Closed, None, 2));
        assert_eq!(state.with_breaker_opened("x", false, at(20), 1.0).open_until, Some(at(40)), "not forgotten yet");
        assert_eq!(state.with_breaker_opened("x", false, at(700), 1.0).open_until, Some(at(705)));
        assert!(state.changed_at > at(18) - TimeDelta::seconds(1));
        let clock_set_back =
            SharedProviderState::default().with_breaker_opened("provider_error", false, at(7_200), 1.0);
        assert_eq!(clock_set_back.next_probe_at(at(0)), Some(at(0)), "not two hours from now");
    }

    #[test]
    fn few_failures_and_recipients_faults_open_nothing() {
        let mut window = OutcomeWindow::default();
        window.record(1, 0, 4);
        assert!(!window.should_open(1, false));
        window.record(2, 0, 1);
        assert!(window.should_open(2, false), "five in a row with nothing good");
        assert!(!window.should_open(11, false), "the first four are forgotten");
        window.record(3, 14, 0);
        assert!(!window.should_open(3, false));
        window.record(4, 0, 9);
        assert!(window.should_open(4, false), "half of many");
        let mut window = OutcomeWindow::default();
        window.record(1, 0, 2);
        assert!(window.should_open(1, true) && !window.should_open(1, false), "less credit while it recovers");
        assert_eq!(verdict(&[rejected(ErrorClass::Address)]), Verdict::Healthy);
        assert_eq!(verdict(&[rejected(ErrorClass::Throttled)]), Verdict::NoEvidence);
        assert_eq!(verdict(&[rejected(ErrorClass::Quota)]), Verdict::Refusing("quota_used_up"));
        let timed_out = Outcome::Unknown { code: "no_answer", detail: "x".into() };
        assert_eq!(verdict(std::slice::from_ref(&timed_out)), Verdict::Failing("no_answer"));
        assert_eq!(verdict(&[timed_out, Outcome::Accepted { provider_ref: None }]), Verdict::Healthy);
    }
}
