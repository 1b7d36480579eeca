//! The commands' own HTTP client to a running hub.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub struct Target {
    /// Where the hub's API is.
    #[arg(long, env = "NOTIHUB_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
}

pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub fn new(target: &Target) -> Result<Client> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| Error::Setup(format!("the HTTP client cannot start: {e}")))?;
        Ok(Client { http, url: target.url.trim_end_matches('/').to_owned() })
    }

    /// The answer of a 2xx; else what the hub said is wrong.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.read(self.http.get(format!("{}{path}", self.url))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        self.read(request.body(body.to_string())).await
    }

    /// Status and body of whatever is answered; none without an answer.
    pub async fn ask(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let request = self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, serde_json::from_slice(&response.bytes().await.ok()?).unwrap_or(Value::Null)))
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let unreachable = |e: reqwest::Error| {
            Error::Setup(format!("no hub answers at {} ({e}); start one with `notihub up`, or give --url", self.url))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(body);
        }
        let mut why = format!("{status}: {}", body["detail"].as_str().unwrap_or("no detail given"));
        for fault in body["errors"].as_array().into_iter().flatten() {
            let text = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
            why.push_str(&format!("\n  {} {} ({})", text("pointer"), text("detail"), text("reason")));
        }
        Err(Error::Setup(why))
    }

    /// A message with its story, once all of it is settled or `within` is over. Says which of the two.
    pub async fn settled(&self, message_id: &str, within: Duration) -> Result<(Value, bool)> {
        let began = std::time::Instant::now();
        loop {
            let message = self.get(&format!("/v1/messages/{message_id}")).await?;
            let open = matches!(message["status"].as_str(), Some("PENDING" | "PROCESSING"));
            if !open || began.elapsed() > within {
                return Ok((message, !open));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
