//! Reference for client authors: every error code and reason.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{CODES, DELIVERY_REASONS, REASONS, Reason};
use crate::http::answer::{Answer, Success};
use crate::http::problem::ProblemCode;
use crate::http::query::Query;

/// Every code and reason there is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Errors {
    code: Success,
    /// The closed list of codes.
    codes: Vec<ErrorCodeShape>,
    /// Why requests are refused. A word that has two codes is here twice.
    reasons: Vec<ReasonShape>,
    /// Why deliveries and attempts stand as they do: their `reason`, `errorReason` and `error`.
    delivery_reasons: Vec<DeliveryReasonShape>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ErrorCode)]
pub struct ErrorCodeShape {
    code: &'static str,
    meaning: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reason)]
pub struct ReasonShape {
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
pub struct DeliveryReasonShape {
    reason: &'static str,
    meaning: &'static str,
}

/// What can go wrong
///
/// Every code and every reason, each with its cause and what to do about it.
#[utoipa::path(get, path = "/v1/errors", operation_id = "listErrors", tag = "reference",
    responses((status = 200, description = "all of them", body = Errors)))]
pub async fn errors(query: Query) -> Answer {
    query.close()?;
    Ok(([(header::CONTENT_TYPE, "application/json")], LISTED.clone()).into_response())
}

/// The list's bytes, shared by all answers: anybody may ask for it, often and on many connections.
static LISTED: LazyLock<Bytes> = LazyLock::new(|| {
    let codes = CODES.iter().map(|(code, _, meaning)| ErrorCodeShape { code: code.as_str(), meaning }).collect();
    let reason = |r: &Reason| ReasonShape {
        reason: r.word,
        code: r.code.as_str(),
        status: r.status,
        cause: r.cause,
        remedy: r.remedy,
    };
    let reasons = REASONS.iter().map(reason).collect();
    let delivery_reasons =
        DELIVERY_REASONS.iter().map(|(reason, meaning)| DeliveryReasonShape { reason, meaning }).collect();
    let errors = Errors { code: Success::Success, codes, reasons, delivery_reasons };
    serde_json::to_vec(&errors).unwrap_or_default().into()
});
