//! Receipts: what a provider tells later of what it took; and the law of what follows from them (`weigh`). It looks at all
//! that is known of a delivery's attempts and not at what came last, so it comes to the same end in whatever order, and however
//! often, receipts come.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::delivery::{DeliveryKey, OutcomeKind, Status};
use super::retry::ErrorClass;

/// One piece of news about one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The same for the same piece of news however often it comes: the provider's own id of it, or one made of what it says.
    pub event_key: String,
    /// What we asked the provider to repeat; none: it did not, or it is not ours.
    pub reference: Option<AttemptReference>,
    /// The provider's own id of the message.
    pub provider_ref: Option<String>,
    pub outcome: ReceiptOutcome,
    /// Of FAILED: why.
    pub class: Option<ErrorClass>,
    /// The provider's own words.
    pub code: Option<String>,
    pub detail: Option<String>,
    /// As the provider says. For people: what counts is not decided by clocks.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// What it says became of it, from the least to the most that can be known: a higher one is never undone by a lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptOutcome {
    /// Taken, and on its way.
    Accepted,
    /// Given up by the vendor: not delivered in time.
    Expired,
    /// Refused on its way.
    Failed,
    Delivered,
}

pub const RECEIPT_OUTCOMES: [ReceiptOutcome; 4] =
    [ReceiptOutcome::Accepted, ReceiptOutcome::Expired, ReceiptOutcome::Failed, ReceiptOutcome::Delivered];

impl ReceiptOutcome {
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

/// One attempt of one delivery, as providers carry it for us: `nh-{shard}-{messageId}-{no}-{attempt}`.
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

    /// Only what `Display` writes.
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

/// An attempt, as far as it tells what became of its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEvidence {
    pub attempt: i16,
    pub outcome: OutcomeKind,
    /// None: nobody noted it before the worker was lost.
    pub provider: Option<String>,
    /// The most that receipts said of it, and why.
    pub receipt: Option<ReceiptOutcome>,
    pub reason: Option<String>,
}

/// What one attempt tells, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AttemptVerdict {
    Nothing,
    Expired,
    Failed,
    /// It may have been taken.
    Unknown,
    Taken,
    Delivered,
}

impl AttemptEvidence {
    fn verdict(&self, overdue: bool) -> AttemptVerdict {
        use OutcomeKind::{Accepted, InFlight, NotCalled, Rejected, Unknown};
        match (self.outcome, self.receipt) {
            // Whatever was answered: it arrived.
            (_, Some(ReceiptOutcome::Delivered)) => AttemptVerdict::Delivered,
            (Rejected | NotCalled, _) => AttemptVerdict::Nothing,
            (_, Some(ReceiptOutcome::Failed)) => AttemptVerdict::Failed,
            (_, Some(ReceiptOutcome::Expired)) => AttemptVerdict::Expired,
            // That it was taken was known when we gave up to wait for more.
            (_, Some(ReceiptOutcome::Accepted)) | (Accepted, None) if overdue => AttemptVerdict::Unknown,
            (_, Some(ReceiptOutcome::Accepted)) | (Accepted, None) => AttemptVerdict::Taken,
            (Unknown | InFlight, None) => AttemptVerdict::Unknown,
        }
    }
}

/// A delivery as receipts find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryState {
    pub status: Status,
    /// It is UNDETERMINED because no receipt came in time.
    pub receipt_overdue: bool,
    /// It waits because somebody asked for it again: what was known before is no news, but that it arrived.
    pub redriven: bool,
}

/// What receipts make of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    pub status: Status,
    /// The attempt that tells it.
    pub attempt: i16,
    pub reason: Option<String>,
}

/// Why a delivery ended UNDETERMINED that a provider had taken.
pub const NO_RECEIPT: &str = "no_receipt";
/// Why one FAILED of which the provider did not say why.
pub const RECEIPT_FAILED: &str = "receipt_failed";
pub const RECEIPT_EXPIRED: &str = "receipt_expired";
pub const RECEIPT_ACCEPTED: &str = "receipt_accepted";

/// The law: what follows from all that is known of a delivery's attempts. None: it stands as it should.
///
/// What a worker holds is not touched: receipts wait for its answer. What waits to be tried again is called off by the word
/// that it was taken, and by the last word on the only copies there are: without the lost answer it would not wait.
pub fn correction(head: DeliveryState, attempts: &[AttemptEvidence]) -> Option<Correction> {
    use Status::{Expired, Failed, Pending, Processing, Scheduled, Sent, Undetermined};
    let fate = |t: &AttemptEvidence| t.verdict(head.receipt_overdue);
    let best = attempts.iter().rev().max_by_key(|t| fate(t))?;
    let failed = attempts.iter().any(|t| matches!(fate(t), AttemptVerdict::Failed | AttemptVerdict::Expired));
    let status = match (head.status, fate(best)) {
        (Processing, _) => None,
        (_, AttemptVerdict::Delivered) => Some(Status::Delivered),
        (Scheduled | Pending, _) if head.redriven => None,
        (Scheduled | Pending | Undetermined, AttemptVerdict::Taken) => Some(Sent),
        (Scheduled | Pending | Sent | Undetermined | Expired, AttemptVerdict::Failed) => Some(Failed),
        (Scheduled | Pending | Sent | Undetermined, AttemptVerdict::Expired) => Some(Expired),
        // A copy that was taken failed, and another may have been taken.
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
    let lift = status.filter(|status| *status != head.status);
    lift.map(|status| Correction { status, attempt: best.attempt, reason: reason(status) })
}

/// What a receipt meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptMatch {
    /// Its attempt is in a worker's hands: it is looked at again soon.
    InProgress,
    /// No attempt of ours, or another provider's.
    NoAttempt,
    /// This one of the attempts.
    Attempt(usize),
}

