//! The response codes of seed 000, in every answer of the API.

/// The seed's closed list of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Success,
    E001,
    E002,
    E003,
    E004,
    E005,
    E006,
    E007,
    E008,
    E100,
    E101,
    E102,
}

/// (code, how it is written, what it means)
pub const CODES: [(Code, &str, &str); 12] = [
    (Code::Success, "0000", "success"),
    (Code::E001, "E001", "parameter error"),
    (Code::E002, "E002", "authentication failed, or not permitted"),
    (Code::E003, "E003", "the partner's request limit is exceeded"),
    (Code::E004, "E004", "the same clientMsgId or Idempotency-Key was used for a different request"),
    (Code::E005, "E005", "unknown message type or channel"),
    (Code::E006, "E006", "a text is too long for its type"),
    (Code::E007, "E007", "the partner does not exist"),
    (Code::E008, "E008", "the partner is inactive"),
    (Code::E100, "E100", "system error"),
    (Code::E101, "E101", "the queue is not available"),
    (Code::E102, "E102", "the database is not available"),
];

impl Code {
    /// How the code is written, such as `E001`.
    pub fn as_str(self) -> &'static str {
        // A test checks that every code is at its index.
        CODES[self as usize].1
    }
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.as_str().cmp(other.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S0-64, S0-65, S0-66, S0-67, S0-68, S0-69, S0-70, S0-71, S0-72, S0-73, S0-74, S0-75: the seed's codes, each in
    /// its place and written as there.
    #[test]
    fn codes_equal_the_seed_list() {
        let words = CODES.map(|row| row.1);
        let seed = "0000 E001 E002 E003 E004 E005 E006 E007 E008 E100 E101 E102";
        assert_eq!(words.join(" "), seed);
        assert!(CODES.into_iter().all(|(code, word, _)| code.as_str() == word));
    }
}
