//! Receipts that providers post. There is no sign-in: the provider's adapter verifies the caller before it parses the
//! body.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Code, Error, Refusal};
use crate::flow;
use crate::http::answer::{Answer, Success, respond};
use crate::http::request::{PathId, read_body};
use crate::hub::Hub;
use crate::limits;
use crate::provider::{Callback, CallbackError};

/// The receipts are stored.
#[derive(Serialize, ToSchema)]
pub struct ReceiptsKept {
    code: Success,
}

#[utoipa::path(post, path = "/v1/receipts/{provider}", operation_id = "postReceipts", tag = "receipts",
    params(("provider" = String, Path, description = "the provider's name in the settings")),
    request_body(content = String, content_type = "*/*", description = "in the provider's own form, at most 8 MiB"),
    responses((status = 200, description = "the receipts are stored, by this request or an earlier \
        one", body = ReceiptsKept)))]
/// Receipts of a provider
///
/// For providers, not for partners. The body and the authentication have the provider's own form. The receipts are
/// stored, each once, when the answer arrives, and applied soon after.
pub async fn receive(State(hub): State<Hub>, PathId(name): PathId, request: Request) -> Answer {
    // The route is open: refuse unknown providers before reading the body.
    let account = hub.providers.get(&name).cloned().ok_or(Error::NotFound)?;
    let Ok(Ok(_turn)) = tokio::time::timeout(limits::RECEIPT_TURN, hub.receipt_body_slots.acquire()).await else {
        return Err(Error::Busy("many receipts are being read; send them again soon").into());
    };
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let body = read_body(request, &hub, limits::RECEIPT_BODY_BYTES).await?;
    let now = hub.clock.now();
    let sent = body.clone();
    // Parsing thousands of results takes CPU time: run it on a blocking thread.
    let parsed = hub.shutdown.compute(move || {
        let query = uri.query().unwrap_or_default();
        account.provider.parse_receipts(&Callback { headers: &headers, query, body: &sent, now })
    });
    let receipts = parsed.await?.map_err(|why| refusal(&hub, &name, why))?;
    if receipts.len() > limits::RECEIPTS_IN_BODY {
        let most = limits::RECEIPTS_IN_BODY;
        let detail = format!(
            "the body has {} results; at most {most} are taken: send them in several \
            requests",
            receipts.len()
        );
        return Err(Refusal::new(422, "too_many_items", detail).into());
    }
    flow::receipt::save(&hub, &name, receipts, &body).await?;
    Ok(respond(StatusCode::OK, &ReceiptsKept { code: Success::Success }))
}

/// The error for a refused callback. Every one is counted; the log is limited, because anyone on the network can fill
/// it.
fn refusal(hub: &Hub, name: &str, why: CallbackError) -> Error {
    let count = |effect| hub.metrics.receipts.with_label_values(&[name, effect]).inc();
    match why {
        CallbackError::NotSupported => Error::NotFound,
        CallbackError::NotAuthentic(why) => {
            count("forged");
            if hub.refused_callbacks.may_log(name, hub.clock.now()) {
                tracing::warn!(
                    provider = name,
                    why,
                    "a callback was refused: it is not proven to come from the provider"
                );
            }
            let detail = "this is not known to come from the provider";
            Refusal::new(401, "receipt_forged", detail).with_code(Code::E002).into()
        }
        CallbackError::Unreadable(why) => {
            count("refused");
            if hub.refused_callbacks.may_log(name, hub.clock.now()) {
                tracing::warn!(provider = name, why, "a callback of the provider cannot be read");
            }
            Refusal::new(400, "receipt_unreadable", "the body cannot be read as this provider's").into()
        }
    }
}
