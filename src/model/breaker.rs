//! Circuit breakers. A failing provider is not called for a while, then probed with one call at a time, then called
//! with slowly rising concurrency. What one process sees opens the breaker for all. A recipient's fault never opens it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::delivery::Outcome;
use super::retry::{ErrorClass, HealthImpact};

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerState {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    /// The stable word in the database and the API: `CLOSED`, `OPEN` or `HALF_OPEN`.
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
        all.into_iter().find(|b| b.as_str() == text).ok_or_else(|| format!("'{text}' is not a breaker state"))
    }
}

/// The state of a provider that all processes share: whether an operator paused it, and its breaker. Stored in one row
/// and replaced by compare-and-set on `changed_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedProviderState {
    pub paused_at: Option<DateTime<Utc>>,
    pub paused_by: Option<String>,
    pub breaker: BreakerState,
    /// The error class, or the code of an unknown outcome, that opened the closed breaker. Results of later probes do
    /// not change it, so one outage gives one alert.
    pub reason: Option<String>,
    pub opened_at: Option<DateTime<Utc>>,
    /// Earliest time of the next probe.
    pub open_until: Option<DateTime<Utc>>,
    /// Openings since the last quiet time (`FORGET_OPENINGS_AFTER`).
    pub openings: i32,
    /// Successful probes since it became half-open.
    pub good_probes: i16,
    /// The running probe's answer is awaited until this time.
    pub probe_until: Option<DateTime<Utc>>,
    /// Version of this state: strictly increasing for each provider. A writer names the one it read.
    pub changed_at: DateTime<Utc>,
}

