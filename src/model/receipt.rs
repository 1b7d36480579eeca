//! Receipts: what a provider tells later of what it took.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::delivery::Key;
use super::retry::ErrorClass;

/// One piece of news about one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The same for the same piece of news however often it comes: the provider's own id of it, or one made of what it says.
    pub event_key: String,
    /// What we asked the provider to repeat; none: it did not, or it is not ours.
    pub reference: Option<Reference>,
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
pub struct Reference {
    pub key: Key,
    pub attempt: i16,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nh-{}-{}-{}-{}", self.key.shard, self.key.message_id, self.key.no, self.attempt)
    }
}

impl FromStr for Reference {
    type Err = ();

    /// Only what `Display` writes.
    fn from_str(text: &str) -> Result<Reference, ()> {
        let mut parts = text.strip_prefix("nh-").ok_or(())?.split('-');
        let mut next = || parts.next().ok_or(());
        let number = |text: &str| text.parse::<i16>().ok().filter(|n| *n >= 0).ok_or(());
        let (shard, message_id) = (number(next()?)?, next()?.parse().map_err(|_| ())?);
        let (no, attempt) = (number(next()?)?, number(next()?)?);
        let reference = Reference { key: Key { shard, message_id, no }, attempt };
        if reference.to_string() == text { Ok(reference) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Tsid;

    #[test]
    fn a_reference_comes_back_as_it_went() {
        let key = Key { shard: 7, message_id: Tsid(700_000_000_000_000_000), no: 12 };
        let reference = Reference { key, attempt: 3 };
        let text = reference.to_string();
        assert_eq!(text.parse(), Ok(reference));
        for wrong in
            ["", "nh-", "nh-7", &format!("{text}-1"), &text.replace("nh-7", "nh-07"), &text.replace("nh-7", "nh--7")]
        {
            assert_eq!(wrong.parse::<Reference>(), Err(()), "{wrong}");
        }
    }
}
