//! Messages posted and read back.

use notihub::provider::simulator::Behaviour;
use serde_json::Value;

use crate::support::app::App;

pub fn fail(status: u16, text: &str) -> Behaviour {
    Behaviour::Fail { status, text: text.to_owned() }
}

/// The message's first delivery.
pub async fn delivery(app: &App, id: &str) -> Value {
    app.message(id).await["deliveries"][0].clone()
}

pub async fn post(app: &App, body: Value) -> String {
    app.post("/v1/messages", body).await.expect(202).id()
}

pub fn outcomes(delivery: &Value) -> Vec<&str> {
    delivery["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str().unwrap()).collect()
}
