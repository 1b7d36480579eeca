//! Magic recipients: numbers and user keys that nobody has, and for which every simulator does the same, in its vendor's own
//! words. One table, shown by `notihub simulate --help` and in the document `simulators`.

use crate::model::retry::ErrorClass;

/// A recipient that makes something happen: the number +82 10-0000-00NN, or for what has no number its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Magic {
    pub number: u8,
    pub word: &'static str,
    pub does: Does,
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It is not taken.
    Refuse(Why),
    /// The whole request goes wrong, every other time the same text comes to the same recipient: so each time it is tried
    /// out something goes wrong once, and the next try is in order.
    Break(How),
    /// It is taken; what is told later is out of the ordinary.
    Tell(ReceiptPlan),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Address,
    Internal,
    OptedOut,
    /// The whole request.
    Credentials,
    Balance,
}

impl Why {
    pub fn class(self) -> ErrorClass {
        match self {
            Why::Address => ErrorClass::Address,
            Why::Internal => ErrorClass::ProviderInternal,
            Why::OptedOut => ErrorClass::OptedOut,
            Why::Credentials => ErrorClass::Credentials,
            Why::Balance => ErrorClass::Quota,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Taken, and the connection closed instead of an answer.
    Cut,
    /// Taken, and never answered.
    Hang,
    /// Not taken, and the connection closed.
    CutBefore,
    /// Too fast: not taken, and to come back in a second.
    Limit,
}

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

const fn magic(number: u8, word: &'static str, does: Does, about: &'static str) -> Magic {
    Magic { number, word, does, about }
}

pub const TABLE: [Magic; 19] = {
    use Does::{Break, Refuse, Tell};
    [
        magic(1, "fail", Refuse(Why::Address), "refused for good: there is no such recipient"),
        magic(2, "temporary", Refuse(Why::Internal), "refused for now, each time"),
        magic(3, "late", Tell(ReceiptPlan::Late), "delivered, and told after 10 minutes"),
        magic(4, "never", Tell(ReceiptPlan::Never), "taken; what became of it is never known"),
        magic(5, "unknown", Break(How::Cut), "taken, and hung up instead of saying so; answers the next time"),
        magic(6, "hang", Break(How::Hang), "taken, and no answer; answers the next time"),
        magic(7, "expired", Tell(ReceiptPlan::Expired), "expired: told after 25 hours"),
        magic(8, "undelivered", Tell(ReceiptPlan::Failed), "taken, then told that the carrier could not deliver it"),
        magic(
            9,
            "not-a-user",
            Tell(ReceiptPlan::NotAUser),
            "has no KakaoTalk and no RCS: a fallback is due; texts arrive",
        ),
        magic(10, "opted-out", Refuse(Why::OptedOut), "refused: does not want it"),
        magic(11, "throttled", Break(How::Limit), "too fast, come back in a second; taken the next time"),
        magic(
            12,
            "credentials",
            Refuse(Why::Credentials),
            "we are refused as if our key were wrong: stops the provider",
        ),
        magic(13, "balance", Refuse(Why::Balance), "refused as if nothing were left to pay with: stops the provider"),
        magic(14, "early", Tell(ReceiptPlan::Early), "its receipt comes before the answer"),
        magic(15, "twice", Tell(ReceiptPlan::Twice), "delivered, and told twice"),
        magic(16, "reordered", Tell(ReceiptPlan::Reordered), "delivered, and only then told that it is on its way"),
        magic(17, "changed", Tell(ReceiptPlan::Changed), "told failed, then told delivered"),
        magic(18, "lost", Tell(ReceiptPlan::Lost), "delivered; no receipt is sent, but whoever asks is told"),
        magic(19, "cut", Break(How::CutBefore), "hung up before it is taken; taken the next time"),
    ]
};

/// What a recipient makes happen, however its vendor has it written: 010-0000-0001, +821000000001, `fail`.
pub fn of(to: &str) -> Option<&'static Magic> {
    let separated = |c: char| matches!(c, '-' | ' ' | '+');
    if !to.chars().all(|c| c.is_ascii_digit() || separated(c)) {
        return TABLE.iter().find(|magic| magic.word == to);
    }
    let digits: String = to.chars().filter(char::is_ascii_digit).collect();
    let national = digits.strip_prefix("82").or(digits.strip_prefix('0'))?;
    let number: u8 = national.strip_prefix("10000000").filter(|last| last.len() == 2)?.parse().ok()?;
    TABLE.iter().find(|magic| magic.number == number)
}

/// The table for people, a line each.
pub fn help() -> String {
    let line = |magic: &Magic| format!("  {:02}  {:<12} {}\n", magic.number, magic.word, magic.about);
    TABLE.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::phone;

    #[test]
    fn magic_numbers_can_be_texted_and_are_known_however_they_are_written() {
        for (n, magic) in TABLE.iter().enumerate() {
            assert_eq!(usize::from(magic.number), n + 1, "the table is in order");
            let number = format!("+8210000000{:02}", magic.number);
            assert_eq!(phone::parse(&number, "KR").as_deref(), Ok(number.as_str()));
            let last = magic.number;
            for written in
                [number, format!("010000000{last:02}"), format!("010-0000-00{last:02}"), magic.word.to_owned()]
            {
                assert_eq!(of(&written), Some(magic), "{written}");
            }
        }
        for nobody in ["", "+821000000000", "01000000020", "010000000001", "01012345601", "Fail", "0100000001"] {
            assert_eq!(of(nobody), None, "{nobody}");
        }
    }
}
