//! Where providers call back. Nobody signs in here: the provider's adapter finds out who calls before it believes a word.

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

/// What was told is kept.
#[derive(Serialize, ToSchema)]
pub struct ReceiptsKept {
    code: Success,
}

/// Receipts of a provider
///
/// For providers, not for partners: the body is the provider's own, and so is the way in which it proves who it is. What it told
/// is stored when this answers, each piece once, and applied soon after.
#[utoipa::path(post, path = "/v1/receipts/{provider}", operation_id = "postReceipts", tag = "receipts",
    params(("provider" = String, Path, description = "the provider as the settings name it")),
    request_body(content = String, content_type = "*/*", description = "the provider's own, at most 8 MiB"),
    responses((status = 200, description = "stored, now or before", body = ReceiptsKept)))]
pub async fn receive(State(hub): State<Hub>, PathId(name): PathId, request: Request) -> Answer {
    // Anybody may call: who names no provider is not listened to.
    let account = hub.providers.get(&name).cloned().ok_or(Error::NotFound)?;
    let Ok(Ok(_turn)) = tokio::time::timeout(limits::RECEIPT_TURN, hub.receipt_body_slots.acquire()).await else {
        return Err(Error::Busy("many receipts are being read; send them again soon").into());
    };
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let body = read_body(request, &hub, limits::RECEIPT_BODY_BYTES).await?;
    let now = hub.clock.now();
    let sent = body.clone();
    // Thousands of results are read beside the loops, not between them.
    let parsed = hub.shutdown.compute(move || {
        let query = uri.query().unwrap_or_default();
        account.provider.parse_receipts(&Callback { headers: &headers, query, body: &sent, now })
    });
    let receipts = parsed.await?.map_err(|why| refusal(&hub, &name, why))?;
    if receipts.len() > limits::RECEIPTS_IN_BODY {
        let most = limits::RECEIPTS_IN_BODY;
        let detail = format!("the body tells of {} results; at most {most} are taken: send several", receipts.len());
        return Err(Refusal::new(422, "too_many_items", detail).into());
    }
    flow::receipt::save(&hub, &name, receipts, &body).await?;
    Ok(respond(StatusCode::OK, &ReceiptsKept { code: Success::Success }))
}

/// Counted each time; told by the log once in a while, for anybody can fill it.
fn refusal(hub: &Hub, name: &str, why: CallbackError) -> Error {
    let count = |effect| hub.metrics.receipts.with_label_values(&[name, effect]).inc();
    match why {
        CallbackError::NotSupported => Error::NotFound,
        CallbackError::NotAuthentic(why) => {
            count("forged");
            if hub.refused_callbacks.may_log(name, hub.clock.now()) {
                tracing::warn!(provider = name, why, "a callback was refused: it does not come from the provider");
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
