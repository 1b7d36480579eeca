//! The life of a delivery: its statuses, the table of transitions, and `next_transition`, which decides what an
//! attempt's outcome leads to. Every status change follows this table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::channel::{Channel, OnUnknown};
use super::event::EventKind;
use super::retry::{ErrorClass, RetryAction, RetryPolicy};
use crate::id::Tsid;

/// The status of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Must not be claimed yet: `scheduled_at` or the retry time lies ahead.
    Scheduled,
    /// Ready: any worker may claim it.
    Pending,
    /// Claimed by one worker, under a lease.
    Processing,
    /// The provider accepted it.
    Sent,
    /// A receipt reports that it arrived, or the hub put it into the recipient's inbox.
    Delivered,
    /// Certainly not delivered, and not tried again by itself.
    Failed,
    /// `expires_at` passed before it was sent, or the provider gave up delivering it in time.
    Expired,
    /// Canceled before it was sent.
    Canceled,
    /// An attempt was made and its outcome cannot be known.
    Undetermined,
}

/// Every status of a delivery.
pub const STATUSES: [Status; 9] = [
    Status::Scheduled,
    Status::Pending,
    Status::Processing,
    Status::Sent,
    Status::Delivered,
    Status::Failed,
    Status::Expired,
    Status::Canceled,
    Status::Undetermined,
];

/// Every allowed transition: from, to, cause. `next_transition` never leaves this table, and the invariant checks
/// compare stored events with it.
pub const TRANSITIONS: [(Status, Status, &str); 37] = [
    (Status::Scheduled, Status::Pending, "its time has come, or its endpoint was resumed or recovered"),
    (Status::Scheduled, Status::Canceled, "canceled in time"),
    (Status::Scheduled, Status::Expired, "expired before its time"),
    (Status::Scheduled, Status::Undetermined, "canceled or expired after an attempt of unknown outcome"),
    (Status::Scheduled, Status::Sent, "a late answer or receipt of an earlier attempt"),
    (Status::Pending, Status::Processing, "claimed"),
    (Status::Scheduled, Status::Processing, "claimed alone, because an earlier worker was lost while it held it"),
    (Status::Pending, Status::Canceled, "canceled in time"),
    (Status::Pending, Status::Expired, "expired before it was claimed"),
    (Status::Pending, Status::Undetermined, "canceled or expired after an attempt of unknown outcome"),
    (Status::Pending, Status::Sent, "a late answer or receipt of an earlier attempt"),
    (Status::Processing, Status::Sent, "the provider accepted it"),
    (Status::Processing, Status::Delivered, "the hub put it into the recipient's inbox"),
    (Status::Processing, Status::Pending, "released by its worker without a call"),
    (Status::Processing, Status::Scheduled, "a further attempt is due later, or its worker was lost"),
    (Status::Processing, Status::Failed, "rejected permanently, or attempts used up"),
    (Status::Processing, Status::Expired, "expired before it could be sent"),
    (Status::Processing, Status::Canceled, "canceled before it could be sent"),
    (Status::Processing, Status::Undetermined, "outcome unknown, and no further attempt allowed"),
    (Status::Undetermined, Status::Sent, "evidence that the provider had accepted it"),
    (Status::Sent, Status::Delivered, "a receipt reports that it arrived"),
    (Status::Undetermined, Status::Delivered, "a receipt reports that it arrived"),
    (Status::Scheduled, Status::Delivered, "a receipt reports that an earlier attempt arrived"),
    (Status::Pending, Status::Delivered, "a receipt reports that an earlier attempt arrived"),
    (Status::Scheduled, Status::Failed, "a receipt reports that the uncertain attempt failed"),
    (Status::Pending, Status::Failed, "a receipt reports that the uncertain attempt failed; or a fallback replaces it"),
    (Status::Sent, Status::Failed, "a receipt reports that it failed"),
    (Status::Sent, Status::Expired, "a receipt reports that the provider gave up"),
    (
        Status::Sent,
        Status::Undetermined,
        "no receipt came in time; or one copy failed and another may have been accepted",
    ),
    (Status::Undetermined, Status::Failed, "a receipt reports that it failed"),
    (Status::Undetermined, Status::Expired, "a receipt reports that the provider gave up"),
    (Status::Expired, Status::Failed, "a receipt reports a failure, not only a timeout"),
    (Status::Failed, Status::Delivered, "a receipt reports that it arrived after all"),
    (Status::Expired, Status::Delivered, "a receipt reports that it arrived after all"),
    (Status::Canceled, Status::Delivered, "a receipt reports that it arrived after all"),
    (Status::Failed, Status::Pending, "redriven"),
    (Status::Undetermined, Status::Pending, "redriven"),
];

