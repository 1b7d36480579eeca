//! What a provider's no means: one table from the class of an error to what is done about it (seed 001's error
//! handling and the vendors' codes come down to these classes).

use std::time::Duration;

/// Why a provider did not take a message. Definite: it was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Not reached at all: DNS, connection refused, TLS, before a byte of the request could be acted on.
    Unreachable,
    /// Too fast; it may have said when to come back.
    Throttled,
    /// The provider's own trouble (5xx with an answer that says so).
    ProviderInternal,
    /// It does not know us, or no longer.
    Credentials,
    /// Our balance or quota there is used up.
    Quota,
    /// The sender, profile or hook we send from is not usable.
    Sender,
    /// The content is not acceptable.
    Content,
    /// There is no such recipient.
    Address,
    /// The recipient does not want it.
    OptedOut,
    /// No provider serves this channel here.
    NoProvider,
    /// A partner's endpoint answered, but not with a success.
    EndpointRefused,
    /// It says that it is there no more.
    EndpointGone,
    /// Its URL leads to an address that may not be called. It may lead elsewhere by and by.
    EndpointForbidden,
    /// It was disabled: nothing is sent there.
    EndpointDisabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Again after an exponential, jittered pause.
    Retry,
    /// Again when the provider said, within bounds; without a word from it like `Retry`.
    RetryAfter,
    /// Never: the same request would get the same answer.
    Permanent,
}

/// (class, stable word told to callers, action)
pub const TABLE: [(ErrorClass, &str, Action); 14] = [
    (ErrorClass::Unreachable, "unreachable", Action::Retry),
    (ErrorClass::Throttled, "throttled", Action::RetryAfter),
    (ErrorClass::ProviderInternal, "provider_error", Action::Retry),
    (ErrorClass::Credentials, "credentials_refused", Action::Permanent),
    (ErrorClass::Quota, "quota_used_up", Action::Permanent),
    (ErrorClass::Sender, "sender_not_usable", Action::Permanent),
    (ErrorClass::Content, "content_refused", Action::Permanent),
    (ErrorClass::Address, "no_such_recipient", Action::Permanent),
    (ErrorClass::OptedOut, "recipient_opted_out", Action::Permanent),
    (ErrorClass::NoProvider, "no_provider", Action::Retry),
    (ErrorClass::EndpointRefused, "endpoint_refused", Action::RetryAfter),
    (ErrorClass::EndpointGone, "endpoint_gone", Action::Permanent),
    (ErrorClass::EndpointForbidden, "endpoint_not_allowed", Action::Retry),
    (ErrorClass::EndpointDisabled, "endpoint_disabled", Action::Permanent),
];

impl ErrorClass {
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    pub fn action(self) -> Action {
        self.row().2
    }

    fn row(self) -> (ErrorClass, &'static str, Action) {
        // The test below holds that every class has its row.
        TABLE.into_iter().find(|row| row.0 == self).unwrap_or(TABLE[0])
    }
}

/// Pauses between the attempts of a webhook: three days in all, so that a weekend's outage loses nothing.
pub const WEBHOOK_SCHEDULE: [Duration; 9] = {
    const fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }
    [
        Duration::from_secs(5),
        minutes(5),
        minutes(30),
        minutes(2 * 60),
        minutes(5 * 60),
        minutes(10 * 60),
        minutes(14 * 60),
        minutes(20 * 60),
        minutes(24 * 60),
    ]
};
pub const WEBHOOK_ATTEMPTS: i16 = WEBHOOK_SCHEDULE.len() as i16 + 1;

/// How often and how fast (S1-36..38).
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub max_attempts: i16,
    /// The pause after each failed attempt, instead of an exponential one.
    pub schedule: Option<&'static [Duration]>,
    /// Pause before the second attempt; each further one is `multiplier` times longer.
    pub backoff: Duration,
    pub multiplier: f64,
    /// No pause is longer than this, whatever the exponent or the provider says.
    pub ceiling: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 3,
            schedule: None,
            backoff: Duration::from_millis(1000),
            multiplier: 2.0,
            ceiling: Duration::from_secs(3600),
        }
    }
}

impl RetryPolicy {
    /// How webhooks are tried again.
    pub fn webhook() -> RetryPolicy {
        RetryPolicy {
            max_attempts: WEBHOOK_ATTEMPTS,
            schedule: Some(&WEBHOOK_SCHEDULE),
            ceiling: Duration::from_secs(24 * 3600),
            ..RetryPolicy::default()
        }
    }

