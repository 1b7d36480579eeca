//! Receipts: what a provider reports later about a message that it accepted, and `correction`, which decides how
//! receipts change a delivery. The decision depends on everything known about the delivery's attempts and not on which
//! receipt came last, so every order and every repetition of receipts leads to the same status.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::delivery::{DeliveryKey, OutcomeKind, Status};
use super::retry::ErrorClass;

/// One report about one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Deduplication key: equal for the same report however often it comes. The provider's own id of the report, or a
    /// hash of its content.
    pub event_key: String,
    /// Our attempt reference, if the provider repeated it; `None`: it did not, or the message is not ours.
    pub reference: Option<AttemptReference>,
    /// The provider's id of the message.
    pub provider_ref: Option<String>,
    pub outcome: ReceiptOutcome,
    /// The error class of a FAILED report.
    pub class: Option<ErrorClass>,
    /// The provider's own code.
    pub code: Option<String>,
    pub detail: Option<String>,
    /// Time given by the provider. For display only: no decision depends on a provider's clock.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// What a receipt reports, from the weakest evidence to the strongest. A weaker report never undoes a stronger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptOutcome {
    /// Accepted and on its way.
    Accepted,
    /// The provider gave up: not delivered in time.
    Expired,
    /// Failed after it was accepted.
    Failed,
    Delivered,
}

/// Every receipt outcome, from the weakest to the strongest.
pub const RECEIPT_OUTCOMES: [ReceiptOutcome; 4] =
    [ReceiptOutcome::Accepted, ReceiptOutcome::Expired, ReceiptOutcome::Failed, ReceiptOutcome::Delivered];

impl ReceiptOutcome {
    /// The stable word in the database and the API, such as `DELIVERED`.
    pub fn as_str(self) -> &'static str {
        match self {
            ReceiptOutcome::Accepted => "ACCEPTED",
            ReceiptOutcome::Expired => "EXPIRED",
            ReceiptOutcome::Failed => "FAILED",
            ReceiptOutcome::Delivered => "DELIVERED",
        }
    }
}

impl FromStr for ReceiptOutcome {
    type Err = String;

    fn from_str(text: &str) -> Result<ReceiptOutcome, String> {
        let found = RECEIPT_OUTCOMES.into_iter().find(|o| o.as_str() == text);
        found.ok_or_else(|| format!("no such outcome of a receipt: {text}"))
    }
}

/// The reference of an attempt that providers repeat in receipts: `nh-{shard}-{messageId}-{no}-{attempt}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptReference {
    pub key: DeliveryKey,
    pub attempt: i16,
}

impl fmt::Display for AttemptReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nh-{}-{}-{}-{}", self.key.shard, self.key.message_id, self.key.no, self.attempt)
    }
}

impl FromStr for AttemptReference {
    type Err = ();

    /// Accepts exactly what `Display` writes.
    fn from_str(text: &str) -> Result<AttemptReference, ()> {
        let mut parts = text.strip_prefix("nh-").ok_or(())?.split('-');
        let mut next = || parts.next().ok_or(());
        let number = |text: &str| text.parse::<i16>().ok().filter(|n| *n >= 0).ok_or(());
        let (shard, message_id) = (number(next()?)?, next()?.parse().map_err(|_| ())?);
        let (no, attempt) = (number(next()?)?, number(next()?)?);
        let reference = AttemptReference { key: DeliveryKey { shard, message_id, no }, attempt };
        if reference.to_string() == text { Ok(reference) } else { Err(()) }
    }
}

/// What is known about one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEvidence {
    pub attempt: i16,
    pub outcome: OutcomeKind,
    /// The provider's name; `None` if the worker was lost before it recorded one.
    pub provider: Option<String>,
    /// The strongest receipt about it …
    pub receipt: Option<ReceiptOutcome>,
    /// … and that receipt's reason.
    pub reason: Option<String>,
}

