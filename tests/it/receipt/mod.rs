//! Receipts: what providers report later about attempts.

mod callback;
mod deadline;
mod poll;

use serde_json::Value;

use crate::support::app::App;

async fn post(app: &App, body: Value) -> String {
    app.post("/v1/messages", body).await.expect(202).id()
}
