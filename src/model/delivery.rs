//! A delivery's whole life: its statuses, the transitions between them as one table, and `next`, the law that decides
//! which transition an attempt's outcome leads to. Everything that changes a delivery goes through here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::channel::{Channel, OnUnknown};
use super::event::EventKind;
use super::retry::{ErrorClass, RetryAction, RetryPolicy};
use crate::id::Tsid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// May not go yet: its time has not come, or a retry waits.
    Scheduled,
    /// May be claimed by any worker.
    Pending,
    /// Held by one worker, under a lease.
    Processing,
    /// The provider took it.
    Sent,
    /// A receipt says it arrived.
    Delivered,
    /// Definitely not sent, and will not be.
    Failed,
    /// Became worthless before it could be sent.
    Expired,
    /// Taken back before it was sent.
    Canceled,
    /// We asked, and cannot know.
    Undetermined,
}

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

/// Every transition there is, and what makes it. `next` never leaves this table; the invariants check events against it.
pub const TRANSITIONS: [(Status, Status, &str); 36] = [
    (Status::Scheduled, Status::Pending, "its time has come, or somebody asked"),
    (Status::Scheduled, Status::Canceled, "canceled in time"),
    (Status::Scheduled, Status::Expired, "worthless before its time"),
    (Status::Scheduled, Status::Undetermined, "canceled or expired after an attempt of unknown outcome"),
    (Status::Scheduled, Status::Sent, "a late answer or receipt of an earlier attempt"),
    (Status::Pending, Status::Processing, "claimed"),
    (Status::Scheduled, Status::Processing, "claimed alone: a worker was lost while it held it"),
    (Status::Pending, Status::Canceled, "canceled in time"),
    (Status::Pending, Status::Expired, "worthless before its turn"),
    (Status::Pending, Status::Undetermined, "canceled or expired after an attempt of unknown outcome"),
    (Status::Pending, Status::Sent, "a late answer or receipt of an earlier attempt"),
    (Status::Processing, Status::Sent, "the provider took it"),
    (Status::Processing, Status::Pending, "given back"),
    (Status::Processing, Status::Scheduled, "to be tried again, or its worker was lost"),
    (Status::Processing, Status::Failed, "refused for good, or attempts spent"),
    (Status::Processing, Status::Expired, "worthless before it could be sent"),
    (Status::Processing, Status::Canceled, "canceled before it could be sent"),
    (Status::Processing, Status::Undetermined, "outcome unknown, and no further attempt allowed"),
    (Status::Undetermined, Status::Sent, "evidence: the provider had taken it"),
    (Status::Sent, Status::Delivered, "a receipt says it arrived"),
    (Status::Undetermined, Status::Delivered, "a receipt says it arrived"),
    (Status::Scheduled, Status::Delivered, "a receipt says that an earlier attempt arrived"),
    (Status::Pending, Status::Delivered, "a receipt says that an earlier attempt arrived"),
    (Status::Scheduled, Status::Failed, "a receipt says that what may have been taken failed"),
    (Status::Pending, Status::Failed, "the same; or its channel is down, and another stands by"),
    (Status::Sent, Status::Failed, "a receipt says it failed on its way"),
    (Status::Sent, Status::Expired, "a receipt says it was given up"),
    (
        Status::Sent,
        Status::Undetermined,
        "no receipt came; or what was taken failed, and another copy may have been taken",
    ),
    (Status::Undetermined, Status::Failed, "a receipt says it failed on its way"),
    (Status::Undetermined, Status::Expired, "a receipt says it was given up"),
    (Status::Expired, Status::Failed, "a receipt says that it did not only come too late"),
    (Status::Failed, Status::Delivered, "a receipt says it arrived after all"),
    (Status::Expired, Status::Delivered, "a receipt says it arrived after all"),
    (Status::Canceled, Status::Delivered, "a receipt says it arrived after all"),
    (Status::Failed, Status::Pending, "redriven: somebody asked"),
    (Status::Undetermined, Status::Pending, "redriven: somebody asked"),
];

impl Status {
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

