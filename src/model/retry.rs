//! Retry rules: one table from the class of a provider's error to what happens next, and the pauses between attempts.
//! Seed 001's error handling and the vendors' codes are mapped to these classes.

use std::time::Duration;

/// Why a provider rejected a message. Every class means that the message was certainly not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The provider was not reached: DNS, connection refused or TLS failed before it could act on a byte of the
    /// request.
    Unreachable,
    /// Rate-limited by the provider, which may have named a time to come back.
    Throttled,
    /// The provider failed: a 5xx answer that says the message was not accepted.
    ProviderInternal,
    /// Our credentials are not accepted.
    Credentials,
    /// Our balance or quota at the provider is used up.
    Quota,
    /// The sender, profile or hook that we send from is not usable.
    Sender,
    /// The approved template is missing or stopped, or differs from the body.
    Template,
    /// The provider does not accept the content.
    Content,
    /// The recipient does not exist.
    Address,
    /// The recipient opted out.
    OptedOut,
    /// The recipient exists and cannot be reached over this channel.
    NotReachable,
    /// The recipient's device did not receive it in time.
    HandsetUnreachable,
    /// Such messages are not accepted at this hour.
    OutsideHours,
    /// Rejected as spam.
    Spam,
    /// Temporarily rejected by the recipient's side: the mailbox is full, or the server greylists new senders. No fault
    /// of the provider, so it does not count for the breaker; retried on the channel's own schedule.
    RecipientBusy,
    /// The provider rejected a batch without naming the message at fault.
    RefusedInBatch,
    /// No provider is configured for this channel.
    NoProvider,
    /// A partner's endpoint answered with another status than 2xx.
    EndpointRefused,
    /// The endpoint answered 410 Gone.
    EndpointGone,
    /// The endpoint's host resolves to an address that may not be called. DNS may change, so it is retried.
    EndpointForbidden,
    /// The endpoint is disabled; nothing is sent to it.
    EndpointDisabled,
}

/// What happens to a delivery after a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAction {
    /// Retry after the policy's pause.
    Retry,
    /// Retry after the pause that the provider asked for, within bounds; like `Retry` if it named none.
    RetryAfter,
    /// Retry later without counting the attempt: the provider accepted nothing because of its rate limit. Applies while
    /// the policy's `throttle_patience` lasts and the delivery has no fallback; then like `RetryAfter`.
    RetryUncounted,
    /// End FAILED: the same request would get the same answer.
    Permanent,
    /// Wait without counting the attempt, and open the breaker: every message would get this answer until a person
    /// corrects the account.
    BlockProvider,
}

/// What an error class says about the provider's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthImpact {
    /// The provider works: the cause is the recipient, the message or our own rate.
    NoImpact,
    /// The provider is failing: several of these open its breaker.
    CountsAsFailure,
    /// The provider refuses our account: a single one opens its breaker.
    OpensBreaker,
}

/// A row of `RETRY_RULES`: an error class and what follows from it.
#[derive(Debug, Clone, Copy)]
pub struct RetryRule {
    pub class: ErrorClass,
    /// The stable word in the API, one of `DELIVERY_REASONS`.
    pub reason: &'static str,
    pub action: RetryAction,
    /// Whether a fallback, if the message has one, is sent after this error.
    pub falls_back: bool,
    pub health_impact: HealthImpact,
}

const fn row(
    class: ErrorClass,
    word: &'static str,
    action: RetryAction,
    falls_back: bool,
    blame: HealthImpact,
) -> RetryRule {
    RetryRule { class, reason: word, action, falls_back, health_impact: blame }
}

