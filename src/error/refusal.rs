//! A refused request: every fault found in it, not only the first.

use std::borrow::Cow;

use super::code::Code;
use crate::limits;

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
        // A single fault is the detail.
        for fault in self.faults.iter().filter(|_| self.faults.len() > 1) {
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

impl Refusal {
    pub fn new(status: u16, reason: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { code: Code::E001, status, reason, detail: detail.into(), faults: Vec::new() }
    }

    pub fn with_code(mut self, code: Code) -> Refusal {
        self.code = code;
        self
    }

    /// From all the faults of one request. The first fault speaks for the whole: its code and reason head the answer.
    pub fn from_faults(faults: Vec<Fault>) -> Refusal {
        let (code, reason, detail) = match faults.as_slice() {
            [only] => (only.code, only.reason, format!("{} {}", at(&only.pointer), only.detail)),
            [first, ..] => {
                let (count, least) = (faults.len(), if faults.len() < limits::FAULTS { "" } else { "at least " });
                (first.code, first.reason, format!("{least}{count} things are wrong; see errors"))
            }
            [] => (Code::E001, "invalid", "the request is not right".to_owned()),
        };
        let status = if code == Code::E005 { 400 } else { 422 };
        Refusal { code, status, reason, detail, faults }
    }
}

fn at(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}

/// At most 64 characters of the caller's input are ever echoed, control characters escaped.
pub fn excerpt(input: &str) -> String {
    let mut out: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
