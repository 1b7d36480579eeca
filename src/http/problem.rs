//! Maps every error to its HTTP answer (RFC 9457, with the seed's closed list of codes). This is the only such mapping.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use serde::Serialize;
use utoipa::ToSchema;

use super::context::{ENVELOPED_AT, REQUEST_ID};
use super::words::words;
use crate::error::{CODES, Code, Error, Fault, REASONS, Refusal, Unavailable};

/// An error as a caller gets it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    reason: &'static str,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u32>,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Problem {
        let problem = |status: u16, code, reason, detail: &str| Problem {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            reason,
            detail: detail.to_owned(),
            faults: Vec::new(),
            retry_after_s: None,
        };
        match e {
            Error::Refused(refusal) => Problem {
                faults: refusal.faults,
                ..problem(refusal.status, refusal.code, refusal.reason, &refusal.detail)
            },
            Error::NotFound => problem(404, Code::E001, "not_found", "nothing at this address is visible to you"),
            Error::Unavailable(Unavailable { why, .. }) => {
                tracing::warn!(why, "answered 503: the database is not available");
                let detail = "the database is not available; whether a message was stored is unknown, so repeat it \
                    with \
                              the same clientMsgId";
                Problem { retry_after_s: Some(1), ..problem(503, Code::E102, "database_unavailable", detail) }
            }
            Error::Limited { reason, detail, retry_after_s } => {
                Problem { retry_after_s: Some(retry_after_s), ..problem(429, Code::E003, reason, &detail) }
            }
            Error::Busy(why) => {
                Problem { retry_after_s: Some(1), ..problem(503, Code::E101, "queue_unavailable", why) }
            }
            Error::Usage(why) | Error::Setup(why) | Error::Internal(why) | Error::Answered { message: why, .. } => {
                tracing::error!(why, "answered 500");
                problem(
                    500,
                    Code::E100,
                    "system_error",
                    "an error in the hub; its log has the details under the requestId",
                )
            }
        }
    }
}

impl Problem {
    /// The code of the error.
    pub fn code(&self) -> &'static str {
        self.code.as_str()
    }

    /// The reason, a stable word.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// A sentence for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Error::Refused(refusal).into()
    }
}

words! {
    ProblemCode, "the code of the error, from a closed list", CODES.into_iter().skip(1).map(|row| row.1);
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `urn:notihub:problem:` and the reason.
    #[serde(rename = "type")]
    kind: String,
    /// The name of the HTTP status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The code of the error, from the closed list of `GET /v1/errors`.
    #[schema(value_type = ProblemCode)]
    code: &'static str,
    /// The reason, a stable word. `GET /v1/errors` lists all reasons with cause and remedy; later versions may add
    /// some.
    reason: &'static str,
    /// A sentence for people; it may change.
    detail: String,
    /// All faults found, at most 50. Left out if no part of the request is at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultBody>,
    /// The request's id, as in the header `X-Request-Id`.
    request_id: String,
}

/// An error below `/api/`: a problem, with the members of the envelope beside its own.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvelopedProblem {
    #[serde(flatten)]
    problem: ProblemBody,
    /// False.
    success: bool,
    /// Null.
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
    /// The same as `detail`.
    message: String,
    /// The same as `code`.
    #[schema(value_type = ProblemCode)]
    error_code: &'static str,
    /// RFC 3339, in UTC, to the microsecond.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// A fault at one place of the request.
#[derive(Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct FaultBody {
    /// The place: a JSON pointer (RFC 6901) into the body, or the name of a query parameter or header.
    pointer: String,
    /// The reason, a stable word as in the problem.
    reason: &'static str,
    detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        debug_assert!(
            REASONS.iter().any(|r| (r.word, r.code, r.status) == (self.reason, self.code, self.status.as_u16()))
                && self.faults.iter().all(|f| REASONS.iter().any(|r| (r.word, r.code) == (f.reason, f.code))),
            "add a row to REASONS in src/error/reasons.rs: {self:?}"
        );
        let faults = self.faults.into_iter();
        let body = ProblemBody {
            kind: format!("urn:notihub:problem:{}", self.reason),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code.as_str(),
            reason: self.reason,
            detail: self.detail,
            errors: faults
                .map(|f| FaultBody { pointer: f.pointer, reason: f.reason, detail: f.detail.into_owned() })
                .collect(),
            request_id: REQUEST_ID.try_with(Clone::clone).unwrap_or_default(),
        };
        // Serialising texts and numbers cannot fail.
        let body = match ENVELOPED_AT.try_with(|at| *at).ok().flatten() {
            None => serde_json::to_vec(&body).unwrap_or_default(),
            Some(at) => {
                let (message, error_code) = (body.detail.clone(), body.code);
                let (success, timestamp) = (false, at.to_rfc3339_opts(SecondsFormat::Micros, true));
                let enveloped = EnvelopedProblem { problem: body, success, data: None, message, error_code, timestamp };
                serde_json::to_vec(&enveloped).unwrap_or_default()
            }
        };
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.reason, "body_too_large" | "body_timeout" | "host_invalid") {
            // The rest of the request is not worth reading, or cannot be trusted.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The answer for an unknown address: 404.
pub async fn route_not_found() -> Problem {
    Error::NotFound.into()
}

/// The answer for a known address with another method: 405. The router adds `Allow`.
pub async fn method_not_allowed() -> Problem {
    Refusal::new(405, "method_not_allowed", "this address does not take this method; see Allow")
        .with_code(Code::E001)
        .into()
}