impl Status {
    /// The stable word in the database and the API, such as `PENDING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "SCHEDULED",
            Status::Pending => "PENDING",
            Status::Processing => "PROCESSING",
            Status::Sent => "SENT",
            Status::Delivered => "DELIVERED",
            Status::Failed => "FAILED",
            Status::Expired => "EXPIRED",
            Status::Canceled => "CANCELED",
            Status::Undetermined => "UNDETERMINED",
        }
    }

    /// The word that `/notifications` shows: one of four (S3-35).
    pub fn as_notification_str(self) -> &'static str {
        match self {
            Status::Scheduled | Status::Pending => "PENDING",
            Status::Processing => "PROCESSING",
            Status::Sent | Status::Delivered => "SUCCESS",
            Status::Failed | Status::Expired | Status::Canceled | Status::Undetermined => "FAILED",
        }
    }

    /// Whether no worker changes it again by itself. A dead letter is settled too: only a redrive request reopens it.
    pub fn is_settled(self) -> bool {
        !matches!(self, Status::Scheduled | Status::Pending | Status::Processing)
    }

    /// Whether the message reached the provider (SENT) or the recipient (DELIVERED).
    pub fn is_success(self) -> bool {
        matches!(self, Status::Sent | Status::Delivered)
    }

    /// The event published when a delivery reaches this status; `None` for statuses that are not settled.
    pub fn event_kind(self) -> Option<EventKind> {
        match self {
            Status::Scheduled | Status::Pending | Status::Processing => None,
            Status::Sent => Some(EventKind::Sent),
            Status::Delivered => Some(EventKind::Delivered),
            Status::Failed => Some(EventKind::Failed),
            Status::Expired => Some(EventKind::Expired),
            Status::Canceled => Some(EventKind::Canceled),
            Status::Undetermined => Some(EventKind::Undetermined),
        }
    }
}

impl FromStr for Status {
    type Err = String;
    fn from_str(text: &str) -> Result<Status, String> {
        let found = STATUSES.into_iter().find(|s| s.as_str() == text);
        found.ok_or_else(|| format!("no such status; there are {}", STATUSES.map(Status::as_str).join(", ")))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `ready_at` of a webhook delivery whose endpoint is paused: SCHEDULED at a time that never comes. Resuming the
/// endpoint releases it.
pub const READY_WHEN_RESUMED: DateTime<Utc> = match DateTime::from_timestamp(253_370_764_800, 0) {
    Some(far) => far,
    None => DateTime::<Utc>::MAX_UTC,
};

/// `ready_at` of a delivery whose worker was lost: SCHEDULED at a time that never comes, so that no batch claim takes
/// it. The table `suspects` says when it may be claimed, alone.
pub const READY_WHEN_ISOLATED: DateTime<Utc> = match DateTime::from_timestamp(253_370_764_800 + 86_400, 0) {
    Some(far) => far,
    None => DateTime::<Utc>::MAX_UTC,
};

/// `ready_at` of a webhook that waits for its predecessor in a sequence (the events of one message to one endpoint):
/// SCHEDULED at a time that never comes. The end of the predecessor makes it PENDING. Later than `READY_WHEN_RESUMED`,
/// so that `ready_at >= READY_WHEN_RESUMED` finds every delivery without a real time.
pub const READY_WHEN_PREDECESSOR_ENDS: DateTime<Utc> = match DateTime::from_timestamp(253_383_811_200, 0) {
    Some(far) => far,
    None => DateTime::<Utc>::MAX_UTC,
};

/// Primary key of a delivery. Displayed as its public id, `{messageId}-{no}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    pub shard: i16,
    pub message_id: Tsid,
    /// Number within the message, from 1; fallbacks have numbers above those of the posted deliveries.
    pub no: i16,
}

impl fmt::Display for DeliveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.message_id, self.no)
    }
}

/// Parses a public delivery id, `{messageId}-{no}`. `None` if the text is not one.
pub fn parse_public_id(text: &str) -> Option<(Tsid, i16)> {
    let (message, no) = text.split_once('-')?;
    let canonical = !no.is_empty() && no.bytes().all(|b| b.is_ascii_digit()) && !no.starts_with('0');
    if canonical { Some((message.parse().ok()?, no.parse().ok()?)) } else { None }
}

