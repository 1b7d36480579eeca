//! Refused requests.

use std::borrow::Cow;

use super::code::Code;
use crate::limits;

/// Why a request was refused: every fault that was found, not only the first.
#[derive(Debug)]
pub struct Refusal {
    pub code: Code,
    /// HTTP status: 400 unreadable, 413 too large, 415 not JSON, 422 readable but wrong.
    pub status: u16,
    /// A stable word, one of `REASONS`.
    pub reason: &'static str,
    pub detail: String,
    pub faults: Vec<Fault>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code.as_str(), self.reason, self.detail)?;
        // A single fault is in the detail already.
        for fault in self.faults.iter().filter(|_| self.faults.len() > 1) {
            write!(f, "; {} {}: {}", fault.pointer, fault.reason, fault.detail)?;
        }
        Ok(())
    }
}

/// One fault at one place of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter or header.
    pub pointer: String,
    pub reason: &'static str,
    pub detail: Cow<'static, str>,
    pub code: Code,
}

impl Refusal {
    /// A refusal of the whole request, with code E001 and no faults. `detail`: a sentence with the remedy.
    pub fn new(status: u16, reason: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { code: Code::E001, status, reason, detail: detail.into(), faults: Vec::new() }
    }

    /// This refusal with another code.
    pub fn with_code(mut self, code: Code) -> Refusal {
        self.code = code;
        self
    }

    /// A refusal with all faults of a request. The first fault's code and reason head the answer.
    pub fn from_faults(faults: Vec<Fault>) -> Refusal {
        let (code, reason, detail) = match faults.as_slice() {
            [only] => (only.code, only.reason, format!("{} {}", at(&only.pointer), only.detail)),
            [first, ..] => {
                let (count, least) = (faults.len(), if faults.len() < limits::FAULTS { "" } else { "at least " });
                (first.code, first.reason, format!("{least}{count} faults; see errors"))
            }
            [] => (Code::E001, "invalid", "the request is invalid".to_owned()),
        };
        let status = if code == Code::E005 { 400 } else { 422 };
        Refusal { code, status, reason, detail, faults }
    }
}

fn at(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}

/// The beginning of the caller's input for an error text: at most 64 characters, control characters escaped.
pub fn excerpt(input: &str) -> String {
    let mut out: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