/// What one attempt proves, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AttemptVerdict {
    Nothing,
    Expired,
    Failed,
    /// The provider may have accepted it.
    Unknown,
    Taken,
    Delivered,
}

impl AttemptEvidence {
    fn verdict(&self, receipt_overdue: bool) -> AttemptVerdict {
        use OutcomeKind::{Accepted, InFlight, NotCalled, Rejected, Unknown};
        match (self.outcome, self.receipt) {
            // It arrived, whatever the answer was.
            (_, Some(ReceiptOutcome::Delivered)) => AttemptVerdict::Delivered,
            (Rejected | NotCalled, _) => AttemptVerdict::Nothing,
            (_, Some(ReceiptOutcome::Failed)) => AttemptVerdict::Failed,
            (_, Some(ReceiptOutcome::Expired)) => AttemptVerdict::Expired,
            // Its acceptance was known already when waiting for a receipt ended.
            (_, Some(ReceiptOutcome::Accepted)) | (Accepted, None) if receipt_overdue => AttemptVerdict::Unknown,
            (_, Some(ReceiptOutcome::Accepted)) | (Accepted, None) => AttemptVerdict::Taken,
            (Unknown | InFlight, None) => AttemptVerdict::Unknown,
        }
    }
}

/// The state of a delivery when a receipt is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryState {
    pub status: Status,
    /// UNDETERMINED because no receipt came in time.
    pub receipt_overdue: bool,
    /// Waiting after a redrive. Evidence from before the redrive is ignored, except DELIVERED.
    pub redriven: bool,
}

/// The status that receipts give a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    pub status: Status,
    /// The attempt whose evidence decides.
    pub attempt: i16,
    pub reason: Option<String>,
}

/// Reason of an accepted delivery that ended UNDETERMINED because no receipt came.
pub const NO_RECEIPT: &str = "no_receipt";
/// Reason of a failed delivery whose receipt names no cause.
pub const RECEIPT_FAILED: &str = "receipt_failed";
/// Reason of a delivery that the provider gave up.
pub const RECEIPT_EXPIRED: &str = "receipt_expired";
/// Reason of a delivery whose acceptance only a receipt reported.
pub const RECEIPT_ACCEPTED: &str = "receipt_accepted";

/// Decides how the evidence about `attempts` (in any order) changes a delivery. `None`: its status is right already.
/// Applying a correction and deciding again gives `None`.
///
/// A PROCESSING delivery is not changed: receipts wait until its worker has settled it. A waiting retry is canceled by
/// evidence that the message was accepted, and by a final failure of the only copies that may exist.
pub fn correction(state: DeliveryState, attempts: &[AttemptEvidence]) -> Option<Correction> {
    use Status::{Expired, Failed, Pending, Processing, Scheduled, Sent, Undetermined};
    let verdict = |t: &AttemptEvidence| t.verdict(state.receipt_overdue);
    let best = attempts.iter().rev().max_by_key(|t| verdict(t))?;
    let failed = attempts.iter().any(|t| matches!(verdict(t), AttemptVerdict::Failed | AttemptVerdict::Expired));
    let status = match (state.status, verdict(best)) {
        (Processing, _) => None,
        (_, AttemptVerdict::Delivered) => Some(Status::Delivered),
        (Scheduled | Pending, _) if state.redriven => None,
        (Scheduled | Pending | Undetermined, AttemptVerdict::Taken) => Some(Sent),
        (Scheduled | Pending | Sent | Undetermined | Expired, AttemptVerdict::Failed) => Some(Failed),
        (Scheduled | Pending | Sent | Undetermined, AttemptVerdict::Expired) => Some(Expired),
        // An accepted copy failed, and another copy may have been accepted.
        (Sent, AttemptVerdict::Unknown) => Some(Undetermined),
        (Scheduled | Pending, AttemptVerdict::Unknown) if failed => Some(Undetermined),
        _ => None,
    };
    let reason = |status| match status {
        Sent => Some(RECEIPT_ACCEPTED.to_owned()),
        Failed | Undetermined => Some(best.reason.clone().unwrap_or_else(|| RECEIPT_FAILED.to_owned())),
        Expired => Some(RECEIPT_EXPIRED.to_owned()),
        _ => None,
    };
    let changed = status.filter(|status| *status != state.status);
    changed.map(|status| Correction { status, attempt: best.attempt, reason: reason(status) })
}