/// The facts about a delivery on which its next transition depends.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryFacts {
    pub status: Status,
    pub channel: Channel,
    /// Number of the current attempt, from 1; 0 if there was none.
    pub attempt: i16,
    /// Attempts allowed. Each attempt that is not counted raises it by one.
    pub max_attempts: i16,
    /// An earlier attempt has an unknown outcome, so a provider may have sent the message.
    pub possibly_sent: bool,
    pub cancel_requested: bool,
    pub expires_at: Option<DateTime<Utc>>,
    /// A fallback exists that was not used yet.
    pub has_fallback: bool,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider accepted the message. `provider_ref`: the provider's id of it, if it gave one.
    Accepted { provider_ref: Option<String> },
    /// The hub put the message into the recipient's inbox: nothing more is awaited.
    Arrived,
    /// The provider certainly did not accept it. `retry_after`: the pause that the provider asked for.
    Rejected { class: ErrorClass, code: String, detail: String, retry_after: Option<Duration> },
    /// The call may have been made and its result is unknown.
    Unknown { code: &'static str, detail: String },
    /// No call was made; the delivery is PENDING again at once.
    Released,
    /// No call was made: it could not be begun in time, or the content could not be read. Tried again after a short
    /// pause.
    Postponed,
    /// No call was made: the delivery must wait until this time, for this reason (a word of `DELIVERY_REASONS`).
    Deferred { until: DateTime<Utc>, reason: &'static str },
    /// No call was made: `expires_at` has passed.
    Expired,
    /// No call was made: cancellation was requested.
    Canceled,
}

impl Outcome {
    /// An outcome without a call: wait until this time, for this reason.
    pub fn deferred(until: DateTime<Utc>, reason: &'static str) -> Outcome {
        Outcome::Deferred { until, reason }
    }

    /// The kind of outcome that the attempt's row stores.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Outcome::Accepted { .. } | Outcome::Arrived => OutcomeKind::Accepted,
            Outcome::Rejected { .. } => OutcomeKind::Rejected,
            Outcome::Unknown { .. } => OutcomeKind::Unknown,
            Outcome::Released
            | Outcome::Postponed
            | Outcome::Deferred { .. }
            | Outcome::Expired
            | Outcome::Canceled => OutcomeKind::NotCalled,
        }
    }
}

/// The stored outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// Begun and not answered yet. Only the current attempt of a PROCESSING delivery is in flight.
    InFlight,
    Accepted,
    Rejected,
    Unknown,
    NotCalled,
}

impl OutcomeKind {
    /// The stable word in the database and the API, such as `IN_FLIGHT`.
    pub fn as_str(self) -> &'static str {
        match self {
            OutcomeKind::InFlight => "IN_FLIGHT",
            OutcomeKind::Accepted => "ACCEPTED",
            OutcomeKind::Rejected => "REJECTED",
            OutcomeKind::Unknown => "UNKNOWN",
            OutcomeKind::NotCalled => "NOT_CALLED",
        }
    }
}

impl FromStr for OutcomeKind {
    type Err = String;
    fn from_str(text: &str) -> Result<OutcomeKind, String> {
        use OutcomeKind::{Accepted, InFlight, NotCalled, Rejected, Unknown};
        let found = [InFlight, Accepted, Rejected, Unknown, NotCalled].into_iter().find(|k| k.as_str() == text);
        found.ok_or_else(|| format!("no such outcome: {text}"))
    }
}

/// The next transition of a delivery, as `settle` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub status: Status,
    /// When it may be claimed (PENDING) or promoted (SCHEDULED); `None` for a settled status.
    pub ready_at: Option<DateTime<Utc>>,
    pub possibly_sent: bool,
    /// The attempt does not count: `max_attempts` is raised by one.
    pub refund: bool,
    /// A word of `DELIVERY_REASONS` for the delivery and its event.
    pub reason: Option<&'static str>,
}

/// Highest attempt number, uncounted attempts included.
const MAX_ATTEMPT_NUMBER: i16 = 10_000;

/// Reasons, or attempt codes, with which a delivery may end FAILED or UNDETERMINED without any call. `fsck` reports
/// every other such ending that has no call.
pub const UNCALLED_ENDINGS: [&str; 6] = [
    // The channel or the destination was down, and a fallback replaced the delivery.
    REASON_CHANNEL_DOWN,
    // The content is missing, or this program cannot read it.
    "content_missing",
    "content_unreadable",
    "endpoint_disabled",
    // The attempt numbers were used up and no call could be begun.
    "never_begun",
    // Every worker that held it was lost before it made a call.
    "workers_lost",
];

/// Pause before a lookup: a provider may need this long to list an accepted message.
const LOOKUP_AFTER: Duration = Duration::from_secs(30);

/// A delivery ends when this many workers were lost while they held it. All but the first held it alone.
pub const MAX_WORKERS_LOST: i16 = 6;

/// The pause before a delivery is claimed again whose call could not be begun because the hub was late. The channel's
/// schedule does not apply, because the provider may be well. It grows from one second to a minute over thousands of
/// claims, so that a delivery that can never begin costs little.
fn late_pause(claims: i16, jitter: f64) -> Duration {
    Duration::from_secs(1 + u64::try_from(claims / 50).unwrap_or(0))
        .min(Duration::from_secs(60))
        .mul_f64(0.5 + 0.5 * jitter)
}

