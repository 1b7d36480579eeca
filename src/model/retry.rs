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
    /// The approved template is missing, stopped, or says something else.
    Template,
    /// The content is not acceptable.
    Content,
    /// There is no such recipient.
    Address,
    /// The recipient does not want it.
    OptedOut,
    /// There is such a person, but not on this channel.
    NotReachable,
    /// The recipient's device did not take it in time.
    HandsetUnreachable,
    /// Not at this hour.
    OutsideHours,
    /// Taken for spam.
    Spam,
    /// The recipient's side takes nothing for now: its mailbox is full, or its server greylists who is new to it. Says nothing
    /// of the provider, so it opens no breaker; waits by the channel's own schedule.
    RecipientBusy,
    /// Something in the same request was refused, and nobody said what.
    RefusedInBatch,
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
pub enum RetryAction {
    /// Again after an exponential, jittered pause.
    Retry,
    /// Again when the provider said, within bounds; without a word from it like `Retry`.
    RetryAfter,
    /// Again later, and the attempt is not used: the provider says that it took nothing because it was asked too fast. For
    /// as long as the policy has patience, and no other channel stands by; then like `RetryAfter`.
    RetryUncounted,
    /// Never: the same request would get the same answer.
    Permanent,
    /// Whoever is asked next would get the same answer until a person does something: the message waits, its attempt is not
    /// used, and nobody else is sent there.
    BlockProvider,
}

/// What an answer says of the provider itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthImpact {
    /// Nothing: it is the recipient's or the message's own fault, and it was found.
    NoImpact,
    /// It is in trouble: many of these open its breaker.
    CountsAsFailure,
    /// It will not serve us: one of these opens it.
    OpensBreaker,
}

/// One class of errors and all that follows from it.
#[derive(Debug, Clone, Copy)]
pub struct RetryRule {
    pub class: ErrorClass,
    /// Told to callers.
    pub reason: &'static str,
    pub action: RetryAction,
    /// Another channel may succeed, where the message names one.
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

pub const RETRY_RULES: [RetryRule; 21] = {
    use HealthImpact::{CountsAsFailure, NoImpact, OpensBreaker};
    use RetryAction::{BlockProvider, Permanent, Retry, RetryAfter, RetryUncounted};
    [
        row(ErrorClass::Unreachable, "unreachable", Retry, true, CountsAsFailure),
        // Not its fault, but ours: it limits us, it is not down.
        row(ErrorClass::Throttled, "throttled", RetryUncounted, true, NoImpact),
        row(ErrorClass::ProviderInternal, "provider_error", RetryAfter, true, CountsAsFailure),
        row(ErrorClass::Credentials, "credentials_refused", BlockProvider, true, OpensBreaker),
        row(ErrorClass::Quota, "quota_used_up", BlockProvider, true, OpensBreaker),
        row(ErrorClass::Sender, "sender_not_usable", Permanent, true, NoImpact),
        row(ErrorClass::Template, "template_not_usable", Permanent, true, NoImpact),
        row(ErrorClass::Content, "content_refused", Permanent, false, NoImpact),
        row(ErrorClass::Address, "no_such_recipient", Permanent, true, NoImpact),
        // Who said no is not asked by another way.
        row(ErrorClass::OptedOut, "recipient_opted_out", Permanent, false, NoImpact),
        row(ErrorClass::NotReachable, "recipient_not_reachable", Permanent, true, NoImpact),
        row(ErrorClass::HandsetUnreachable, "handset_not_reached", Permanent, true, NoImpact),
        row(ErrorClass::OutsideHours, "not_at_this_hour", RetryAfter, false, NoImpact),
        row(ErrorClass::Spam, "taken_for_spam", Permanent, false, NoImpact),
        row(ErrorClass::RecipientBusy, "recipient_not_ready", Retry, true, NoImpact),
        // Tried again it goes alone, and is told its own.
        row(ErrorClass::RefusedInBatch, "refused_with_others", Retry, true, NoImpact),
        row(ErrorClass::NoProvider, "no_provider", Retry, true, NoImpact),
        row(ErrorClass::EndpointRefused, "endpoint_refused", RetryAfter, false, NoImpact),
        row(ErrorClass::EndpointGone, "endpoint_gone", Permanent, false, NoImpact),
        row(ErrorClass::EndpointForbidden, "endpoint_not_allowed", Retry, false, NoImpact),
        row(ErrorClass::EndpointDisabled, "endpoint_disabled", Permanent, false, NoImpact),
    ]
};

/// How carefully a provider is asked again (checklist C2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Paid, or read by people: only what was provably not taken goes again.
    Gateway,
    /// A service of our own, where a second copy does less harm than none: unknown outcomes go again, and a connection that
    /// was not made is tried again after five seconds.
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

/// After a connection that was not made in time (S1-46).
pub const RECONNECT_AFTER: Duration = Duration::from_secs(5);

impl ErrorClass {
    pub fn as_str(self) -> &'static str {
        self.rule().reason
    }