/// The attempt that a receipt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptMatch {
    /// The delivery is PROCESSING: look again soon.
    InProgress,
    /// No attempt of ours, or an attempt with another provider.
    NoAttempt,
    /// Index of the attempt in the list.
    Attempt(usize),
}

/// Finds the attempt that a receipt of `provider` with this attempt number is about.
pub fn match_receipt(status: Status, attempts: &[AttemptEvidence], provider: &str, attempt: i16) -> ReceiptMatch {
    if status == Status::Processing {
        return ReceiptMatch::InProgress;
    }
    // An attempt without a recorded provider called one only if its outcome is unknown or open.
    let asked = |t: &AttemptEvidence| match &t.provider {
        Some(asked) => asked == provider,
        None => matches!(t.outcome, OutcomeKind::InFlight | OutcomeKind::Unknown),
    };
    attempts
        .iter()
        .position(|t| t.attempt == attempt && asked(t))
        .map_or(ReceiptMatch::NoAttempt, ReceiptMatch::Attempt)
}

#[cfg(test)]
mod tests {
    use super::super::delivery::TRANSITIONS;
    use super::*;
    use crate::id::Tsid;

    const OUTCOMES: [OutcomeKind; 4] =
        [OutcomeKind::Accepted, OutcomeKind::Rejected, OutcomeKind::Unknown, OutcomeKind::NotCalled];

    fn evidence(attempt: i16, outcome: OutcomeKind) -> AttemptEvidence {
        AttemptEvidence { attempt, outcome, provider: None, receipt: None, reason: None }
    }

    /// One receipt after the other, each weighed at once.
    fn apply(
        mut state: DeliveryState,
        mut attempts: Vec<AttemptEvidence>,
        receipts: &[(usize, ReceiptOutcome)],
    ) -> (Status, Vec<AttemptEvidence>) {
        for (n, outcome) in receipts {
            let evidence = &mut attempts[*n];
            evidence.receipt = evidence.receipt.max(Some(*outcome));
            if let Some(changed) = correction(state, &attempts) {
                let step = (state.status, changed.status);
                assert!(TRANSITIONS.iter().any(|t| (t.0, t.1) == step), "{step:?} is not in the table");
                assert!(
                    correction(DeliveryState { status: changed.status, ..state }, &attempts).is_none(),
                    "once is enough"
                );
                state = DeliveryState { status: changed.status, receipt_overdue: false, ..state };
            }
        }
        (state.status, attempts)
    }

