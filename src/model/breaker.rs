//! Circuit breakers: a provider in trouble is left alone for a while, then asked by one probe at a time, then by few at once.
//! What one process sees opens it for all. A recipient's fault never does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::delivery::Outcome;
use super::retry::{Blame, ErrorClass};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breaker {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl Breaker {
    pub fn as_str(self) -> &'static str {
        match self {
            Breaker::Closed => "CLOSED",
            Breaker::Open => "OPEN",
            Breaker::HalfOpen => "HALF_OPEN",
        }
    }
}

impl fmt::Display for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Breaker {
    type Err = String;

    fn from_str(text: &str) -> Result<Breaker, String> {
        let all = [Breaker::Closed, Breaker::Open, Breaker::HalfOpen];
        all.into_iter().find(|b| b.as_str() == text).ok_or_else(|| format!("'{text}' is no state of a breaker"))
    }
}

/// What all processes know of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub paused_at: Option<DateTime<Utc>>,
    pub paused_by: Option<String>,
    pub breaker: Breaker,
    /// Why it opened, when it was closed last: a class of errors, or the code of an unknown outcome. What probes say since
    /// does not change it: one trouble is told once.
    pub reason: Option<String>,
    pub opened_at: Option<DateTime<Utc>>,
    /// When it may be probed.
    pub open_until: Option<DateTime<Utc>>,
    /// How often it opened since it was closed for good.
    pub openings: i32,
    /// Good probes since it is half-open.
    pub probes: i16,
    /// Until when the answer of the probe under way is waited for.
    pub probe_until: Option<DateTime<Utc>>,
    /// No two states of a provider have the same: who writes one says which it saw.
    pub changed_at: DateTime<Utc>,
}

/// What an answer says of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works, be it that it said no.
    Good,
    /// It is in trouble.
    Bad(&'static str),
    /// It will not serve us.
    Refused(&'static str),
    Nothing,
}

/// Open for so long the first time …
const OPEN: Duration = Duration::from_secs(5);
/// … or, where a person has to do something, for so long; twice as long each further time …
const OPEN_REFUSED: Duration = Duration::from_secs(30);
/// … and no longer than this.
const OPEN_MOST: Duration = Duration::from_secs(300);
/// No probe is put off for longer, nor waited for.
const FAR: TimeDelta = TimeDelta::minutes(15);
/// Closed for so long, what was before is forgotten.
const FORGIVEN: TimeDelta = TimeDelta::minutes(10);
/// So many good probes, one after the other, close it.
pub const PROBES: i16 = 3;
/// Calls at once with which it is no longer told apart from one that never failed.
const RAMP_ENDS: usize = 256;

/// Seconds that are looked at.
const SECONDS: i64 = 10;
/// So many in a row with nothing good open it, …
const IN_A_ROW: u32 = 5;
/// … and half of so many.
const MANY: u32 = 20;

/// What one answer says, or the answers to what went out in one request: one good among them is enough.
pub fn verdict(outcomes: &[Outcome]) -> Verdict {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Accepted { .. } => Verdict::Good,
        // It says that it lives, but not that it takes anything.
        Outcome::Rejected { class: ErrorClass::Throttled, .. } => Verdict::Nothing,
        Outcome::Rejected { class, .. } => match class.row().blame {
            Blame::Recipient => Verdict::Good,
            Blame::Provider => Verdict::Bad(class.as_str()),
            Blame::Us => Verdict::Refused(class.as_str()),
        },
        Outcome::Unknown { code, .. } => match *code {
            "no_answer" | "answer_cut" | "answer_unreadable" | "http_5xx" => Verdict::Bad(code),
            // Ours, or of one message alone.
            _ => Verdict::Nothing,
        },
        Outcome::Released | Outcome::Postponed | Outcome::Deferred { .. } | Outcome::Expired | Outcome::Canceled => {
            Verdict::Nothing
        }
    };
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Good => 3,
        Verdict::Refused(_) => 2,
        Verdict::Bad(_) => 1,
        Verdict::Nothing => 0,
    };
    outcomes.iter().map(of).max_by_key(rank).unwrap_or(Verdict::Nothing)
}