/// What an answer says about the provider's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider works, even if it rejected the message.
    Healthy,
    /// The provider fails; the reason is an error class or the code of an unknown outcome.
    Failing(&'static str),
    /// The provider refuses our account; the reason is an error class.
    Refusing(&'static str),
    /// The answer says nothing about the provider.
    NoEvidence,
}

/// Time open after the first opening …
const FIRST_OPEN: Duration = Duration::from_secs(5);
/// … or, if a person must correct the account, this long; doubled with each further opening …
const FIRST_OPEN_REFUSED: Duration = Duration::from_secs(30);
/// … up to this.
const MAX_OPEN: Duration = Duration::from_secs(300);
/// No real probe time is further ahead than this.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(15);
/// A breaker closed for this long forgets its earlier openings.
const FORGET_OPENINGS_AFTER: TimeDelta = TimeDelta::minutes(10);
/// Successful probes in a row that close the breaker.
pub const PROBES_TO_CLOSE: i16 = 3;
/// Concurrency at which the ramp after a recovery ends.
const RAMP_END: usize = 256;

/// Length of the window in seconds.
const WINDOW_SECONDS: i64 = 10;
/// This many failures in a row without a success in the window open the breaker …
const FAILURES_IN_A_ROW: u32 = 5;
/// … and so does a failure rate of one half among at least this many answers.
const MIN_SAMPLE: u32 = 20;

/// What the answer to one request says about the provider. `outcomes`: one for each message of the request; a single
/// success among them proves that the provider works.
pub fn verdict(outcomes: &[Outcome]) -> Verdict {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Accepted { .. } | Outcome::Arrived => Verdict::Healthy,
        // Throttling proves that the provider is up, not that it accepts messages.
        Outcome::Rejected { class: ErrorClass::Throttled, .. } => Verdict::NoEvidence,
        Outcome::Rejected { class, .. } => match class.rule().health_impact {
            HealthImpact::NoImpact => Verdict::Healthy,
            HealthImpact::CountsAsFailure => Verdict::Failing(class.as_str()),
            HealthImpact::OpensBreaker => Verdict::Refusing(class.as_str()),
        },
        Outcome::Unknown { code, .. } => match *code {
            "no_answer" | "answer_cut" | "answer_unreadable" | "http_5xx" => Verdict::Failing(code),
            // Our own failure, or one that concerns a single message.
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

    /// The state with the breaker opened. `refused`: the provider refuses our account, so it stays open longer.
    /// `jitter` in 0..1 spreads the openings of several providers or processes.
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

    /// When the next probe may be made; `None` if the breaker is closed.
    pub fn next_probe_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = match self.breaker {
            BreakerState::Closed => return None,
            BreakerState::Open => self.open_until.unwrap_or(self.changed_at),
            BreakerState::HalfOpen => self.probe_until.unwrap_or(DateTime::UNIX_EPOCH),
        };
        // A time this far ahead was written by a clock that was set back since.
        Some(if at > now + MAX_AHEAD { now } else { at })
    }

    /// The state with a probe begun, or `None` if no probe is due. The probe's answer is awaited for `lasting`; after
    /// that another probe may begin, so a lost one blocks nothing.
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

    /// The state after a probe's answer that does not open the breaker again. `good`: the provider works; false: the
    /// answer says nothing about it. A failed probe goes to `with_breaker_opened`.
    pub fn with_probe_answered(&self, good: bool, now: DateTime<Utc>) -> SharedProviderState {
        let probes = self.good_probes + i16::from(good);
        let changed_at = self.changed(now);
        if probes < PROBES_TO_CLOSE {
            return SharedProviderState { good_probes: probes, probe_until: None, changed_at, ..self.clone() };
        }
        let breaker = BreakerState::Closed;
        SharedProviderState { breaker, good_probes: 0, probe_until: None, open_until: None, changed_at, ..self.clone() }
    }

    /// The state with the provider paused by this operator, or resumed (`None`).
    pub fn with_pause(&self, by: Option<&str>, now: DateTime<Utc>) -> SharedProviderState {
        let (paused_at, paused_by) = (by.map(|_| now), by.map(str::to_owned));
        let mut state = SharedProviderState { paused_at, paused_by, changed_at: self.changed(now), ..self.clone() };
        // An operator who resumes a provider has corrected it: it is probed at once, and soon again.
        if by.is_none() && self.breaker == BreakerState::Open {
            (state.open_until, state.openings) = (Some(now), 1);
        }
        state
    }
}

/// The concurrency after a successful call to a recovering provider; `None` once the ramp has ended. Each call raises
/// it by one, so it doubles with every round of calls.
pub fn next_concurrency(at_once: usize) -> Option<usize> {
    (at_once < RAMP_END).then_some(at_once + 1)
}

/// The outcomes of a provider's calls in the last `WINDOW_SECONDS`, as one process saw them.
#[derive(Debug, Default)]
pub struct OutcomeWindow {
    /// (Second since 1970, successes, failures).
    seconds: Vec<(i64, u32, u32)>,
    in_a_row: u32,
}

impl OutcomeWindow {
    /// Adds the outcomes of one second. `second`: Unix seconds.
    pub fn record(&mut self, second: i64, good: u32, bad: u32) {
        self.seconds.retain(|s| s.0 > second - WINDOW_SECONDS);
        match self.seconds.iter_mut().find(|s| s.0 == second) {
            Some(s) => (s.1, s.2) = (s.1.saturating_add(good), s.2.saturating_add(bad)),
            None => self.seconds.push((second, good, bad)),
        }
        self.in_a_row = if good > 0 { bad } else { self.in_a_row.saturating_add(bad) };
    }

    /// Whether these outcomes open the breaker. For a recovering provider two failures in a row are enough.
    pub fn should_open(&self, second: i64, recovering: bool) -> bool {
        let late = self.seconds.iter().filter(|s| s.0 > second - WINDOW_SECONDS);
        let (good, bad) = late.fold((0u32, 0u32), |(good, bad), s| (good.saturating_add(s.1), bad.saturating_add(s.2)));
        let all = good.saturating_add(bad);
        (recovering && self.in_a_row >= 2)
            || (good == 0 && bad >= FAILURES_IN_A_ROW && self.in_a_row >= FAILURES_IN_A_ROW)
            || (all >= MIN_SAMPLE && bad >= all - bad)
    }

    /// Forgets all outcomes.
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
            "a lost probe does not delay the next one for ever"
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
    fn few_failures_and_recipient_faults_do_not_open_a_breaker() {
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