    /// F18, I7: for all outcomes of two attempts and every status of the delivery, every order and repetition of two or
    /// three receipts leads to the same status.
    #[test]
    fn every_order_of_receipts_gives_the_same_status() {
        let all: Vec<(usize, ReceiptOutcome)> = RECEIPT_OUTCOMES.into_iter().flat_map(|o| [(0, o), (1, o)]).collect();
        for (first, second) in OUTCOMES.into_iter().flat_map(|a| OUTCOMES.map(|b| (a, b))) {
            let attempts = vec![evidence(1, first), evidence(2, second)];
            let taken = [first, second].contains(&OutcomeKind::Accepted);
            let unknown = [first, second].contains(&OutcomeKind::Unknown);
            let statuses: &[Status] = match (taken, unknown) {
                (true, _) => &[Status::Sent],
                (false, true) => &[Status::Undetermined, Status::Pending, Status::Scheduled],
                (false, false) => &[Status::Failed, Status::Pending, Status::Canceled, Status::Expired],
            };
            for status in statuses {
                let state = DeliveryState { status: *status, receipt_overdue: false, redriven: false };
                for a in &all {
                    for b in &all {
                        for c in &all {
                            let end = apply(state, attempts.clone(), &[*a, *b, *c]);
                            for order in [[*c, *b, *a], [*b, *a, *c], [*c, *a, *b]] {
                                let again: Vec<_> = order.into_iter().chain([*a, *b]).collect();
                                let said = format!("{first:?} {second:?} {status} {order:?}");
                                assert_eq!(apply(state, attempts.clone(), &again), end, "{said}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn overdue_delivery_changes_only_by_new_evidence() {
        let state = DeliveryState { status: Status::Undetermined, receipt_overdue: true, redriven: false };
        let one = |receipt| vec![AttemptEvidence { receipt, ..evidence(1, OutcomeKind::Accepted) }];
        assert_eq!(correction(state, &one(Some(ReceiptOutcome::Accepted))), None);
        let to = |receipt| correction(state, &one(Some(receipt))).unwrap().status;
        assert_eq!(to(ReceiptOutcome::Failed), Status::Failed);
        assert_eq!(to(ReceiptOutcome::Delivered), Status::Delivered);
    }

    /// A redriven delivery waits for its next attempt whatever was known before; only DELIVERED ends it.
    #[test]
    fn redriven_delivery_is_ended_only_by_delivered() {
        let state = DeliveryState { status: Status::Scheduled, receipt_overdue: false, redriven: true };
        let one = |receipt| vec![AttemptEvidence { receipt, ..evidence(1, OutcomeKind::Accepted) }];
        for receipt in
            [None, Some(ReceiptOutcome::Accepted), Some(ReceiptOutcome::Expired), Some(ReceiptOutcome::Failed)]
        {
            assert_eq!(correction(state, &one(receipt)), None, "{receipt:?}");
        }
        assert_eq!(correction(state, &one(Some(ReceiptOutcome::Delivered))).unwrap().status, Status::Delivered);
    }

    /// A receipt matches only attempts of its own provider, and never a delivery that a worker holds.
    #[test]
    fn receipt_matches_only_attempts_of_its_provider() {
        let mut attempts = vec![evidence(1, OutcomeKind::Unknown), evidence(2, OutcomeKind::Accepted)];
        attempts[1].provider = Some("a".into());
        assert_eq!(match_receipt(Status::Sent, &attempts, "a", 2), ReceiptMatch::Attempt(1));
        assert_eq!(match_receipt(Status::Sent, &attempts, "b", 2), ReceiptMatch::NoAttempt);
        assert_eq!(
            match_receipt(Status::Sent, &attempts, "b", 1),
            ReceiptMatch::Attempt(0),
            "whose it was is not known"
        );
        assert_eq!(match_receipt(Status::Sent, &attempts, "a", 3), ReceiptMatch::NoAttempt);
        attempts[0].outcome = OutcomeKind::NotCalled;
        assert_eq!(match_receipt(Status::Sent, &attempts, "b", 1), ReceiptMatch::NoAttempt, "the attempt made no call");
        assert_eq!(match_receipt(Status::Processing, &attempts, "a", 2), ReceiptMatch::InProgress);
    }

    #[test]
    fn attempt_reference_round_trips() {
        let key = DeliveryKey { shard: 7, message_id: Tsid(700_000_000_000_000_000), no: 12 };
        let reference = AttemptReference { key, attempt: 3 };
        let text = reference.to_string();
        assert_eq!(text.parse(), Ok(reference));
        for wrong in
            ["", "nh-", "nh-7", &format!("{text}-1"), &text.replace("nh-7", "nh-07"), &text.replace("nh-7", "nh--7")]
        {
            assert_eq!(wrong.parse::<AttemptReference>(), Err(()), "{wrong}");
        }
    }
}