    /// Seed 003 knows four words (S3-35).
    pub fn as_notification_str(self) -> &'static str {
        match self {
            Status::Scheduled | Status::Pending => "PENDING",
            Status::Processing => "PROCESSING",
            Status::Sent | Status::Delivered => "SUCCESS",
            Status::Failed | Status::Expired | Status::Canceled | Status::Undetermined => "FAILED",
        }
    }

    /// No worker will touch it again by itself; a dead letter only when somebody asks (`redrive`).
    pub fn is_settled(self) -> bool {
        !matches!(self, Status::Scheduled | Status::Pending | Status::Processing)
    }

    pub fn is_success(self) -> bool {
        matches!(self, Status::Sent | Status::Delivered)
    }

    /// The event that tells of reaching this status; none for the ways in between.
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

/// Where a delivery to a paused endpoint waits: SCHEDULED for a time that does not come, until somebody lets it go.
pub const READY_WHEN_RESUMED: DateTime<Utc> = match DateTime::from_timestamp(253_370_764_800, 0) {
    Some(far) => far,
    None => DateTime::<Utc>::MAX_UTC,
};

/// Where a delivery waits whose worker was lost: SCHEDULED for a time that does not come, so that no claim of many takes it. The
/// table `suspects` says when it may be claimed, alone.
pub const READY_WHEN_ISOLATED: DateTime<Utc> = match DateTime::from_timestamp(253_370_764_800 + 86_400, 0) {
    Some(far) => far,
    None => DateTime::<Utc>::MAX_UTC,
};

/// Where a webhook waits for the one before it in its sequence, the events of one message to one endpoint: SCHEDULED for a time
/// that does not come; the end of that one makes it PENDING. Later than `PARKED`, so that neither is a time to show.
pub const READY_WHEN_PREDECESSOR_ENDS: DateTime<Utc> = match DateTime::from_timestamp(253_383_811_200, 0) {
    Some(far) => far,
    None => DateTime::<Utc>::MAX_UTC,
};

/// Where a delivery lives. Outside it is `{messageId}-{no}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    pub shard: i16,
    pub message_id: Tsid,
    pub no: i16,
}

impl fmt::Display for DeliveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.message_id, self.no)
    }
}

/// `{messageId}-{no}` as a caller writes it.
pub fn parse_public_id(text: &str) -> Option<(Tsid, i16)> {
    let (message, no) = text.split_once('-')?;
    let canonical = !no.is_empty() && no.bytes().all(|b| b.is_ascii_digit()) && !no.starts_with('0');
    if canonical { Some((message.parse().ok()?, no.parse().ok()?)) } else { None }
}

