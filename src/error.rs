//! What can go wrong, told once. Each door renders it for its own audience: `api::error` as problem+json, `main` as a
//! sentence for a person, the worker as a log line.

use std::borrow::Cow;

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
    Unavailable(String),
    /// This process is stopping, or holds as much work as it may: come back soon.
    #[error("{0}")]
    Busy(&'static str),
    /// More requests than the caller may make. Nothing was written.
    #[error("{detail}")]
    Limited { reason: &'static str, detail: String, retry_after_s: u32 },
    /// Settings or surroundings do not allow to start: a sentence with its remedy.
    #[error("{0}")]
    Setup(String),
    /// Ours. Logged in full, told without detail.
    #[error("{0}")]
    Internal(String),
}

/// The seed's closed list of codes that a refusal can carry (api.md has the HTTP status of each).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Parameter error.
    E001,
    /// Not signed in, or not allowed.
    E002,
    /// Too many requests.
    E003,
    /// Same key, different request.
    E004,
    /// Unknown message type or channel.
    E005,
    /// Too long for its type.
    E006,
    /// No such partner.
    E007,
    /// Inactive partner.
    E008,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::E001 => "E001",
            Code::E002 => "E002",
            Code::E003 => "E003",
            Code::E004 => "E004",
            Code::E005 => "E005",
            Code::E006 => "E006",
            Code::E007 => "E007",
            Code::E008 => "E008",
        }
    }
}

/// Why a request was refused: every fault found, not only the first.
#[derive(Debug)]
pub struct Refusal {
    pub code: Code,
    /// HTTP status the reason stands for: 400 cannot be read, 413 too large, 415 not our format, 422 read but not right.
    pub status: u16,
    pub reason: &'static str,
    pub detail: String,
    pub faults: Vec<Fault>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code.as_str(), self.reason, self.detail)?;
        for fault in &self.faults {
            write!(f, "; {} {}: {}", fault.pointer, fault.reason, fault.detail)?;
        }
        Ok(())
    }
}

/// One thing wrong at one place of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter or header.
    pub pointer: String,
    pub reason: &'static str,
    pub detail: Cow<'static, str>,
    pub code: Code,
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.as_str().cmp(other.as_str()))
    }
}

impl Refusal {
    pub fn new(status: u16, reason: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { code: Code::E001, status, reason, detail: detail.into(), faults: Vec::new() }
    }

    pub fn with_code(mut self, code: Code) -> Refusal {
        self.code = code;
        self
    }

    /// From all the faults of one request. The first fault speaks for the whole: its code and reason head the answer.
    pub fn of(faults: Vec<Fault>) -> Refusal {
        let (code, reason, detail) = match faults.as_slice() {
            [only] => (only.code, only.reason, format!("{} {}", at(&only.pointer), only.detail)),
            [first, ..] => (first.code, first.reason, format!("{} things are wrong; see errors", faults.len())),
            [] => (Code::E001, "invalid", "the request is not right".to_owned()),
        };
        let status = if code == Code::E005 { 400 } else { 422 };
        Refusal { code, status, reason, detail, faults }
    }
}

fn at(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

/// At most 64 characters of the caller's input are ever echoed, control characters escaped.
pub fn excerpt(input: &str) -> String {
    let mut out: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
