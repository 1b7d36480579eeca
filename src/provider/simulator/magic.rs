//! Magic recipients: unassigned numbers and user keys for which every simulator shows the same failure, in its vendor's
//! own codes. The table is shown by `notihub simulate --help` and in the document `simulators`.

use crate::model::retry::ErrorClass;

/// A recipient with a fixed effect: the number +82 10-0000-00NN or, where recipients are not numbers, the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MagicRecipient {
    pub number: u8,
    pub word: &'static str,
    pub effect: Effect,
    pub description: &'static str,
}

/// What happens to a message to a magic recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The message is not accepted.
    Refuse(RefusalReason),
    /// The whole request fails every other time that the same text is sent to the same recipient: the first attempt
    /// fails, and the next succeeds.
    Fault(RequestFault),
    /// The message is accepted; its receipts are unusual.
    Accept(ReceiptPlan),
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    Address,
    Internal,
    OptedOut,
    /// Refuses the whole request.
    Credentials,
    Balance,
}

impl RefusalReason {
    /// Returns the class that adapters give this refusal.
    pub fn class(self) -> ErrorClass {
        match self {
            RefusalReason::Address => ErrorClass::Address,
            RefusalReason::Internal => ErrorClass::ProviderInternal,
            RefusalReason::OptedOut => ErrorClass::OptedOut,
            RefusalReason::Credentials => ErrorClass::Credentials,
            RefusalReason::Balance => ErrorClass::Quota,
        }
    }
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFault {
    /// The message is accepted, and the connection closed without a response.
    Cut,
    /// The message is accepted, and no response is sent.
    Hang,
    /// The connection is closed before the message is accepted.
    CutBefore,
    /// Too many requests: the message is not accepted, and to be repeated after a second.
    Limit,
}

/// The receipts of an accepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptPlan {
    Late,
    Never,
    Expired,
    Failed,
    NotAUser,
    Early,
    Twice,
    Reordered,
    Changed,
    Lost,
}

const fn magic(number: u8, word: &'static str, effect: Effect, description: &'static str) -> MagicRecipient {
    MagicRecipient { number, word, effect, description }
}

/// All magic recipients, by number from 1.
pub const TABLE: [MagicRecipient; 19] = {
    use Effect::{Accept, Fault, Refuse};
    [
        magic(1, "fail", Refuse(RefusalReason::Address), "refused permanently: the recipient does not exist"),
        magic(2, "temporary", Refuse(RefusalReason::Internal), "refused temporarily, each time"),
        magic(3, "late", Accept(ReceiptPlan::Late), "delivered; the receipt is sent after 10 minutes"),
        magic(4, "never", Accept(ReceiptPlan::Never), "accepted; no receipt is ever sent, and polling shows no result"),
        magic(
            5,
            "unknown",
            Fault(RequestFault::Cut),
            "accepted, but the connection is closed without an answer; answered the next time",
        ),
        magic(6, "hang", Fault(RequestFault::Hang), "accepted, but never answered; answered the next time"),
        magic(7, "expired", Accept(ReceiptPlan::Expired), "accepted; a receipt after 25 hours says that it expired"),
        magic(
            8,
            "undelivered",
            Accept(ReceiptPlan::Failed),
            "accepted; the receipt says that the carrier could not deliver it",
        ),
        magic(
            9,
            "not-a-user",
            Accept(ReceiptPlan::NotAUser),
            "does not use KakaoTalk or RCS: these fail, and the fallback is sent; texts are delivered",
        ),
        magic(10, "opted-out", Refuse(RefusalReason::OptedOut), "refused: the recipient opted out"),
        magic(
            11,
            "throttled",
            Fault(RequestFault::Limit),
            "refused as too many requests, to be repeated after a second; accepted the next time",
        ),
        magic(
            12,
            "credentials",
            Refuse(RefusalReason::Credentials),
            "the request is refused as if the credentials were wrong: stops the provider",
        ),
        magic(
            13,
            "balance",
            Refuse(RefusalReason::Balance),
            "refused as if the balance were used up: stops the provider",
        ),
        magic(14, "early", Accept(ReceiptPlan::Early), "delivered; the receipt comes before the answer"),
        magic(15, "twice", Accept(ReceiptPlan::Twice), "delivered; the receipt is sent twice"),
        magic(
            16,
            "reordered",
            Accept(ReceiptPlan::Reordered),
            "delivered; a receipt that it is in progress follows later",
        ),
        magic(17, "changed", Accept(ReceiptPlan::Changed), "a receipt says failed, a later one delivered"),
        magic(18, "lost", Accept(ReceiptPlan::Lost), "delivered; no receipt is sent, but polling shows the result"),
        magic(
            19,
            "cut",
            Fault(RequestFault::CutBefore),
            "the connection is closed before it is accepted; accepted the next time",
        ),
    ]
};

/// Returns the magic recipient of an address in any vendor's spelling: 010-0000-0001, +821000000001, `fail`.
pub fn find(to: &str) -> Option<&'static MagicRecipient> {
    let separated = |c: char| matches!(c, '-' | ' ' | '+');
    if !to.chars().all(|c| c.is_ascii_digit() || separated(c)) {
        return TABLE.iter().find(|magic| magic.word == to);
    }
    let digits: String = to.chars().filter(char::is_ascii_digit).collect();
    let national = digits.strip_prefix("82").or(digits.strip_prefix('0'))?;
    let number: u8 = national.strip_prefix("10000000").filter(|last| last.len() == 2)?.parse().ok()?;
    TABLE.iter().find(|magic| magic.number == number)
}

/// Formats the table for people, one line for each recipient.
pub fn help_table() -> String {
    let line = |magic: &MagicRecipient| format!("  {:02}  {:<12} {}\n", magic.number, magic.word, magic.description);
    TABLE.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::phone;

    #[test]
    fn magic_numbers_are_valid_and_found_in_any_spelling() {
        for (n, magic) in TABLE.iter().enumerate() {
            assert_eq!(usize::from(magic.number), n + 1, "the table is in order");
            let number = format!("+8210000000{:02}", magic.number);
            assert_eq!(phone::parse(&number, "KR").as_deref(), Ok(number.as_str()));
            let last = magic.number;
            for written in
                [number, format!("010000000{last:02}"), format!("010-0000-00{last:02}"), magic.word.to_owned()]
            {
                assert_eq!(find(&written), Some(magic), "{written}");
            }
        }
        for ordinary in ["", "+821000000000", "01000000020", "010000000001", "01012345601", "Fail", "0100000001"] {
            assert_eq!(find(ordinary), None, "{ordinary}");
        }
    }
}
