//! Where providers call back. Nobody signs in here: the provider's adapter finds out who calls before it believes a word.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Answer;
use super::request::{Id, Raw, ok};
use super::shape::Success;
use crate::error::{Code, Error, Refusal};
use crate::flow;
use crate::hub::Hub;
use crate::limits;
use crate::provider::{Callback, Refused};

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
pub async fn receive(
    State(hub): State<Hub>,
    Id(name): Id,
    headers: HeaderMap,
    uri: Uri,
    Raw(body): Raw<{ limits::RECEIPT_BODY_BYTES }>,
) -> Answer {
    let account = hub.providers.named(&name).cloned().ok_or(Error::NotFound)?;
    let now = hub.clock.now();
    let sent = body.clone();
    // Thousands of results are read beside the loops, not between them.
    let told = hub.shutdown.compute(move || {
        let query = uri.query().unwrap_or_default();
        account.provider.receipts(&Callback { headers: &headers, query, body: &sent, now })
    });
    let receipts = match told.await? {
        Ok(receipts) => receipts,
        Err(Refused::NotExpected) => return Err(Error::NotFound.into()),
        Err(Refused::Forged(why)) => {
            hub.metrics.receipts.with_label_values(&[&name, "forged"]).inc();
            tracing::warn!(provider = name, why, "a callback was refused: it does not come from the provider");
            let detail = "this is not known to come from the provider";
            return Err(Refusal::new(401, "receipt_forged", detail).with_code(Code::E002).into());
        }
        Err(Refused::Unreadable(why)) => {
            hub.metrics.receipts.with_label_values(&[&name, "refused"]).inc();
            tracing::warn!(provider = name, why, "a callback of the provider cannot be read");
            return Err(Refusal::new(400, "receipt_unreadable", "the body cannot be read as this provider's").into());
        }
    };
    flow::receipt::keep(&hub, &name, receipts, &body).await?;
    Ok(ok(StatusCode::OK, &ReceiptsKept { code: Success::Success }))
}