    pub fn action(self) -> RetryAction {
        self.rule().action
    }

    pub fn rule(self) -> RetryRule {
        // The test below holds that every class has its row.
        RETRY_RULES.into_iter().find(|row| row.class == self).unwrap_or(RETRY_RULES[0])
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

/// Pauses between the attempts of an e-mail: a few quick ones for connections that were not made and for servers that
/// greylist for minutes, then at least half an hour each, more than four days in all (RFC 5321 4.5.4.1).
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
/// Copies of one message that may be sent on a long schedule because nobody knows whether the one before was taken: the
/// schedule is for definite refusals, it must not fill a mailbox.
pub const MAX_UNKNOWN_COPIES: i16 = 3;

/// The longest the pause after a provider's "too fast" grows by itself.
const MAX_THROTTLED_SPREAD: Duration = Duration::from_secs(15 * 60);

/// How often and how fast (S1-36..38).
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy<'a> {
    pub max_attempts: i16,
    /// The pause after each failed attempt, instead of an exponential one.
    pub schedule: Option<&'a [Duration]>,
    /// Once it may have been taken, an attempt of unknown outcome is followed by another only while fewer than so many failed.
    pub max_copies: i16,
    /// For how long from now on waiting because the provider was asked too fast uses no attempt.
    pub throttle_patience: Duration,
    /// Pause before the second attempt; each further one is `multiplier` times longer.
    pub base_backoff: Duration,
    pub multiplier: f64,
    /// No pause is longer than this, whatever the exponent or the provider says.
    pub max_pause: Duration,
    /// The pause after a connection that was not made, instead.
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
    /// As a profile wants it.
    pub fn with_profile(self, profile: Option<Profile>) -> RetryPolicy<'a> {
        RetryPolicy { reconnect_pause: profile.filter(|p| *p == Profile::Internal).map(|_| RECONNECT_AFTER), ..self }
    }

