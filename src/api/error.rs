//! ONE table: what went wrong → how it is told over HTTP (RFC 9457, with the seed's closed list of codes).

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request::{Query, ok};
use super::shape::{ProblemCode, Success};
use crate::error::{CODES, Code, DELIVERY_REASONS, Error, Fault, REASONS, Reason};

/// An error on its way to a caller.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    reason: &'static str,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u32>,
}

/// The handlers' result: any of our errors becomes a problem with `?`.
pub type Answer<T = Response> = std::result::Result<T, Problem>;

impl From<Error> for Problem {
    fn from(e: Error) -> Problem {
        let told = |status: u16, code, reason, detail: &str| Problem {
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
                ..told(refusal.status, refusal.code, refusal.reason, &refusal.detail)
            },
            Error::NotFound => {
                told(404, Code::E001, "not_found", "there is nothing under this address that you may see")
            }
            Error::Unavailable(why) => {
                tracing::warn!(why, "answered 503: the database is not available");
                let detail = "the database is not available; whether a message was stored is unknown, so repeat it with \
                              the same clientMsgId";
                Problem { retry_after_s: Some(1), ..told(503, Code::E102, "database_unavailable", detail) }
            }
            Error::Limited { reason, detail, retry_after_s } => {
                Problem { retry_after_s: Some(retry_after_s), ..told(429, Code::E003, reason, &detail) }
            }
            Error::Busy(why) => Problem { retry_after_s: Some(1), ..told(503, Code::E101, "queue_unavailable", why) },
            Error::Usage(why) | Error::Setup(why) | Error::Internal(why) | Error::Answered { told: why, .. } => {
                tracing::error!(why, "answered 500");
                told(
                    500,
                    Code::E100,
                    "system_error",
                    "something is wrong on our side; it is in our log under the requestId",
                )
            }
        }
    }
}

impl From<crate::error::Refusal> for Problem {
    fn from(refusal: crate::error::Refusal) -> Problem {
        Error::Refused(refusal).into()
    }
}

tokio::task_local! {
    /// Which request a problem belongs to; the layer around all handlers puts it there.
    pub static REQUEST_ID: String;
}

/// What every error is told as (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `urn:notihub:problem:` and the reason.
    #[serde(rename = "type")]
    kind: String,
    /// The HTTP status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// One of the closed list that `GET /v1/errors` tells.
    #[schema(value_type = ProblemCode)]
    code: &'static str,
    /// A stable word, listed with cause and remedy by `GET /v1/errors`; others may come.
    reason: &'static str,
    /// A sentence for people; may change.
    detail: String,
    /// Every fault found, 50 at most; left out when nothing is wrong with a place of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultBody>,
    /// As the header `X-Request-Id`.
    request_id: String,
}

/// One thing wrong at one place of the request.
#[derive(Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct FaultBody {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter or header.
    pointer: String,
    /// A stable word, as in the problem.
    reason: &'static str,
    detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        debug_assert!(
            REASONS.iter().any(|r| (r.word, r.code, r.status) == (self.reason, self.code, self.status.as_u16()))
                && self.faults.iter().all(|f| REASONS.iter().any(|r| (r.word, r.code) == (f.reason, f.code))),
            "add a row to REASONS in src/error.rs: {self:?}"
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
        let mut response = ok(self.status, &body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.reason, "body_too_large" | "body_timeout" | "host_invalid") {
            // What is still coming is not worth reading, or cannot be trusted.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

pub async fn no_route() -> Problem {
    Error::NotFound.into()
}

pub async fn no_method() -> Problem {
    crate::error::Refusal::new(405, "method_not_allowed", "this address does not take this method; see Allow")
        .with_code(Code::E001)
        .into()
}

/// Every code and reason there is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Errors {
    code: Success,
    /// The closed list of codes.
    codes: Vec<CodeTold>,
    /// Why requests are refused. A word that has two codes is here twice.
    reasons: Vec<ReasonTold>,
    /// Why deliveries and attempts stand as they do: their `reason`, `errorReason` and `error`.
    delivery_reasons: Vec<DeliveryReasonTold>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ErrorCode)]
pub struct CodeTold {
    code: &'static str,
    meaning: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reason)]
pub struct ReasonTold {
    /// The stable word.
    reason: &'static str,
    #[schema(value_type = ProblemCode)]
    code: &'static str,
    /// HTTP status of an answer that this reason heads.
    status: u16,
    /// What is wrong.
    cause: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryReason)]
pub struct DeliveryReasonTold {
    reason: &'static str,
    meaning: &'static str,
}

/// What can go wrong
///
/// Every code and every reason, each with its cause and what to do about it.
#[utoipa::path(get, path = "/v1/errors", operation_id = "listErrors", tag = "reference",
    responses((status = 200, description = "all of them", body = Errors)))]
pub async fn list(query: Query) -> Answer {
    query.close()?;
    Ok(([(header::CONTENT_TYPE, "application/json")], LISTED.clone()).into_response())
}

/// The list's bytes, shared by all answers: anybody may ask for it, often and on many connections.
static LISTED: LazyLock<Bytes> = LazyLock::new(|| {
    let codes = CODES.iter().map(|(code, _, meaning)| CodeTold { code: code.as_str(), meaning }).collect();
    let reason = |r: &Reason| ReasonTold {
        reason: r.word,
        code: r.code.as_str(),
        status: r.status,
        cause: r.cause,
        remedy: r.remedy,
    };
    let reasons = REASONS.iter().map(reason).collect();
    let delivery_reasons =
        DELIVERY_REASONS.iter().map(|(reason, meaning)| DeliveryReasonTold { reason, meaning }).collect();
    let errors = Errors { code: Success::Success, codes, reasons, delivery_reasons };
    serde_json::to_vec(&errors).unwrap_or_default().into()
});
