//! Why the database did not execute a statement.

/// The cause of an `Error::Unavailable`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Unavailable {
    pub kind: UnavailableKind,
    /// The cause in words, for the log.
    pub why: String,
}

/// The kind of the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableKind {
    /// Another transaction held a row lock longer than the statement waits. Other rows are available.
    Locked,
    /// Any other cause: no connection, no suitable session, a statement or transaction cut off.
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