/// Decides the transition after an attempt's outcome. `facts.status` is PROCESSING; `policy` is the channel's retry
/// policy, `on_unknown` what its provider does after an unknown outcome, `now` the hub's clock, and `jitter` a random
/// number in 0..1.
///
/// Only a call that was made or may have been made uses an attempt. An attempt that certainly made no call, or that the
/// provider throttled, is not counted and has a pause and a bound of its own.
///
/// Guarantees: a delivery that a provider may have accepted never ends FAILED, EXPIRED or CANCELED; no retry starts
/// after `expires_at`; an unknown outcome is not retried where the channel holds; no delivery ends FAILED without a
/// call, except for the reasons in `UNCALLED_ENDINGS`.
pub fn next_transition(
    facts: &DeliveryFacts,
    outcome: &Outcome,
    policy: &RetryPolicy<'_>,
    on_unknown: OnUnknown,
    now: DateTime<Utc>,
    jitter: f64,
) -> Transition {
    let unknown = matches!(outcome, Outcome::Unknown { .. });
    let possibly_sent = facts.possibly_sent || unknown;
    // Uncounted attempts raised `max_attempts` by one each; subtract them.
    let failures = (facts.attempt - (facts.max_attempts - policy.max_attempts)).clamp(1, facts.attempt.max(1));
    // No further attempt, none accepted. If one may have been sent, the status is UNDETERMINED instead.
    let end = |status: Status, reason: &'static str| Transition {
        status: if possibly_sent { Status::Undetermined } else { status },
        ready_at: None,
        possibly_sent,
        refund: false,
        reason: Some(reason),
    };
    let again = |pause: Duration, reason: &'static str| {
        let at = now + pause;
        if facts.cancel_requested {
            end(Status::Canceled, "canceled")
        } else if facts.attempt >= facts.max_attempts {
            end(Status::Failed, reason)
        } else if facts.expires_at.is_some_and(|expiry| at >= expiry) {
            end(Status::Expired, "expired_before_retry")
        } else {
            Transition {
                status: Status::Scheduled,
                ready_at: Some(at),
                possibly_sent,
                refund: false,
                reason: Some(reason),
            }
        }
    };
    // Not counted, and at most until `expires_at`: the delivery then ends EXPIRED in time.
    let put_off = |pause: Duration, reason: &'static str| Transition {
        status: Status::Scheduled,
        ready_at: Some(facts.expires_at.into_iter().fold(now + pause, Ord::min).max(now)),
        possibly_sent,
        refund: true,
        reason: Some(reason),
    };
    // With a fallback, the fallback is sent at once instead of waiting out the throttling.
    let patient = !policy.throttle_patience.is_zero() && !facts.has_fallback && facts.attempt < MAX_ATTEMPT_NUMBER;
    let wait = |said: Option<Duration>, reason: &'static str| {
        let soonest = now + policy.throttled_pause(said, facts.attempt, 0.0);
        if facts.cancel_requested {
            end(Status::Canceled, "canceled")
        } else if facts.expires_at.is_some_and(|expiry| soonest >= expiry) {
            end(Status::Expired, "expired_before_retry")
        } else {
            let at = now + policy.throttled_pause(said, facts.attempt, jitter);
            let in_time = facts.expires_at.map_or(at, |expiry| at.min(expiry - Duration::from_secs(1)));
            Transition { ready_at: Some(in_time.max(soonest)), ..put_off(Duration::ZERO, reason) }
        }
    };
    match outcome {
        Outcome::Accepted { .. } => {
            Transition { status: Status::Sent, ready_at: None, possibly_sent, refund: false, reason: None }
        }
        Outcome::Arrived => {
            Transition { status: Status::Delivered, ready_at: None, possibly_sent, refund: false, reason: None }
        }
        Outcome::Rejected { class, retry_after, .. } => match (class.action(), retry_after) {
            (RetryAction::Permanent, _) => end(Status::Failed, class.as_str()),
            // Another account of the channel may accept it next; if all are down, the fallback replaces it.
            (RetryAction::BlockProvider, _) if facts.cancel_requested => end(Status::Canceled, "canceled"),
            (RetryAction::BlockProvider, _) if facts.attempt >= MAX_ATTEMPT_NUMBER => {
                end(Status::Failed, class.as_str())
            }
            (RetryAction::BlockProvider, _) => put_off(policy.exponential_pause(facts.attempt, jitter), class.as_str()),
            (RetryAction::RetryUncounted, said) if patient => wait(*said, class.as_str()),
            (RetryAction::RetryUncounted | RetryAction::RetryAfter, Some(said)) => {
                again(policy.requested_pause(*said, failures, jitter), class.as_str())
            }
            (RetryAction::RetryUncounted | RetryAction::Retry | RetryAction::RetryAfter, _) => {
                again(policy.pause_for_class(*class, failures, jitter), class.as_str())
            }
        },
        Outcome::Unknown { code, .. } => match on_unknown {
            OnUnknown::Hold => end(Status::Undetermined, code),
            // A long schedule is for definite rejections; unknown outcomes could send a copy each time.
            OnUnknown::Retry if facts.possibly_sent && failures >= policy.max_copies => end(Status::Undetermined, code),
            OnUnknown::Retry => again(policy.pause_after_failure(failures, jitter), code),
            OnUnknown::Lookup => again(policy.pause_after_failure(failures, jitter).max(LOOKUP_AFTER), code),
        },
        Outcome::Released | Outcome::Postponed | Outcome::Deferred { .. } if facts.cancel_requested => {
            end(Status::Canceled, "canceled")
        }
        Outcome::Deferred { until, reason }
            if facts.has_fallback && !possibly_sent && takes_fallback(*until - now, reason) =>
        {
            end(Status::Failed, REASON_CHANNEL_DOWN)
        }
        Outcome::Released => {
            Transition { status: Status::Pending, ready_at: Some(now), possibly_sent, refund: true, reason: None }
        }
        // The attempt numbers are used up without a failure: it was not sent in time.
        Outcome::Postponed | Outcome::Deferred { .. } if facts.attempt >= MAX_ATTEMPT_NUMBER => {
            end(Status::Expired, "never_begun")
        }
        Outcome::Postponed => put_off(late_pause(facts.attempt, jitter), "not_begun"),
        Outcome::Deferred { until, reason } => put_off((*until - now).to_std().unwrap_or_default(), reason),
        Outcome::Expired => end(Status::Expired, "expired"),
        Outcome::Canceled => end(Status::Canceled, "canceled"),
    }
}

