//! What can go wrong, told once. Each door renders it for its own audience: `http::problem` as problem+json, `main` as
//! a sentence for a person, the worker as a log line.

mod code;
mod delivery_reasons;
mod reasons;
mod refusal;
mod unavailable;

pub use code::{CODES, Code};
pub use delivery_reasons::DELIVERY_REASONS;
pub use reasons::{REASONS, Reason};
pub use refusal::{Fault, Refusal, excerpt};
pub use unavailable::{Unavailable, UnavailableKind};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's doing. Nothing was written.
    #[error("{0}")]
    Refused(Refusal),
    /// It does not exist, or belongs to another partner: the two are told alike.
    #[error("not found")]
    NotFound,
    /// The database cannot be reached or did not answer in time. The outcome of a write is then unknown to the caller,
    /// who repeats it with the same `clientMsgId`.
    #[error("database not available: {0}")]
    Unavailable(Unavailable),
    /// This process is stopping, or holds as much work as it may: come back soon.
    #[error("{0}")]
    Busy(&'static str),
    /// More requests than the caller may make. Nothing was written.
    #[error("{detail}")]
    Limited { reason: &'static str, detail: String, retry_after_s: u32 },
    /// A setting or the call itself is wrong, whatever the surroundings: a sentence with its remedy. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The surroundings (database, files, ports) do not allow to start: a sentence with its remedy.
    #[error("{0}")]
    Setup(String),
    /// What a hub answered to one of our own commands: a sentence, and the problem as it came.
    #[error("{message}")]
    Answered { message: String, problem: serde_json::Value },
    /// Ours. Logged in full, told without detail.
    #[error("{0}")]
    Internal(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}