/// The rule of every error class.
pub const RETRY_RULES: [RetryRule; 21] = {
    use HealthImpact::{CountsAsFailure, NoImpact, OpensBreaker};
    use RetryAction::{BlockProvider, Permanent, Retry, RetryAfter, RetryUncounted};
    [
        row(ErrorClass::Unreachable, "unreachable", Retry, true, CountsAsFailure),
        // It limits us; it is not down.
        row(ErrorClass::Throttled, "throttled", RetryUncounted, true, NoImpact),
        row(ErrorClass::ProviderInternal, "provider_error", RetryAfter, true, CountsAsFailure),
        row(ErrorClass::Credentials, "credentials_refused", BlockProvider, true, OpensBreaker),
        row(ErrorClass::Quota, "quota_used_up", BlockProvider, true, OpensBreaker),
        row(ErrorClass::Sender, "sender_not_usable", Permanent, true, NoImpact),
        row(ErrorClass::Template, "template_not_usable", Permanent, true, NoImpact),
        row(ErrorClass::Content, "content_refused", Permanent, false, NoImpact),
        row(ErrorClass::Address, "no_such_recipient", Permanent, true, NoImpact),
        // A recipient who opted out is not contacted over another channel.
        row(ErrorClass::OptedOut, "recipient_opted_out", Permanent, false, NoImpact),
        row(ErrorClass::NotReachable, "recipient_not_reachable", Permanent, true, NoImpact),
        row(ErrorClass::HandsetUnreachable, "handset_not_reached", Permanent, true, NoImpact),
        row(ErrorClass::OutsideHours, "not_at_this_hour", RetryAfter, false, NoImpact),
        row(ErrorClass::Spam, "taken_for_spam", Permanent, false, NoImpact),
        row(ErrorClass::RecipientBusy, "recipient_not_ready", Retry, true, NoImpact),
        // The retry is sent alone, so the provider's answer is about this message.
        row(ErrorClass::RefusedInBatch, "refused_with_others", Retry, true, NoImpact),
        row(ErrorClass::NoProvider, "no_provider", Retry, true, NoImpact),
        row(ErrorClass::EndpointRefused, "endpoint_refused", RetryAfter, false, NoImpact),
        row(ErrorClass::EndpointGone, "endpoint_gone", Permanent, false, NoImpact),
        row(ErrorClass::EndpointForbidden, "endpoint_not_allowed", Retry, false, NoImpact),
        row(ErrorClass::EndpointDisabled, "endpoint_disabled", Permanent, false, NoImpact),
    ]
};

/// How unknown outcomes and failed connections of a provider are retried (checklist C2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// A paid provider, or one whose messages people read: only what was certainly not accepted is retried.
    Gateway,
    /// An internal service, where a second copy does less harm than none: unknown outcomes are retried, and a failed
    /// connection is retried after five seconds.
    Internal,
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        match text {
            "gateway" => Ok(Profile::Gateway),
            "internal" => Ok(Profile::Internal),
            other => Err(format!("'{other}' is neither gateway nor internal")),
        }
    }
}

/// Pause after a failed connection with the profile `internal` (S1-46).
pub const RECONNECT_AFTER: Duration = Duration::from_secs(5);

impl ErrorClass {
    /// The stable word of the class, one of `DELIVERY_REASONS`.
    pub fn as_str(self) -> &'static str {
        self.rule().reason
    }

    /// What happens to the delivery.
    pub fn action(self) -> RetryAction {
        self.rule().action
    }

    /// The row of `RETRY_RULES` for this class.
    pub fn rule(self) -> RetryRule {
        // A test checks that every class has a row.
        RETRY_RULES.into_iter().find(|row| row.class == self).unwrap_or(RETRY_RULES[0])
    }
}

/// Pauses between the attempts of a webhook: three days in all, so that an outage over a weekend loses nothing.
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
/// Attempts of a webhook: one more than the schedule has pauses.
pub const WEBHOOK_ATTEMPTS: i16 = WEBHOOK_SCHEDULE.len() as i16 + 1;