/// Reason of a delivery that waits because its destination, or the whole account, throttled us.
pub const REASON_DESTINATION_PACED: &str = "destination_paced";
/// Reason of a delivery that waits because its destination failed repeatedly.
pub const REASON_DESTINATION_FAILING: &str = "destination_failing";

/// Reason of a delivery that was not sent because a fallback replaces it instead of waiting.
pub const REASON_CHANNEL_DOWN: &str = "channel_down";

/// A delivery with a fallback waits at most this long for a throttled destination.
const MAX_WAIT_WITH_FALLBACK: TimeDelta = TimeDelta::seconds(60);

/// Whether a delivery with a fallback uses the fallback instead of waiting this long for this reason.
fn takes_fallback(wait: TimeDelta, reason: &str) -> bool {
    reason == REASON_DESTINATION_FAILING || reason == REASON_DESTINATION_PACED && wait > MAX_WAIT_WITH_FALLBACK
}

/// Whether the call of a lost worker is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginRecord {
    /// The worker records each call before it makes it, and this one is not recorded: no call was made.
    Absent,
    /// The call is on record: it may have been made.
    Present,
    /// The worker records no calls, because a second copy does no harm: the call may have been made or not.
    NotKept,
}

/// Decides what happens to a delivery whose worker was lost (its lease ran out). Returns the outcome of the open
/// attempt and the transition. `workers_lost`: workers lost while they held it, this one included, from 1.
/// `on_unknown`: the setting that the worker had claimed it under.
///
/// Only a recorded call uses an attempt: a worker may be lost for reasons that have nothing to do with the delivery.
/// `workers_lost` bounds a delivery that itself crashes workers: after the first loss it is claimed alone, and from the
/// second loss on it pauses, four times longer each time.
pub fn transition_after_lost_worker(
    facts: &DeliveryFacts,
    begun: BeginRecord,
    workers_lost: i16,
    on_unknown: OnUnknown,
    now: DateTime<Utc>,
) -> (Outcome, Transition) {
    let may_be_sent = begun != BeginRecord::Absent;
    let outcome = if may_be_sent {
        Outcome::Unknown { code: "worker_lost", detail: "the worker that held it stopped answering".into() }
    } else {
        Outcome::Released
    };
    let possibly_sent = facts.possibly_sent || may_be_sent;
    let refund = begun != BeginRecord::Present;
    let pause = Duration::from_secs(match workers_lost {
        ..=1 => 0,
        more => 30 << (2 * u32::try_from(more - 2).unwrap_or(0).min(4)),
    });
    // The provider may not list the accepted message yet.
    let looked_up = begun == BeginRecord::Present && on_unknown == OnUnknown::Lookup;
    let at = now + if looked_up { pause.max(LOOKUP_AFTER) } else { pause };
    let ending = if may_be_sent && on_unknown == OnUnknown::Hold {
        Some((Status::Undetermined, "worker_lost"))
    } else if facts.cancel_requested {
        Some((Status::Canceled, "worker_lost"))
    } else if facts.expires_at.is_some_and(|expiry| at >= expiry) {
        Some((Status::Expired, "worker_lost"))
    } else if !refund && facts.attempt >= facts.max_attempts {
        Some((Status::Undetermined, "worker_lost"))
    } else if workers_lost >= MAX_WORKERS_LOST || facts.attempt >= MAX_ATTEMPT_NUMBER {
        Some((Status::Failed, "workers_lost"))
    } else {
        None
    };
    let step = match ending {
        Some((status, reason)) => Transition {
            status: if possibly_sent { Status::Undetermined } else { status },
            ready_at: None,
            possibly_sent,
            refund: false,
            reason: Some(reason),
        },
        None => Transition {
            status: Status::Scheduled,
            ready_at: Some(at),
            possibly_sent,
            refund,
            reason: Some("worker_lost"),
        },
    };
    (outcome, step)
}