/// What the law needs to know of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryFacts {
    pub status: Status,
    pub channel: Channel,
    /// Attempts spent, the present one included.
    pub attempt: i16,
    pub max_attempts: i16,
    /// An earlier attempt may have been taken by a provider.
    pub possibly_sent: bool,
    pub cancel_requested: bool,
    pub expires_at: Option<DateTime<Utc>>,
    /// Another channel stands by, and was not asked yet.
    pub has_fallback: bool,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it, under its own reference.
    Accepted { provider_ref: Option<String> },
    /// It definitely did not take it.
    Rejected { class: ErrorClass, code: String, detail: String, retry_after: Option<Duration> },
    /// We asked and cannot know.
    Unknown { code: &'static str, detail: String },
    /// Not called: given back as it was.
    Released,
    /// Not called: it could not be begun in time, or what to send could not be read; given back for later.
    Postponed,
    /// Not called: its turn comes later, and why.
    Deferred { until: DateTime<Utc>, reason: &'static str },
    /// Not called: worthless by now.
    Expired,
    /// Not called: taken back.
    Canceled,
}

impl Outcome {
    pub fn deferred(until: DateTime<Utc>, reason: &'static str) -> Outcome {
        Outcome::Deferred { until, reason }
    }

    pub fn kind(&self) -> OutcomeKind {
        match self {
            Outcome::Accepted { .. } => OutcomeKind::Accepted,
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

/// How an attempt stands in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// Begun, not answered: only while its delivery is PROCESSING under it.
    InFlight,
    Accepted,
    Rejected,
    Unknown,
    NotCalled,
}

impl OutcomeKind {
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

/// What to write: the one next step of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub status: Status,
    /// From when it may be claimed (PENDING) or promoted (SCHEDULED).
    pub ready_at: Option<DateTime<Utc>>,
    pub possibly_sent: bool,
    /// The attempt was not used: one more is allowed in its stead.
    pub refund: bool,
    /// Why, in a stable word, for the delivery and its event.
    pub reason: Option<&'static str>,
}

/// No delivery has more attempts, those not used included.
const MAX_ATTEMPT_NUMBER: i16 = 10_000;

/// Endings FAILED or UNDETERMINED that need no call, as the reason of the delivery or the code of an attempt. `fsck` finds
/// every other one that was not tried.
pub const UNCALLED_ENDINGS: [&str; 6] = [
    // Its channel was down, or its destination, and another took its place.
    REASON_CHANNEL_DOWN,
    // Its content is not in the books, or cannot be read by this program.
    "content_missing",
    "content_unreadable",
    "endpoint_disabled",
    // It came to the last number of attempts without one that could be begun.
    "never_begun",
    // Every worker that held it was lost before it called.
    "workers_lost",
];

/// A provider's list has what it took after this long, if it took it.
const LOOKUP_AFTER: Duration = Duration::from_secs(30);

/// A delivery ends when so many workers were lost while they held it. All but the first held it alone.
pub const MAX_WORKERS_LOST: i16 = 6;

/// The pause before a delivery is claimed again that could not be begun because the hub was late. It has nothing to do with the
/// channel's schedule, whose provider may be well. It hardly grows: to a minute after thousands of claims, so that
/// what can never be begun costs little.
fn late_pause(claims: i16, jitter: f64) -> Duration {
    Duration::from_secs(1 + u64::try_from(claims / 50).unwrap_or(0))
        .min(Duration::from_secs(60))
        .mul_f64(0.5 + 0.5 * jitter)
}

/// The law. `jitter` in 0..1.
///
/// An attempt is a call that was made or may have been made: whatever was certainly not begun, or not taken because the
/// provider was asked too fast, uses none, and has a pause and a bound of its own.
///
/// What never happens: FAILED, EXPIRED or CANCELED of something a provider may have taken; a retry that would start
/// after the message became worthless; a retry of an unknown outcome where the channel says hold; FAILED of a delivery of
/// which no call was made.
pub fn next_transition(
    head: &DeliveryFacts,
    outcome: &Outcome,
    policy: &RetryPolicy<'_>,
    on_unknown: OnUnknown,
    now: DateTime<Utc>,
    jitter: f64,
) -> Transition {
    let unknown = matches!(outcome, Outcome::Unknown { .. });
    let possibly_sent = head.possibly_sent || unknown;
    // Attempts that were given back do not count: each of them allowed one more.
    let failures = (head.attempt - (head.max_attempts - policy.max_attempts)).clamp(1, head.attempt.max(1));
    // The honest ending where no further attempt is made and none was accepted.
    let end = |status: Status, reason: &'static str| Transition {
        status: if possibly_sent { Status::Undetermined } else { status },
        ready_at: None,
        possibly_sent,
        refund: false,
        reason: Some(reason),
    };
    let again = |pause: Duration, reason: &'static str| {
        let at = now + pause;
        if head.cancel_requested {
            end(Status::Canceled, "canceled")
        } else if head.attempt >= head.max_attempts {
            end(Status::Failed, reason)
        } else if head.expires_at.is_some_and(|worthless| at >= worthless) {
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
    // Not used, and no longer than it is worth something: then it ends EXPIRED in time.
    let put_off = |pause: Duration, reason: &'static str| Transition {
        status: Status::Scheduled,
        ready_at: Some(head.expires_at.into_iter().fold(now + pause, Ord::min).max(now)),
        possibly_sent,
        refund: true,
        reason: Some(reason),
    };
    // Who names another channel wants it asked when this one refuses, not in days.
    let patient = !policy.throttle_patience.is_zero() && !head.has_fallback && head.attempt < MAX_ATTEMPT_NUMBER;
    let wait = |said: Option<Duration>, reason: &'static str| {
        let soonest = now + policy.throttled_pause(said, head.attempt, 0.0);
        if head.cancel_requested {
            end(Status::Canceled, "canceled")
        } else if head.expires_at.is_some_and(|worthless| soonest >= worthless) {
            end(Status::Expired, "expired_before_retry")
        } else {
            let at = now + policy.throttled_pause(said, head.attempt, jitter);
            let in_time = head.expires_at.map_or(at, |worthless| at.min(worthless - Duration::from_secs(1)));
            Transition { ready_at: Some(in_time.max(soonest)), ..put_off(Duration::ZERO, reason) }
        }
    };
    match outcome {
        Outcome::Accepted { .. } => {
            Transition { status: Status::Sent, ready_at: None, possibly_sent, refund: false, reason: None }
        }
        Outcome::Rejected { class, retry_after, .. } => match (class.action(), retry_after) {
            (RetryAction::Permanent, _) => end(Status::Failed, class.as_str()),
            // Another account of the channel may take it next; where all are down, its fallback takes its place.
            (RetryAction::BlockProvider, _) if head.cancel_requested => end(Status::Canceled, "canceled"),
            (RetryAction::BlockProvider, _) if head.attempt >= MAX_ATTEMPT_NUMBER => {
                end(Status::Failed, class.as_str())
            }
            (RetryAction::BlockProvider, _) => put_off(policy.exponential_pause(head.attempt, jitter), class.as_str()),
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
            // A long schedule is for definite refusals.
            OnUnknown::Retry if head.possibly_sent && failures >= policy.max_copies => end(Status::Undetermined, code),
            OnUnknown::Retry => again(policy.pause_after_failure(failures, jitter), code),
            OnUnknown::Lookup => again(policy.pause_after_failure(failures, jitter).max(LOOKUP_AFTER), code),
        },
        Outcome::Released | Outcome::Postponed | Outcome::Deferred { .. } if head.cancel_requested => {
            end(Status::Canceled, "canceled")
        }
        Outcome::Deferred { until, reason }
            if head.has_fallback && !possibly_sent && takes_fallback(*until - now, reason) =>
        {
            end(Status::Failed, REASON_CHANNEL_DOWN)
        }
        Outcome::Released => {
            Transition { status: Status::Pending, ready_at: Some(now), possibly_sent, refund: true, reason: None }
        }
        // It ends at the last number, and nothing failed: it did not go out in time.
        Outcome::Postponed | Outcome::Deferred { .. } if head.attempt >= MAX_ATTEMPT_NUMBER => {
            end(Status::Expired, "never_begun")
        }
        Outcome::Postponed => put_off(late_pause(head.attempt, jitter), "not_begun"),
        Outcome::Deferred { until, reason } => put_off((*until - now).to_std().unwrap_or_default(), reason),
        Outcome::Expired => end(Status::Expired, "expired"),
        Outcome::Canceled => end(Status::Canceled, "canceled"),
    }
}

/// Why a delivery waits: its destination, or the whole account, answered "too fast".
pub const REASON_DESTINATION_PACED: &str = "destination_paced";
/// Why a delivery waits: its destination failed again and again.
pub const REASON_DESTINATION_FAILING: &str = "destination_failing";

/// The reason of a delivery that was not called because another channel could be asked instead of waiting.
pub const REASON_CHANNEL_DOWN: &str = "channel_down";

/// For how long a delivery with a fallback waits until its destination may be called.
const MAX_WAIT_WITH_FALLBACK: TimeDelta = TimeDelta::seconds(60);

/// Whether a delivery with a fallback that has to wait so long, for this reason, goes over its other channel instead.
fn takes_fallback(wait: TimeDelta, reason: &str) -> bool {
    reason == REASON_DESTINATION_FAILING || reason == REASON_DESTINATION_PACED && wait > MAX_WAIT_WITH_FALLBACK
}

/// What the books say of the call that a lost worker was to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginRecord {
    /// Beginnings are recorded, and this one is not: nothing was called.
    Absent,
    /// It is on record: the call may have been made.
    Present,
    /// Its claimer records no beginnings, because a second copy does no harm: the call may have been made, and as well not.
    NotKept,
}