    /// The pause after failure number `failures` of this class.
    pub fn pause_for_class(&self, class: ErrorClass, failures: i16, jitter: f64) -> Duration {
        match self.reconnect_pause {
            Some(after) if class == ErrorClass::Unreachable => after.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0)),
            _ => self.pause_after_failure(failures, jitter),
        }
    }

    /// How webhooks are tried again.
    pub fn webhook() -> RetryPolicy<'a> {
        RetryPolicy {
            max_attempts: WEBHOOK_ATTEMPTS,
            schedule: Some(&WEBHOOK_SCHEDULE),
            max_pause: Duration::from_secs(24 * 3600),
            // A partner's endpoint that asks for later is an attempt, as its other refusals are: its schedule is long.
            throttle_patience: Duration::ZERO,
            ..RetryPolicy::default()
        }
    }

    /// Attempts of a schedule of the channel's own: one more than it has pauses.
    pub fn with_schedule(self, schedule: &'a [Duration]) -> RetryPolicy<'a> {
        RetryPolicy {
            max_attempts: i16::try_from(schedule.len() + 1).unwrap_or(i16::MAX),
            max_pause: schedule.iter().copied().max().unwrap_or_default().max(self.max_pause),
            schedule: Some(schedule),
            ..self
        }
    }

    /// With so much less patience left: it has been tried for so long already.
    pub fn after_waiting(self, waited: Duration) -> RetryPolicy<'a> {
        RetryPolicy { throttle_patience: self.throttle_patience.saturating_sub(waited), ..self }
    }

    /// The pause after claim number `claims` that ended with "too fast": what the provider said, and from there on spread over
    /// as much again, twice as much each time up to a quarter of an hour. So those that were refused together come back
    /// one by one.
    pub fn throttled_pause(&self, said: Option<Duration>, claims: i16, jitter: f64) -> Duration {
        let least = said.unwrap_or(self.base_backoff).min(self.max_pause).max(Duration::from_secs(1));
        let doubled = least.saturating_mul(1 << u32::try_from(claims.max(1) - 1).unwrap_or(0).min(16));
        least + doubled.min(MAX_THROTTLED_SPREAD).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// The pause after failure number `failures` (1..). A scheduled one is never shorter than the schedule says, and up to a
    /// tenth longer.
    pub fn pause_after_failure(&self, failures: i16, jitter: f64) -> Duration {
        let Some(schedule) = self.schedule else { return self.exponential_pause(failures, jitter) };
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(0).min(schedule.len().saturating_sub(1));
        let pause = schedule.get(index).copied().unwrap_or(self.max_pause);
        pause.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))
    }

    /// `jitter` in 0..1 spreads it over all of the exponential pause: what failed together comes back as evenly as can be.
    pub fn exponential_pause(&self, attempt: i16, jitter: f64) -> Duration {
        let exponent = i32::from(attempt.max(1)) - 1;
        let full = self.base_backoff.as_secs_f64() * self.multiplier.powi(exponent);
        let spread = full * jitter.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(spread).unwrap_or(self.max_pause).min(self.max_pause)
    }

    /// The pause after failure number `failures`, of which it was said how long. Where there is a schedule no word makes it
    /// shorter: its attempts are to last for days, not for as many seconds.
    pub fn requested_pause(&self, said: Duration, failures: i16, jitter: f64) -> Duration {
        let after = self.bounded_pause(said, jitter);
        if self.schedule.is_some() { after.max(self.pause_after_failure(failures, jitter)) } else { after }
    }

    /// The provider's own word, kept within a second and the ceiling, plus up to a tenth so that not all return at once.
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
    fn webhooks_pause_as_the_schedule_says() {
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

    /// Fault E3, RFC 5321 4.5.4.1: mail is tried for more than four days, from the fourth pause on at least half an hour apart.
    #[test]
    fn mail_is_tried_for_days() {
        let policy = RetryPolicy::default().with_schedule(&EMAIL_SCHEDULE);
        let pauses: Vec<u64> = (1..policy.max_attempts).map(|n| policy.pause_after_failure(n, 0.0).as_secs()).collect();
        assert_eq!(pauses.len(), 12);
        assert!(pauses.windows(2).all(|two| two[0] <= two[1]), "{pauses:?}");
        assert!(pauses[3..].iter().all(|pause| *pause >= 30 * 60), "{pauses:?}");
        assert!(pauses.iter().sum::<u64>() >= 4 * 24 * 3600, "{pauses:?}");
    }

    /// Fault E1: never before the time that was said, and further apart each time, so that those that wait do not come back
    /// together.
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

    /// S1-46, C2: a service of our own is tried again five seconds after a connection was not made, whatever number of times;
    /// a gateway after a pause that grows. All else is alike.
    #[test]
    fn an_internal_service_is_reconnected_to_after_five_seconds() {
        let (gateway, internal) = (Profile::Gateway, Profile::Internal);
        let pause = |profile, class, n| {
            RetryPolicy::default().with_profile(Some(profile)).pause_for_class(class, n, 1.0).as_millis()
        };
        let made = |profile| [1, 2, 3].map(|n| pause(profile, ErrorClass::Unreachable, n));
        assert_eq!((made(internal), made(gateway)), ([5500; 3], [1000, 2000, 4000]));
        assert_eq!(pause(internal, ErrorClass::ProviderInternal, 2), pause(gateway, ErrorClass::ProviderInternal, 2));
    }

    #[test]
    fn a_provider_that_names_an_absurd_time_is_bounded() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.bounded_pause(Duration::from_secs(315_360_000), 0.0), policy.max_pause);
        assert_eq!(policy.bounded_pause(Duration::ZERO, 0.0), Duration::from_secs(1));
        assert_eq!(policy.bounded_pause(Duration::from_secs(7), 0.0), Duration::from_secs(7));
    }
}