/// The attempts that a dead letter may have in all after a redrive.
///
/// # Errors
/// (reason of `REASONS`, detail): `attempts_used_up`, `outcome_held` (UNDETERMINED on a channel that holds) or
/// `not_a_dead_letter`. Nothing depends on who asks.
pub fn max_attempts_after_redrive(
    status: Status,
    attempt: i16,
    on_unknown: OnUnknown,
    policy: &RetryPolicy<'_>,
) -> Result<i16, (&'static str, &'static str)> {
    match (status, on_unknown) {
        (Status::Failed | Status::Undetermined, _) if attempt >= MAX_ATTEMPT_NUMBER => {
            Err(("attempts_used_up", "it was tried so often that it is not tried again"))
        }
        // As many attempts as a new delivery, so its pauses start over. With `Lookup` the provider is asked first.
        (Status::Failed, _) | (Status::Undetermined, OnUnknown::Retry | OnUnknown::Lookup) => {
            Ok(attempt + policy.max_attempts)
        }
        (Status::Undetermined, OnUnknown::Hold) => Err((
            "outcome_held",
            "a provider may have sent it, and a second copy on its channel would cost money or trust",
        )),
        _ => Err(("not_a_dead_letter", "only what FAILED, or is UNDETERMINED, can be tried again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: [BeginRecord; 3] = [BeginRecord::Absent, BeginRecord::Present, BeginRecord::NotKept];

    fn facts() -> DeliveryFacts {
        DeliveryFacts {
            status: Status::Processing,
            channel: Channel::Email,
            attempt: 1,
            max_attempts: 3,
            possibly_sent: false,
            cancel_requested: false,
            has_fallback: false,
            expires_at: None,
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn rejected(class: ErrorClass) -> Outcome {
        Outcome::Rejected { class, code: "x".into(), detail: String::new(), retry_after: None }
    }

    fn unknown() -> Outcome {
        Outcome::Unknown { code: "no_answer", detail: String::new() }
    }

    fn step(facts: &DeliveryFacts, outcome: &Outcome) -> Transition {
        next_transition(facts, outcome, &RetryPolicy::default(), OnUnknown::Retry, now(), 1.0)
    }

    /// Every facts × outcome leads along the table of transitions and keeps the promises.
    #[test]
    fn every_transition_is_in_the_table_and_keeps_the_guarantees() {
        let classes = super::super::retry::RETRY_RULES.map(|row| row.class);
        let mut outcomes: Vec<Outcome> = classes.into_iter().map(rejected).collect();
        outcomes.push(unknown());
        outcomes.extend([Outcome::Released, Outcome::Postponed, Outcome::Expired, Outcome::Canceled]);
        outcomes.push(Outcome::deferred(now() + Duration::from_secs(9), "not_its_turn"));
        outcomes.extend([Outcome::Accepted { provider_ref: None }, Outcome::Arrived]);
        for attempt in 1..=3 {
            for possibly_sent in [false, true] {
                for cancel_requested in [false, true] {
                    for expires_at in [None, Some(now()), Some(now() + Duration::from_secs(60))] {
                        let facts = DeliveryFacts { attempt, possibly_sent, cancel_requested, expires_at, ..facts() };
                        for on_unknown in [OnUnknown::Retry, OnUnknown::Lookup, OnUnknown::Hold] {
                            for outcome in &outcomes {
                                let step =
                                    next_transition(&facts, outcome, &RetryPolicy::default(), on_unknown, now(), 0.3);
                                check(&facts, outcome.kind(), on_unknown, &step);
                            }
                            for (begun, workers_lost) in
                                BEGUN.iter().flat_map(|b| (1..=MAX_WORKERS_LOST).map(move |n| (*b, n)))
                            {
                                let (outcome, step) =
                                    transition_after_lost_worker(&facts, begun, workers_lost, on_unknown, now());
                                check(&facts, outcome.kind(), on_unknown, &step);
                                let spent = step.ready_at.is_some() && !step.refund;
                                assert!(!spent || begun == BeginRecord::Present, "{begun:?} {step:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    fn check(facts: &DeliveryFacts, outcome: OutcomeKind, on_unknown: OnUnknown, step: &Transition) {
        let said = format!("{facts:?} {outcome:?} {on_unknown:?} -> {step:?}");
        assert!(TRANSITIONS.iter().any(|t| (t.0, t.1) == (facts.status, step.status)), "{said}");
        if facts.possibly_sent || outcome == OutcomeKind::Unknown {
            assert!(step.possibly_sent, "a doubt is never forgotten: {said}");
            assert!(!matches!(step.status, Status::Failed | Status::Expired | Status::Canceled), "{said}");
        }
        if outcome == OutcomeKind::Unknown && on_unknown == OnUnknown::Hold {
            assert_eq!(step.status, Status::Undetermined, "{said}");
        }
        let waits = matches!(step.status, Status::Pending | Status::Scheduled);
        assert_eq!(waits, step.ready_at.is_some(), "{said}");
        if waits {
            assert!(facts.attempt < facts.max_attempts + i16::from(step.refund), "an attempt is left: {said}");
        }
        if step.status == Status::Scheduled {
            let last = |expiry: DateTime<Utc>| if step.refund { Some(expiry.max(now())) } else { Some(expiry) };
            assert!(facts.expires_at.is_none_or(|expiry| step.ready_at <= last(expiry)), "{said}");
        }
    }

    /// S3-13: the provider's answer decides between success and failure.
    #[test]
    fn providers_answer_decides_the_status() {
        assert_eq!(step(&facts(), &Outcome::Accepted { provider_ref: None }).status, Status::Sent);
        assert_eq!(step(&facts(), &Outcome::Arrived).status, Status::Delivered);
        assert_eq!(step(&facts(), &rejected(ErrorClass::Content)).status, Status::Failed);
        assert_eq!(step(&facts(), &rejected(ErrorClass::Unreachable)).status, Status::Scheduled);
        let last = DeliveryFacts { attempt: 3, ..facts() };
        assert_eq!(step(&last, &rejected(ErrorClass::Unreachable)).status, Status::Failed);
        assert_eq!(step(&last, &unknown()).status, Status::Undetermined);
    }

    /// A provider that refuses our account may do so for any time: its deliveries wait, with or without a fallback.
    #[test]
    fn credentials_error_keeps_deliveries_waiting() {
        let refused = rejected(ErrorClass::Credentials);
        for (has_fallback, possibly_sent) in [(false, false), (true, false), (true, true)] {
            let step = step(&DeliveryFacts { has_fallback, possibly_sent, ..facts() }, &refused);
            assert_eq!((step.status, step.refund), (Status::Scheduled, true), "another account may take it");
        }
    }

    /// A redriven dead letter gets as many attempts as a new delivery, unless it must not be sent twice.
    #[test]
    fn redrive_gives_a_dead_letter_new_attempts() {
        let policy = RetryPolicy::default();
        for status in STATUSES {
            for on_unknown in [OnUnknown::Retry, OnUnknown::Lookup, OnUnknown::Hold] {
                let may = max_attempts_after_redrive(status, 3, on_unknown, &policy);
                let held = on_unknown == OnUnknown::Hold;
                let dead = status == Status::Failed || status == Status::Undetermined && !held;
                assert_eq!(may.ok(), dead.then_some(6), "{status} {on_unknown:?}");
                let known = TRANSITIONS.iter().any(|t| (t.0, t.1) == (status, Status::Pending));
                assert!(may.is_err() || known, "{status}");
            }
        }
        assert_eq!(max_attempts_after_redrive(Status::Failed, 10, OnUnknown::Retry, &RetryPolicy::webhook()), Ok(20));
        let spent = max_attempts_after_redrive(Status::Failed, MAX_ATTEMPT_NUMBER, OnUnknown::Retry, &policy);
        assert_eq!(spent.unwrap_err().0, "attempts_used_up");
    }

    /// A possibly accepted message is not looked up before the provider can list it.
    #[test]
    fn lost_call_with_lookup_waits_for_the_providers_list() {
        let after = |begun, on_unknown| transition_after_lost_worker(&facts(), begun, 1, on_unknown, now()).1;
        let looked_up = after(BeginRecord::Present, OnUnknown::Lookup);
        assert_eq!((looked_up.status, looked_up.ready_at), (Status::Scheduled, Some(now() + LOOKUP_AFTER)));
        assert!(!looked_up.refund, "the call may have been made");
        for (begun, on_unknown) in [(BeginRecord::Absent, OnUnknown::Lookup), (BeginRecord::NotKept, OnUnknown::Retry)]
        {
            let step = after(begun, on_unknown);
            assert_eq!((step.status, step.ready_at, step.refund), (Status::Scheduled, Some(now()), true));
        }
    }

    /// Fault A1: lost workers use no attempt; a delivery that crashes every worker ends within an hour with a reason.
    #[test]
    fn lost_workers_are_not_counted_as_attempts_and_are_bounded() {
        for (begun, ending) in [(BeginRecord::Absent, Status::Failed), (BeginRecord::NotKept, Status::Undetermined)] {
            let (mut facts, mut waited) = (DeliveryFacts { max_attempts: 1, ..facts() }, Vec::new());
            for workers_lost in 1..MAX_WORKERS_LOST {
                let step = transition_after_lost_worker(&facts, begun, workers_lost, OnUnknown::Retry, now()).1;
                assert_eq!((step.status, step.refund), (Status::Scheduled, true), "{begun:?} {workers_lost}");
                waited.push((step.ready_at.unwrap() - now()).num_seconds());
                facts.attempt += 1;
                facts.max_attempts += 1;
                facts.possibly_sent |= step.possibly_sent;
            }
            assert_eq!(waited, [0, 30, 120, 480, 1920]);
            let step = transition_after_lost_worker(&facts, begun, MAX_WORKERS_LOST, OnUnknown::Retry, now()).1;
            assert_eq!((step.status, step.reason), (ending, Some("workers_lost")));
        }
    }

    /// Fault A3: a call that could not begin because the hub was late is soon tried again, however often it was claimed
    /// before.
    #[test]
    fn postponed_attempt_does_not_use_the_channel_schedule() {
        let late = |attempt| {
            let facts = DeliveryFacts { attempt, max_attempts: attempt + 2, ..facts() };
            let step =
                next_transition(&facts, &Outcome::Postponed, &RetryPolicy::default(), OnUnknown::Retry, now(), 1.0);
            (step.status, step.refund, (step.ready_at.unwrap() - now()).num_seconds())
        };
        assert_eq!([late(1), late(11)], [(Status::Scheduled, true, 1); 2]);
        assert_eq!(late(5_000), (Status::Scheduled, true, 60));
        let facts = DeliveryFacts { attempt: MAX_ATTEMPT_NUMBER, max_attempts: MAX_ATTEMPT_NUMBER + 2, ..facts() };
        assert_eq!(step(&facts, &Outcome::Postponed).status, Status::Expired, "nothing failed");
    }

    /// Fault E1: throttling uses no attempt while the throttle patience lasts and there is no fallback.
    #[test]
    fn throttled_attempts_are_not_counted_during_throttle_patience() {
        let refused = Outcome::Rejected {
            class: ErrorClass::Throttled,
            code: "x".into(),
            detail: String::new(),
            retry_after: Some(Duration::from_secs(30)),
        };
        let last = DeliveryFacts { attempt: 3, ..facts() };
        let waits = step(&last, &refused);
        assert_eq!((waits.status, waits.refund, waits.reason), (Status::Scheduled, true, Some("throttled")));
        assert_eq!(step(&DeliveryFacts { has_fallback: true, ..last }, &refused).status, Status::Failed);
        let impatient = RetryPolicy::default().after_waiting(Duration::from_secs(48 * 3600));
        let by = |facts: &DeliveryFacts| next_transition(facts, &refused, &impatient, OnUnknown::Retry, now(), 1.0);
        assert_eq!((by(&last).status, by(&facts()).refund), (Status::Failed, false));
        let expiry = |seconds| {
            let facts = DeliveryFacts { expires_at: Some(now() + Duration::from_secs(seconds)), ..last };
            let step = step(&facts, &refused);
            (step.status, step.ready_at.map(|at| (at - now()).num_seconds()))
        };
        assert_eq!([expiry(30), expiry(31)], [(Status::Expired, None), (Status::Scheduled, Some(30))]);
    }

    /// On a long schedule the number of copies after unknown outcomes is bounded as on a short one.
    #[test]
    fn unknown_outcomes_on_a_long_schedule_are_bounded() {
        let policy =
            RetryPolicy { max_copies: 3, ..RetryPolicy::default().with_schedule(&super::super::retry::EMAIL_SCHEDULE) };
        let (max_attempts, mut facts) = (policy.max_attempts, facts());
        facts.max_attempts = max_attempts;
        let after = |attempt, possibly_sent| {
            let facts = DeliveryFacts { attempt, possibly_sent, ..facts };
            next_transition(&facts, &unknown(), &policy, OnUnknown::Retry, now(), 0.0).status
        };
        assert_eq!([after(1, false), after(2, true), after(3, true)].map(Status::is_settled), [false, false, true]);
        assert_eq!(after(9, false), Status::Scheduled, "the first doubt is never the last word");
    }

    #[test]
    fn public_ids_are_canonical() {
        let id = Tsid(700_000_000_000_000_000);
        assert_eq!(parse_public_id(&format!("{id}-12")), Some((id, 12)));
        for bad in ["", "-", "x-1", &format!("{id}-"), &format!("{id}-01"), &format!("{id}-+1"), &format!("{id}-99999")]
        {
            assert_eq!(parse_public_id(bad), None, "{bad}");
        }
    }
}