/// Pauses between the attempts of an e-mail: a few short ones for failed connections and servers that greylist for
/// minutes, then at least half an hour each, more than four days in all (RFC 5321 4.5.4.1).
pub const EMAIL_SCHEDULE: [Duration; 12] = {
    const fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }
    [
        Duration::from_secs(5),
        minutes(1),
        minutes(5),
        minutes(30),
        minutes(60),
        minutes(2 * 60),
        minutes(4 * 60),
        minutes(8 * 60),
        minutes(12 * 60),
        minutes(24 * 60),
        minutes(24 * 60),
        minutes(24 * 60),
    ]
};
/// Attempts of unknown outcome that one delivery may have on a long schedule. The schedule is for definite rejections;
/// it must not fill a mailbox with copies.
pub const MAX_UNKNOWN_COPIES: i16 = 3;

/// The random spread after throttling grows to at most this.
const MAX_THROTTLED_SPREAD: Duration = Duration::from_secs(15 * 60);

/// How often and how fast a delivery is tried again (S1-36..38).
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy<'a> {
    /// Attempts of a new delivery.
    pub max_attempts: i16,
    /// The pause after each failed attempt, in order, instead of an exponential one.
    pub schedule: Option<&'a [Duration]>,
    /// Once a provider may have accepted it, an attempt of unknown outcome is retried only while fewer attempts than
    /// this failed.
    pub max_copies: i16,
    /// Time from now during which throttled attempts are not counted.
    pub throttle_patience: Duration,
    /// Longest pause before the second attempt; each further one is `multiplier` times longer.
    pub base_backoff: Duration,
    pub multiplier: f64,
    /// Upper bound of every pause, the provider's request included.
    pub max_pause: Duration,
    /// Pause after a failed connection, instead of the usual one.
    pub reconnect_pause: Option<Duration>,
}

impl Default for RetryPolicy<'_> {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 3,
            schedule: None,
            max_copies: i16::MAX,
            throttle_patience: Duration::from_secs(24 * 3600),
            base_backoff: Duration::from_millis(1000),
            multiplier: 2.0,
            max_pause: Duration::from_secs(3600),
            reconnect_pause: None,
        }
    }
}

