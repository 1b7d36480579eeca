//! Why the database did not do what it was asked.

/// The cause of an `Error::Unavailable`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Unavailable {
    pub kind: UnavailableKind,
    /// In words, for the log.
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableKind {
    /// Another transaction holds a row for longer than a statement waits for it. Other rows can be had.
    Locked,
    /// Anything else: no connection, no session that will do, a statement or transaction cut off.
    Other,
}

impl From<String> for Unavailable {
    fn from(why: String) -> Unavailable {
        Unavailable { kind: UnavailableKind::Other, why }
    }
}

impl From<&str> for Unavailable {
    fn from(why: &str) -> Unavailable {
        why.to_owned().into()
    }
}