impl Default for State {
    fn default() -> State {
        State {
            paused_at: None,
            paused_by: None,
            breaker: Breaker::Closed,
            reason: None,
            opened_at: None,
            open_until: None,
            openings: 0,
            probes: 0,
            probe_until: None,
            changed_at: DateTime::UNIX_EPOCH,
        }
    }
}

impl State {
    fn changed(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now.max(self.changed_at + TimeDelta::microseconds(1))
    }

    /// Opens it. `jitter` in 0..1, so that what failed together does not come back together.
    pub fn opened(&self, reason: &str, refused: bool, now: DateTime<Utc>, jitter: f64) -> State {
        let forgiven = self.breaker == Breaker::Closed && now - self.changed_at >= FORGIVEN;
        let openings = if forgiven { 1 } else { self.openings.saturating_add(1) };
        let first = if refused { OPEN_REFUSED } else { OPEN };
        let doubled = first.saturating_mul(1 << u32::try_from(openings - 1).unwrap_or(0).min(16)).min(OPEN_MOST);
        let lasting = doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        let since = if self.breaker == Breaker::Closed { None } else { self.opened_at };
        State {
            breaker: Breaker::Open,
            reason: self.reason.clone().filter(|_| self.breaker != Breaker::Closed).or(Some(reason.to_owned())),
            opened_at: since.or(Some(now)),
            open_until: Some(now + lasting),
            openings,
            probes: 0,
            probe_until: None,
            changed_at: self.changed(now),
            ..self.clone()
        }
    }

    /// When a probe may be made; None: nothing has to be probed.
    pub fn probe_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = match self.breaker {
            Breaker::Closed => return None,
            Breaker::Open => self.open_until.unwrap_or(self.changed_at),
            Breaker::HalfOpen => self.probe_until.unwrap_or(DateTime::UNIX_EPOCH),
        };
        // Nothing is ever so far ahead but what a clock wrote that was set back since.
        Some(if at > now + FAR { now } else { at })
    }

    /// With a probe under way, of which nobody waits for longer than `lasting`: what is lost holds up nobody for ever.
    pub fn probing(&self, now: DateTime<Utc>, lasting: Duration) -> Option<State> {
        self.probe_at(now).filter(|at| *at <= now)?;
        let probe_until = Some(now + lasting);
        Some(State { breaker: Breaker::HalfOpen, probe_until, changed_at: self.changed(now), ..self.clone() })
    }

    /// After a probe that was good, or said nothing.
    pub fn probed(&self, good: bool, now: DateTime<Utc>) -> State {
        let probes = self.probes + i16::from(good);
        let changed_at = self.changed(now);
        if probes < PROBES {
            return State { probes, probe_until: None, changed_at, ..self.clone() };
        }
        let breaker = Breaker::Closed;
        State { breaker, probes: 0, probe_until: None, open_until: None, changed_at, ..self.clone() }
    }

    pub fn paused(&self, by: Option<&str>, now: DateTime<Utc>) -> State {
        let (paused_at, paused_by) = (by.map(|_| now), by.map(str::to_owned));
        let mut state = State { paused_at, paused_by, changed_at: self.changed(now), ..self.clone() };
        // Who says that it may be asked again has seen to it: it is probed now, and soon again.
        if by.is_none() && self.breaker == Breaker::Open {
            (state.open_until, state.openings) = (Some(now), 1);
        }
        state
    }
}

/// Calls at once while a provider recovers: one, and one more for each that was good, which is twice as many each time
/// round. None: it has recovered.
pub fn ramped(at_once: usize) -> Option<usize> {
    (at_once < RAMP_ENDS).then_some(at_once + 1)
}

/// What one process saw of a provider of late.
#[derive(Debug, Default)]
pub struct Window {
    /// Second, good, bad.
    seconds: Vec<(i64, u32, u32)>,
    in_a_row: u32,
}

