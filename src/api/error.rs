//! ONE table: what went wrong → how it is told over HTTP (RFC 9457, with the seed's closed list of codes).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Code, Error, Fault};

/// An error on its way to a caller.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
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
                ..told(refusal.status, refusal.code.as_str(), refusal.reason, &refusal.detail)
            },
            Error::NotFound => told(404, "E001", "not_found", "there is nothing under this address that you may see"),
            Error::Unavailable(why) => {
                tracing::warn!(why, "answered 503: the database is not available");
                let detail = "the database is not available; whether a message was stored is unknown, so repeat it with \
                              the same clientMsgId";
                Problem { retry_after_s: Some(1), ..told(503, "E102", "database_unavailable", detail) }
            }
            Error::Limited { reason, detail, retry_after_s } => {
                Problem { retry_after_s: Some(retry_after_s), ..told(429, "E003", reason, &detail) }
            }
            Error::Busy(why) => Problem { retry_after_s: Some(1), ..told(503, "E101", "queue_unavailable", why) },
            Error::Setup(why) | Error::Internal(why) => {
                tracing::error!(why, "answered 500");
                told(
                    500,
                    "E100",
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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let errors: Vec<_> =
            self.faults.iter().map(|f| json!({"pointer": f.pointer, "reason": f.reason, "detail": f.detail})).collect();
        let mut body = json!({
            "type": format!("urn:notihub:problem:{}", self.reason),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "reason": self.reason,
            "detail": self.detail,
            "requestId": REQUEST_ID.try_with(Clone::clone).unwrap_or_default(),
        });
        if !errors.is_empty() {
            body["errors"] = errors.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
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
