//! The errors of the hub. Each interface renders them for its readers: `http::problem` as problem+json, `main` as a
//! sentence, the worker as a log line.

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

/// `std::result::Result` with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong. Nothing was written.
    #[error("{0}")]
    Refused(Refusal),
    /// It does not exist or belongs to another partner; callers cannot tell which.
    #[error("not found")]
    NotFound,
    /// The database cannot be reached or did not answer in time. The outcome of a write is then unknown; repeat it with
    /// the same `clientMsgId`.
    #[error("database not available: {0}")]
    Unavailable(Unavailable),
    /// This process is stopping, or has as much work as it may hold: repeat soon.
    #[error("{0}")]
    Busy(&'static str),
    /// The caller is over its request limit. Nothing was written.
    #[error("{detail}")]
    Limited { reason: &'static str, detail: String, retry_after_s: u32 },
    /// A setting or a command line is wrong: a sentence with the remedy. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The environment (database, files, ports) does not allow a start: a sentence with the remedy.
    #[error("{0}")]
    Setup(String),
    /// A hub's error answer to one of our own commands: a sentence, and the problem document as received.
    #[error("{message}")]
    Answered { message: String, problem: serde_json::Value },
    /// A bug or failure of the hub. Logged in full, shown to callers without detail.
    #[error("{0}")]
    Internal(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}