    /// The pause after failure number `failures` (1..). A scheduled one is never shorter than the schedule says, and up to a
    /// tenth longer.
    pub fn pause(&self, failures: i16, jitter: f64) -> Duration {
        let Some(schedule) = self.schedule else { return self.backoff(failures, jitter) };
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(0).min(schedule.len().saturating_sub(1));
        let pause = schedule.get(index).copied().unwrap_or(self.ceiling);
        pause.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))
    }

    /// `jitter` in 0..1 spreads it over the upper half of the exponential pause, so that what failed together does not come
    /// back together, and never at once.
    pub fn backoff(&self, attempt: i16, jitter: f64) -> Duration {
        let exponent = i32::from(attempt.max(1)) - 1;
        let full = self.backoff.as_secs_f64() * self.multiplier.powi(exponent);
        let spread = full * (0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        Duration::try_from_secs_f64(spread).unwrap_or(self.ceiling).min(self.ceiling)
    }

    /// The pause after failure number `failures`, of which it was said how long. Where there is a schedule no word makes it
    /// shorter: its attempts are to last for days, not for as many seconds.
    pub fn pause_said(&self, said: Duration, failures: i16, jitter: f64) -> Duration {
        let after = self.pause_after(said, jitter);
        if self.schedule.is_some() { after.max(self.pause(failures, jitter)) } else { after }
    }

    /// The provider's own word, kept within a second and the ceiling, plus up to a tenth so that not all return at once.
    pub fn pause_after(&self, said: Duration, jitter: f64) -> Duration {
        let bounded = said.clamp(Duration::from_secs(1), self.ceiling);
        bounded.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_row() {
        use ErrorClass::*;
        for class in [
            Unreachable,
            Throttled,
            ProviderInternal,
            Credentials,
            Quota,
            Sender,
            Content,
            Address,
            OptedOut,
            NoProvider,
            EndpointRefused,
            EndpointGone,
            EndpointForbidden,
            EndpointDisabled,
        ] {
            assert_eq!(TABLE.iter().filter(|row| row.0 == class).count(), 1, "{class:?}");
        }
    }

    /// S1-36, S1-37, S1-38: three attempts, one second, doubled.
    #[test]
    fn pauses_double_from_one_second() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.max_attempts, 3);
        let longest: Vec<_> = (1..=3).map(|n| policy.pause(n, 1.0).as_millis()).collect();
        assert_eq!(longest, [1000, 2000, 4000]);
        let shortest: Vec<_> = (1..=3).map(|n| policy.pause(n, 0.0).as_millis()).collect();
        assert_eq!(shortest, [500, 1000, 2000]);
        assert_eq!(policy.pause(i16::MAX, 1.0), policy.ceiling, "an exponent beyond all numbers is the ceiling");
    }

    /// The schedule of webhooks, never early and at most a tenth late.
    #[test]
    fn webhooks_pause_as_the_schedule_says() {
        let policy = RetryPolicy::webhook();
        let seconds = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
        for (n, pause) in (1..).zip(seconds) {
            assert_eq!(policy.pause(n, 0.0).as_secs(), pause);
            assert_eq!(policy.pause(n, 1.0).as_millis(), u128::from(pause) * 1100);
        }
        assert_eq!(policy.max_attempts, 10);
        assert_eq!(policy.pause(i16::MIN, 0.0).as_secs(), 5);
        assert_eq!(policy.pause(i16::MAX, 0.0).as_secs(), 86_400);
        let said = |seconds, failures| policy.pause_said(Duration::from_secs(seconds), failures, 0.0).as_secs();
        assert_eq!(
            [said(1, 3), said(7_200, 3), said(999_999, 1)],
            [1800, 7_200, 86_400],
            "longer is heard, shorter not"
        );
    }

    #[test]
    fn a_provider_that_names_an_absurd_time_is_bounded() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause_after(Duration::from_secs(315_360_000), 0.0), policy.ceiling);
        assert_eq!(policy.pause_after(Duration::ZERO, 0.0), Duration::from_secs(1));
        assert_eq!(policy.pause_after(Duration::from_secs(7), 0.0), Duration::from_secs(7));
    }
}