/// The law for a delivery whose worker was lost (its lease is over). `deaths`: how many were lost while they held it, this one
/// included. `on_unknown`: what the claimer went by.
///
/// Only a call on record uses an attempt: workers may be lost for reasons of their own again and again. What bounds it
/// instead is `deaths`, for a delivery that itself takes every worker with it. From the first on it is claimed alone, so
/// that it takes no other with it; from the second on it pauses, for longer each time.
pub fn transition_after_lost_worker(
    head: &DeliveryFacts,
    begun: BeginRecord,
    deaths: i16,
    on_unknown: OnUnknown,
    now: DateTime<Utc>,
) -> (Outcome, Transition) {
    let may_be_sent = begun != BeginRecord::Absent;
    let outcome = if may_be_sent {
        Outcome::Unknown { code: "worker_lost", detail: "the worker that held it stopped answering".into() }
    } else {
        Outcome::Released
    };
    let possibly_sent = head.possibly_sent || may_be_sent;
    let refund = begun != BeginRecord::Present;
    let pause = Duration::from_secs(match deaths {
        ..=1 => 0,
        more => 30 << (2 * u32::try_from(more - 2).unwrap_or(0).min(4)),
    });
    // The provider's list may not have yet what it took.
    let looked_up = begun == BeginRecord::Present && on_unknown == OnUnknown::Lookup;
    let at = now + if looked_up { pause.max(LOOKUP_AFTER) } else { pause };
    let ending = if may_be_sent && on_unknown == OnUnknown::Hold {
        Some((Status::Undetermined, "worker_lost"))
    } else if head.cancel_requested {
        Some((Status::Canceled, "worker_lost"))
    } else if head.expires_at.is_some_and(|worthless| at >= worthless) {
        Some((Status::Expired, "worker_lost"))
    } else if !refund && head.attempt >= head.max_attempts {
        Some((Status::Undetermined, "worker_lost"))
    } else if deaths >= MAX_WORKERS_LOST || head.attempt >= MAX_ATTEMPT_NUMBER {
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

/// The law for a dead letter that somebody wants to have tried again: how many attempts it may have then, or why not.
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
        // As many as a new one: so its pauses begin anew, too.
        // And where a provider can tell, it is asked first whether it has it.
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

    fn head() -> DeliveryFacts {
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

    fn step(head: &DeliveryFacts, outcome: &Outcome) -> Transition {
        next_transition(head, outcome, &RetryPolicy::default(), OnUnknown::Retry, now(), 1.0)
    }

    /// Every head × outcome leads along the table of transitions and keeps the promises.
    #[test]
    fn no_step_leaves_the_table_or_breaks_a_promise() {
        let classes = super::super::retry::RETRY_RULES.map(|row| row.class);
        let mut outcomes: Vec<Outcome> = classes.into_iter().map(rejected).collect();
        outcomes.push(unknown());
        outcomes.extend([Outcome::Released, Outcome::Postponed, Outcome::Expired, Outcome::Canceled]);
        outcomes.push(Outcome::deferred(now() + Duration::from_secs(9), "not_its_turn"));
        outcomes.push(Outcome::Accepted { provider_ref: None });
        for attempt in 1..=3 {
            for possibly_sent in [false, true] {
                for cancel_requested in [false, true] {
                    for expires_at in [None, Some(now()), Some(now() + Duration::from_secs(60))] {
                        let head = DeliveryFacts { attempt, possibly_sent, cancel_requested, expires_at, ..head() };
                        for on_unknown in [OnUnknown::Retry, OnUnknown::Lookup, OnUnknown::Hold] {
                            for outcome in &outcomes {
                                let step =
                                    next_transition(&head, outcome, &RetryPolicy::default(), on_unknown, now(), 0.3);
                                check(&head, outcome.kind(), on_unknown, &step);
                            }
                            for (begun, deaths) in
                                BEGUN.iter().flat_map(|b| (1..=MAX_WORKERS_LOST).map(move |n| (*b, n)))
                            {
                                let (outcome, step) =
                                    transition_after_lost_worker(&head, begun, deaths, on_unknown, now());
                                check(&head, outcome.kind(), on_unknown, &step);
                                let spent = step.ready_at.is_some() && !step.refund;
                                assert!(!spent || begun == BeginRecord::Present, "{begun:?} {step:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    fn check(head: &DeliveryFacts, outcome: OutcomeKind, on_unknown: OnUnknown, step: &Transition) {
        let said = format!("{head:?} {outcome:?} {on_unknown:?} -> {step:?}");
        assert!(TRANSITIONS.iter().any(|t| (t.0, t.1) == (head.status, step.status)), "{said}");
        if head.possibly_sent || outcome == OutcomeKind::Unknown {
            assert!(step.possibly_sent, "a doubt is never forgotten: {said}");
            assert!(!matches!(step.status, Status::Failed | Status::Expired | Status::Canceled), "{said}");
        }
        if outcome == OutcomeKind::Unknown && on_unknown == OnUnknown::Hold {
            assert_eq!(step.status, Status::Undetermined, "{said}");
        }
        let waits = matches!(step.status, Status::Pending | Status::Scheduled);
        assert_eq!(waits, step.ready_at.is_some(), "{said}");
        if waits {
            assert!(head.attempt < head.max_attempts + i16::from(step.refund), "an attempt is left: {said}");
        }
        if step.status == Status::Scheduled {
            let last =
                |worthless: DateTime<Utc>| if step.refund { Some(worthless.max(now())) } else { Some(worthless) };
            assert!(head.expires_at.is_none_or(|worthless| step.ready_at <= last(worthless)), "{said}");
        }
    }

    /// S3-13: what the provider says decides between success and failure.
    #[test]
    fn an_answer_decides() {
        assert_eq!(step(&head(), &Outcome::Accepted { provider_ref: None }).status, Status::Sent);
        assert_eq!(step(&head(), &rejected(ErrorClass::Content)).status, Status::Failed);
        assert_eq!(step(&head(), &rejected(ErrorClass::Unreachable)).status, Status::Scheduled);
        let last = DeliveryFacts { attempt: 3, ..head() };
        assert_eq!(step(&last, &rejected(ErrorClass::Unreachable)).status, Status::Failed);
        assert_eq!(step(&last, &unknown()).status, Status::Undetermined);
    }

    /// Nobody knows for how long it will not serve us: what it refused waits, whoever stands by.
    #[test]
    fn what_stops_a_provider_ends_no_message() {
        let refused = rejected(ErrorClass::Credentials);
        for (has_fallback, possibly_sent) in [(false, false), (true, false), (true, true)] {
            let step = step(&DeliveryFacts { has_fallback, possibly_sent, ..head() }, &refused);
            assert_eq!((step.status, step.refund), (Status::Scheduled, true), "another account may take it");
        }
    }

    /// Who asks gets a dead letter tried again as often as a new one, but for what must not be sent twice.
    #[test]
    fn dead_letters_are_tried_again_when_somebody_asks() {
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

    /// What may have been taken is not looked for before it can be found.
    #[test]
    fn a_lost_call_is_looked_up_when_the_list_has_it() {
        let after = |begun, on_unknown| transition_after_lost_worker(&head(), begun, 1, on_unknown, now()).1;
        let looked_up = after(BeginRecord::Present, OnUnknown::Lookup);
        assert_eq!((looked_up.status, looked_up.ready_at), (Status::Scheduled, Some(now() + LOOKUP_AFTER)));
        assert!(!looked_up.refund, "the call may have been made");
        for (begun, on_unknown) in [(BeginRecord::Absent, OnUnknown::Lookup), (BeginRecord::NotKept, OnUnknown::Retry)]
        {
            let step = after(begun, on_unknown);
            assert_eq!((step.status, step.ready_at, step.refund), (Status::Scheduled, Some(now()), true));
        }
    }

    /// Fault A1: however many workers are lost, no attempt is used; what takes each with it ends in an hour, and says why.
    #[test]
    fn lost_workers_use_no_attempt_and_are_bounded() {
        for (begun, ending) in [(BeginRecord::Absent, Status::Failed), (BeginRecord::NotKept, Status::Undetermined)] {
            let (mut head, mut waited) = (DeliveryFacts { max_attempts: 1, ..head() }, Vec::new());
            for deaths in 1..MAX_WORKERS_LOST {
                let step = transition_after_lost_worker(&head, begun, deaths, OnUnknown::Retry, now()).1;
                assert_eq!((step.status, step.refund), (Status::Scheduled, true), "{begun:?} {deaths}");
                waited.push((step.ready_at.unwrap() - now()).num_seconds());
                head.attempt += 1;
                head.max_attempts += 1;
                head.possibly_sent |= step.possibly_sent;
            }
            assert_eq!(waited, [0, 30, 120, 480, 1920]);
            let step = transition_after_lost_worker(&head, begun, MAX_WORKERS_LOST, OnUnknown::Retry, now()).1;
            assert_eq!((step.status, step.reason), (ending, Some("workers_lost")));
        }
    }

    /// Fault A3: what was not begun because the hub was late is soon tried again, however often it was claimed before.
    #[test]
    fn a_late_hub_does_not_take_the_channels_schedule() {
        let late = |attempt| {
            let head = DeliveryFacts { attempt, max_attempts: attempt + 2, ..head() };
            let step =
                next_transition(&head, &Outcome::Postponed, &RetryPolicy::default(), OnUnknown::Retry, now(), 1.0);
            (step.status, step.refund, (step.ready_at.unwrap() - now()).num_seconds())
        };
        assert_eq!([late(1), late(11)], [(Status::Scheduled, true, 1); 2]);
        assert_eq!(late(5_000), (Status::Scheduled, true, 60));
        let head = DeliveryFacts { attempt: MAX_ATTEMPT_NUMBER, max_attempts: MAX_ATTEMPT_NUMBER + 2, ..head() };
        assert_eq!(step(&head, &Outcome::Postponed).status, Status::Expired, "nothing failed");
    }

    /// Fault E1: a provider that is asked too fast costs no attempt while there is patience, nor where nobody stands by.
    #[test]
    fn throttled_uses_no_attempt_for_as_long_as_there_is_patience() {
        let refused = Outcome::Rejected {
            class: ErrorClass::Throttled,
            code: "x".into(),
            detail: String::new(),
            retry_after: Some(Duration::from_secs(30)),
        };
        let last = DeliveryFacts { attempt: 3, ..head() };
        let waits = step(&last, &refused);
        assert_eq!((waits.status, waits.refund, waits.reason), (Status::Scheduled, true, Some("throttled")));
        assert_eq!(step(&DeliveryFacts { has_fallback: true, ..last }, &refused).status, Status::Failed);
        let impatient = RetryPolicy::default().after_waiting(Duration::from_secs(48 * 3600));
        let by = |head: &DeliveryFacts| next_transition(head, &refused, &impatient, OnUnknown::Retry, now(), 1.0);
        assert_eq!((by(&last).status, by(&head()).refund), (Status::Failed, false));
        let worthless = |seconds| {
            let head = DeliveryFacts { expires_at: Some(now() + Duration::from_secs(seconds)), ..last };
            let step = step(&head, &refused);
            (step.status, step.ready_at.map(|at| (at - now()).num_seconds()))
        };
        assert_eq!([worthless(30), worthless(31)], [(Status::Expired, None), (Status::Scheduled, Some(30))]);
    }

    /// A long schedule sends no more copies than a short one of what may have been taken.
    #[test]
    fn unknown_outcomes_do_not_fill_a_mailbox() {
        let policy =
            RetryPolicy { max_copies: 3, ..RetryPolicy::default().with_schedule(&super::super::retry::EMAIL_SCHEDULE) };
        let (max_attempts, mut head) = (policy.max_attempts, head());
        head.max_attempts = max_attempts;
        let after = |attempt, possibly_sent| {
            let head = DeliveryFacts { attempt, possibly_sent, ..head };
            next_transition(&head, &unknown(), &policy, OnUnknown::Retry, now(), 0.0).status
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