impl<'a> RetryPolicy<'a> {
    /// This policy with the profile's pause after a failed connection.
    pub fn with_profile(self, profile: Option<Profile>) -> RetryPolicy<'a> {
        RetryPolicy { reconnect_pause: profile.filter(|p| *p == Profile::Internal).map(|_| RECONNECT_AFTER), ..self }
    }

    /// The pause after failure number `failures` (from 1) of this class. `jitter` in 0..1.
    pub fn pause_for_class(&self, class: ErrorClass, failures: i16, jitter: f64) -> Duration {
        match self.reconnect_pause {
            Some(after) if class == ErrorClass::Unreachable => after.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0)),
            _ => self.pause_after_failure(failures, jitter),
        }
    }

    /// The retry policy of webhooks.
    pub fn webhook() -> RetryPolicy<'a> {
        RetryPolicy {
            max_attempts: WEBHOOK_ATTEMPTS,
            schedule: Some(&WEBHOOK_SCHEDULE),
            max_pause: Duration::from_secs(24 * 3600),
            // Throttling by a partner's endpoint counts as an attempt, like its other refusals: the schedule is long
            // enough.
            throttle_patience: Duration::ZERO,
            ..RetryPolicy::default()
        }
    }

    /// This policy with the pauses of `schedule` and one attempt more than it has pauses.
    pub fn with_schedule(self, schedule: &'a [Duration]) -> RetryPolicy<'a> {
        RetryPolicy {
            max_attempts: i16::try_from(schedule.len() + 1).unwrap_or(i16::MAX),
            max_pause: schedule.iter().copied().max().unwrap_or_default().max(self.max_pause),
            schedule: Some(schedule),
            ..self
        }
    }

    /// This policy with `throttle_patience` reduced by the time already waited.
    pub fn after_waiting(self, waited: Duration) -> RetryPolicy<'a> {
        RetryPolicy { throttle_patience: self.throttle_patience.saturating_sub(waited), ..self }
    }

    /// The pause after throttling at attempt number `claims` (from 1): `said`, the provider's own pause, or else the
    /// base backoff, plus a random part of a spread that doubles with each claim up to 15 minutes. Deliveries that were
    /// throttled together come back one by one. `jitter` in 0..1.
    pub fn throttled_pause(&self, said: Option<Duration>, claims: i16, jitter: f64) -> Duration {
        let least = said.unwrap_or(self.base_backoff).min(self.max_pause).max(Duration::from_secs(1));
        let doubled = least.saturating_mul(1 << u32::try_from(claims.max(1) - 1).unwrap_or(0).min(16));
        least + doubled.min(MAX_THROTTLED_SPREAD).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// The pause after failure number `failures` (from 1). With a schedule: at least the scheduled pause and at most a
    /// tenth more. `jitter` in 0..1.
    pub fn pause_after_failure(&self, failures: i16, jitter: f64) -> Duration {
        let Some(schedule) = self.schedule else { return self.exponential_pause(failures, jitter) };
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(0).min(schedule.len().saturating_sub(1));
        let pause = schedule.get(index).copied().unwrap_or(self.max_pause);
        pause.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))
    }

    /// A random part of the exponential pause before attempt `attempt` + 1, at most `max_pause`. `jitter` in 0..1
    /// spreads deliveries that failed together evenly over the whole pause.
    pub fn exponential_pause(&self, attempt: i16, jitter: f64) -> Duration {
        let exponent = i32::from(attempt.max(1)) - 1;
        let full = self.base_backoff.as_secs_f64() * self.multiplier.powi(exponent);
        let spread = full * jitter.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(spread).unwrap_or(self.max_pause).min(self.max_pause)
    }

    /// The pause after failure number `failures` (from 1) for which the provider asked for the pause `said`. With a
    /// schedule the provider's request cannot make it shorter: the attempts are meant to last for days.
    pub fn requested_pause(&self, said: Duration, failures: i16, jitter: f64) -> Duration {
        let after = self.bounded_pause(said, jitter);
        if self.schedule.is_some() { after.max(self.pause_after_failure(failures, jitter)) } else { after }
    }

    /// The pause `said` by a provider, bounded to 1 second..`max_pause`, plus up to a tenth, so that deliveries do not
    /// return at the same instant.
    pub fn bounded_pause(&self, said: Duration, jitter: f64) -> Duration {
        let bounded = said.min(self.max_pause).max(Duration::from_secs(1));
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
            Template,
            NotReachable,
            HandsetUnreachable,
            OutsideHours,
            Spam,
            RecipientBusy,
            RefusedInBatch,
            NoProvider,
            EndpointRefused,
            EndpointGone,
            EndpointForbidden,
            EndpointDisabled,
        ] {
            assert_eq!(RETRY_RULES.iter().filter(|row| row.class == class).count(), 1, "{class:?}");
        }
    }

    /// S1-36, S1-37, S1-38: three attempts, one second, doubled.
    #[test]
    fn pauses_double_from_one_second() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.max_attempts, 3);
        let longest: Vec<_> = (1..=3).map(|n| policy.pause_after_failure(n, 1.0).as_millis()).collect();
        assert_eq!(longest, [1000, 2000, 4000]);
        let shortest: Vec<_> = (1..=3).map(|n| policy.pause_after_failure(n, 0.0).as_millis()).collect();
        assert_eq!(shortest, [0, 0, 0], "full jitter");
        assert_eq!(
            policy.pause_after_failure(i16::MAX, 1.0),
            policy.max_pause,
            "an exponent beyond all numbers is the ceiling"
        );
    }

    /// The schedule of webhooks, never early and at most a tenth late.
    #[test]
    fn webhook_pauses_follow_the_schedule() {
        let policy = RetryPolicy::webhook();
        let seconds = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
        for (n, pause) in (1..).zip(seconds) {
            assert_eq!(policy.pause_after_failure(n, 0.0).as_secs(), pause);
            assert_eq!(policy.pause_after_failure(n, 1.0).as_millis(), u128::from(pause) * 1100);
        }
        assert_eq!(policy.max_attempts, 10);
        assert_eq!(policy.pause_after_failure(i16::MIN, 0.0).as_secs(), 5);
        assert_eq!(policy.pause_after_failure(i16::MAX, 0.0).as_secs(), 86_400);
        let said = |seconds, failures| policy.requested_pause(Duration::from_secs(seconds), failures, 0.0).as_secs();
        assert_eq!(
            [said(1, 3), said(7_200, 3), said(999_999, 1)],
            [1800, 7_200, 86_400],
            "longer is heard, shorter not"
        );
    }

    /// Fault E3, RFC 5321 4.5.4.1: mail is tried for more than four days, from the fourth pause on at least half an
    /// hour apart.
    #[test]
    fn email_schedule_lasts_for_days() {
        let policy = RetryPolicy::default().with_schedule(&EMAIL_SCHEDULE);
        let pauses: Vec<u64> = (1..policy.max_attempts).map(|n| policy.pause_after_failure(n, 0.0).as_secs()).collect();
        assert_eq!(pauses.len(), 12);
        assert!(pauses.windows(2).all(|two| two[0] <= two[1]), "{pauses:?}");
        assert!(pauses[3..].iter().all(|pause| *pause >= 30 * 60), "{pauses:?}");
        assert!(pauses.iter().sum::<u64>() >= 4 * 24 * 3600, "{pauses:?}");
    }

    /// Fault E1: never before the time that the provider named, and further apart each time, so that waiting deliveries
    /// do not come back together.
    #[test]
    fn throttled_pauses_are_spread() {
        let policy = RetryPolicy::default();
        let between = |said: Option<u64>, claims| {
            let said = said.map(Duration::from_secs);
            [0.0, 1.0].map(|jitter| policy.throttled_pause(said, claims, jitter).as_secs())
        };
        assert_eq!(between(Some(30), 1), [30, 60]);
        assert_eq!(between(Some(30), 3), [30, 150]);
        assert_eq!(between(Some(30), i16::MAX), [30, 930]);
        assert_eq!(between(None, 1), [1, 2]);
        assert_eq!(between(Some(0), 1), [1, 2]);
        assert_eq!(between(Some(315_360_000), 1), [3600, 4500], "an absurd time is bounded");
        let left = |hours: u64| policy.after_waiting(Duration::from_secs(hours * 3600)).throttle_patience.is_zero();
        assert!(!left(23) && left(24) && left(1_000));
    }

    /// S1-46, C2: an internal service is tried again five seconds after each failed connection; the pauses of a
    /// gateway grow. Everything else is alike.
    #[test]
    fn internal_profile_reconnects_after_five_seconds() {
        let (gateway, internal) = (Profile::Gateway, Profile::Internal);
        let pause = |profile, class, n| {
            RetryPolicy::default().with_profile(Some(profile)).pause_for_class(class, n, 1.0).as_millis()
        };
        let made = |profile| [1, 2, 3].map(|n| pause(profile, ErrorClass::Unreachable, n));
        assert_eq!((made(internal), made(gateway)), ([5500; 3], [1000, 2000, 4000]));
        assert_eq!(pause(internal, ErrorClass::ProviderInternal, 2), pause(gateway, ErrorClass::ProviderInternal, 2));
    }

    #[test]
    fn requested_pause_is_bounded() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.bounded_pause(Duration::from_secs(315_360_000), 0.0), policy.max_pause);
        assert_eq!(policy.bounded_pause(Duration::ZERO, 0.0), Duration::from_secs(1));
        assert_eq!(policy.bounded_pause(Duration::from_secs(7), 0.0), Duration::from_secs(7));
    }
}
