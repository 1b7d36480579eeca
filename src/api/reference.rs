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

/// All error codes and reasons.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Errors {
    code: Success,
    /// The closed list of codes.
    codes: Vec<ErrorCodeShape>,
    /// The reasons for which requests are refused. A reason with two codes is listed twice.
    reasons: Vec<ReasonShape>,
    /// The reasons of deliveries and attempts: the values of `reason`, `errorReason` and `error`.
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
    /// The HTTP status of a problem with this reason.
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

#[utoipa::path(get, path = "/v1/errors", operation_id = "listErrors", tag = "reference",
    responses((status = 200, description = "all codes and reasons", body = Errors)))]
/// Error codes
///
/// All error codes and reasons, each with its cause and remedy.
pub async fn errors(query: Query) -> Answer {
    query.close()?;
    Ok(([(header::CONTENT_TYPE, "application/json")], LISTED.clone()).into_response())
}

/// The list's bytes. All answers share them, because the route needs no sign-in and may be called often.
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
