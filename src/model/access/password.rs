//! Passwords of users: which are accepted, and how long a user waits after failed sign-ins.

use std::collections::HashSet;
use std::sync::LazyLock;

use chrono::TimeDelta;

use crate::model::user::username_key;

/// Fewest and most characters of a password.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;
/// Failed sign-ins in a row from which on a user waits …
const FAILURES_FREE: i16 = 5;
/// … this long at most.
const WAIT_MOST: TimeDelta = TimeDelta::minutes(15);

/// The 10,000 most common passwords of at least eight characters, in lower case, from the lists of zxcvbn (MIT).
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// Why a password of the right length is too weak, as a sentence about it without its subject. None: it is accepted.
pub fn weakness(password: &str, username: &str) -> Option<&'static str> {
    let plain = username_key(password);
    if plain == username_key(username) {
        Some("is the username")
    } else if COMMON.contains(plain.as_str()) {
        Some("is one of the most common passwords")
    } else {
        None
    }
}

/// How long a user waits after so many failed sign-ins in a row: 1 s after the fifth, and twice as long after each
/// further one. None: not at all.
pub fn wait_after(failures: i16) -> Option<TimeDelta> {
    let doublings = u32::try_from(failures - FAILURES_FREE).ok()?;
    let wait = 1_i64.checked_shl(doublings).filter(|s| *s > 0).map_or(WAIT_MOST, TimeDelta::seconds);
    Some(wait.min(WAIT_MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_password_and_username_are_weak() {
        assert_eq!(COMMON.len(), 10_000);
        assert!(COMMON.iter().all(|word| word.chars().count() >= 8 && username_key(word) == **word));
        assert!(weakness("Password1", "kim").is_some() && weakness("baseball", "kim").is_some());
        assert!(weakness("KimMinsu1", "kimminsu1").is_some());
        assert!(weakness("correct horse battery", "kim").is_none());
    }

    #[test]
    fn wait_doubles_from_the_fifth_failure_up_to_a_quarter_of_an_hour() {
        assert_eq!(wait_after(0), None);
        assert_eq!(wait_after(4), None);
        assert_eq!(wait_after(5), Some(TimeDelta::seconds(1)));
        assert_eq!(wait_after(6), Some(TimeDelta::seconds(2)));
        assert_eq!(wait_after(14), Some(TimeDelta::seconds(512)));
        assert_eq!(wait_after(15), Some(TimeDelta::minutes(15)));
        assert_eq!(wait_after(i16::MAX), Some(TimeDelta::minutes(15)));
    }
}