/// Which of a delivery's attempts a provider's receipt is about.
pub fn match_receipt(status: Status, attempts: &[AttemptEvidence], provider: &str, attempt: i16) -> ReceiptMatch {
    if status == Status::Processing {
        return ReceiptMatch::InProgress;
    }
    // Where no provider was noted, one was asked only if nobody knows what it said.
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

    fn tried(attempt: i16, outcome: OutcomeKind) -> AttemptEvidence {
        AttemptEvidence { attempt, outcome, provider: None, receipt: None, reason: None }
    }

    /// One receipt after the other, each weighed at once.
    fn apply(
        mut head: DeliveryState,
        mut attempts: Vec<AttemptEvidence>,
        receipts: &[(usize, ReceiptOutcome)],
    ) -> (Status, Vec<AttemptEvidence>) {
        for (n, outcome) in receipts {
            let tried = &mut attempts[*n];
            tried.receipt = tried.receipt.max(Some(*outcome));
            if let Some(lift) = correction(head, &attempts) {
                let step = (head.status, lift.status);
                assert!(TRANSITIONS.iter().any(|t| (t.0, t.1) == step), "{step:?} is not in the table");
                assert!(
                    correction(DeliveryState { status: lift.status, ..head }, &attempts).is_none(),
                    "once is enough"
                );
                head = DeliveryState { status: lift.status, receipt_overdue: false, ..head };
            }
        }
        (head.status, attempts)
    }

    /// F18, I7: whatever the attempts came to, and wherever the delivery stood, every order of every pair and triple of receipts
    /// about two attempts, with repetitions, comes to the same end.
    #[test]
    fn every_order_of_receipts_comes_to_the_same_end() {
        let all: Vec<(usize, ReceiptOutcome)> = RECEIPT_OUTCOMES.into_iter().flat_map(|o| [(0, o), (1, o)]).collect();
        for (first, second) in OUTCOMES.into_iter().flat_map(|a| OUTCOMES.map(|b| (a, b))) {
            let attempts = vec![tried(1, first), tried(2, second)];
            let taken = [first, second].contains(&OutcomeKind::Accepted);
            let unknown = [first, second].contains(&OutcomeKind::Unknown);
            let statuses: &[Status] = match (taken, unknown) {
                (true, _) => &[Status::Sent],
                (false, true) => &[Status::Undetermined, Status::Pending, Status::Scheduled],
                (false, false) => &[Status::Failed, Status::Pending, Status::Canceled, Status::Expired],
            };
            for status in statuses {
                let head = DeliveryState { status: *status, receipt_overdue: false, redriven: false };
                for a in &all {
                    for b in &all {
                        for c in &all {
                            let end = apply(head, attempts.clone(), &[*a, *b, *c]);
                            for order in [[*c, *b, *a], [*b, *a, *c], [*c, *a, *b]] {
                                let again: Vec<_> = order.into_iter().chain([*a, *b]).collect();
                                let said = format!("{first:?} {second:?} {status} {order:?}");
                                assert_eq!(apply(head, attempts.clone(), &again), end, "{said}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_waited_too_long_is_lifted_by_news_alone() {
        let head = DeliveryState { status: Status::Undetermined, receipt_overdue: true, redriven: false };
        let one = |receipt| vec![AttemptEvidence { receipt, ..tried(1, OutcomeKind::Accepted) }];
        assert_eq!(correction(head, &one(Some(ReceiptOutcome::Accepted))), None);
        let to = |receipt| correction(head, &one(Some(receipt))).unwrap().status;
        assert_eq!(to(ReceiptOutcome::Failed), Status::Failed);
        assert_eq!(to(ReceiptOutcome::Delivered), Status::Delivered);
    }

    /// What somebody asked for again waits for its turn, whatever was known before; that it arrived ends it.
    #[test]
    fn what_was_redriven_is_ended_by_its_arrival_alone() {
        let head = DeliveryState { status: Status::Scheduled, receipt_overdue: false, redriven: true };
        let one = |receipt| vec![AttemptEvidence { receipt, ..tried(1, OutcomeKind::Accepted) }];
        for receipt in
            [None, Some(ReceiptOutcome::Accepted), Some(ReceiptOutcome::Expired), Some(ReceiptOutcome::Failed)]
        {
            assert_eq!(correction(head, &one(receipt)), None, "{receipt:?}");
        }
        assert_eq!(correction(head, &one(Some(ReceiptOutcome::Delivered))).unwrap().status, Status::Delivered);
    }

    /// A receipt is no other provider's business, and never about what a worker holds.
    #[test]
    fn a_receipt_meets_its_own_providers_attempt() {
        let mut attempts = vec![tried(1, OutcomeKind::Unknown), tried(2, OutcomeKind::Accepted)];
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
        assert_eq!(match_receipt(Status::Sent, &attempts, "b", 1), ReceiptMatch::NoAttempt, "it called nobody");
        assert_eq!(match_receipt(Status::Processing, &attempts, "a", 2), ReceiptMatch::InProgress);
    }

    #[test]
    fn a_reference_comes_back_as_it_went() {
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