impl Window {
    pub fn add(&mut self, second: i64, good: u32, bad: u32) {
        self.seconds.retain(|s| s.0 > second - SECONDS);
        match self.seconds.iter_mut().find(|s| s.0 == second) {
            Some(s) => (s.1, s.2) = (s.1.saturating_add(good), s.2.saturating_add(bad)),
            None => self.seconds.push((second, good, bad)),
        }
        self.in_a_row = if good > 0 { bad } else { self.in_a_row.saturating_add(bad) };
    }

    /// Whether that is enough. One that recovers has less credit.
    pub fn opens(&self, second: i64, recovering: bool) -> bool {
        let late = self.seconds.iter().filter(|s| s.0 > second - SECONDS);
        let (good, bad) = late.fold((0u32, 0u32), |(good, bad), s| (good.saturating_add(s.1), bad.saturating_add(s.2)));
        let all = good.saturating_add(bad);
        (recovering && self.in_a_row >= 2)
            || (good == 0 && bad >= IN_A_ROW && self.in_a_row >= IN_A_ROW)
            || (all >= MANY && bad >= all - bad)
    }

    pub fn clear(&mut self) {
        *self = Window::default();
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
        let opened = State::default().opened("provider_error", false, at(0), 1.0);
        assert_eq!((opened.breaker, opened.probe_at(at(0))), (Breaker::Open, Some(at(5))));
        assert_eq!(opened.probing(at(4), Duration::from_secs(20)), None);
        let probing = opened.probing(at(5), Duration::from_secs(20)).unwrap();
        assert_eq!(probing.probing(at(6), Duration::from_secs(20)), None, "one at a time");
        assert!(probing.probing(at(25), Duration::from_secs(20)).is_some(), "one that was lost holds up nobody");
        let again = probing.opened("provider_error", false, at(6), 1.0);
        assert_eq!((again.open_until, again.opened_at), (Some(at(16)), Some(at(0))));
        let other = probing.opened("credentials_refused", true, at(6), 1.0);
        assert_eq!(other.reason.as_deref(), Some("provider_error"), "one trouble, one reason");
        let long = (0..20).fold(again.clone(), |state, _| state.opened("provider_error", false, at(6), 1.0));
        assert_eq!(long.open_until, Some(at(306)));
        let mut state = again;
        for second in 16..19 {
            state = state.probing(at(second), Duration::from_secs(20)).unwrap().probed(true, at(second));
        }
        assert_eq!((state.breaker, state.probe_at(at(18)), state.openings), (Breaker::Closed, None, 2));
        assert_eq!(state.opened("x", false, at(20), 1.0).open_until, Some(at(40)), "not forgotten yet");
        assert_eq!(state.opened("x", false, at(700), 1.0).open_until, Some(at(705)));
        assert!(state.changed_at > at(18) - TimeDelta::seconds(1));
        let clock_set_back = State::default().opened("provider_error", false, at(7_200), 1.0);
        assert_eq!(clock_set_back.probe_at(at(0)), Some(at(0)), "not two hours from now");
    }

    #[test]
    fn few_failures_and_recipients_faults_open_nothing() {
        let mut window = Window::default();
        window.add(1, 0, 4);
        assert!(!window.opens(1, false));
        window.add(2, 0, 1);
        assert!(window.opens(2, false), "five in a row with nothing good");
        assert!(!window.opens(11, false), "the first four are forgotten");
        window.add(3, 14, 0);
        assert!(!window.opens(3, false));
        window.add(4, 0, 9);
        assert!(window.opens(4, false), "half of many");
        let mut window = Window::default();
        window.add(1, 0, 2);
        assert!(window.opens(1, true) && !window.opens(1, false), "less credit while it recovers");
        assert_eq!(verdict(&[rejected(ErrorClass::Address)]), Verdict::Good);
        assert_eq!(verdict(&[rejected(ErrorClass::Throttled)]), Verdict::Nothing);
        assert_eq!(verdict(&[rejected(ErrorClass::Quota)]), Verdict::Refused("quota_used_up"));
        let timed_out = Outcome::Unknown { code: "no_answer", detail: "x".into() };
        assert_eq!(verdict(std::slice::from_ref(&timed_out)), Verdict::Bad("no_answer"));
        assert_eq!(verdict(&[timed_out, Outcome::Accepted { provider_ref: None }]), Verdict::Good);
    }
}
