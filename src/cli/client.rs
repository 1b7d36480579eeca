//! The HTTP client by which commands call a running hub.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::process::write_secret;
use crate::config;
use crate::error::{Error, Result};
use crate::flow::partner::Credentials;

// `help_heading` for each flag, because `next_help_heading` would also apply to the command's own flags after these.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// The URL of the hub's API.
    #[arg(long, help_heading = HUB, env = "NOTIHUB_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// The client id to sign in with [default: the key that `up` keeps in its data folder on this machine].
    #[arg(long, help_heading = HUB, env = "NOTIHUB_CLIENT_ID", value_name = "ID")]
    pub client_id: Option<String>,
    /// The client secret. Prefer the variable: other users of this machine can read a command's flags.
    #[arg(long, help_heading = HUB, env = "NOTIHUB_CLIENT_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub client_secret: Option<String>,
    /// The folder where `up` keeps its data and its keys.
    #[arg(long, help_heading = HUB, env = "NOTIHUB_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
}

const HUB: &str = "Hub";

impl Target {
    /// The hub at `url`, with these credentials.
    pub fn of(url: String, credentials: &Credentials) -> Target {
        let (client_id, client_secret) = (credentials.client_id.clone(), credentials.client_secret.clone());
        Target { url, client_id: Some(client_id), client_secret: Some(client_secret), data_dir: None }
    }

    fn credentials(&self, kept: impl FnOnce(SavedKeys) -> Credentials) -> Result<Credentials> {
        match (&self.client_id, &self.client_secret) {
            (Some(client_id), Some(client_secret)) => {
                Ok(Credentials { client_id: client_id.clone(), client_secret: client_secret.clone() })
            }
            (None, None) => {
                let folder = config::data_dir(self.data_dir.as_ref())?;
                let found = SavedKeys::load(&folder)?.ok_or_else(|| {
                    Error::Setup(
                        "no credentials to sign in with: give --client-id and NOTIHUB_CLIENT_SECRET (`notihub partner \
                         create NAME` makes them)"
                            .into(),
                    )
                })?;
                Ok(kept(found))
            }
            _ => Err(Error::Usage("give both --client-id and --client-secret, or neither".into())),
        }
    }
}

/// The keys that `up` makes and keeps for commands on the same machine.
#[derive(Serialize, Deserialize)]
pub struct SavedKeys {
    pub partner: Credentials,
    pub operator: Credentials,
}

impl SavedKeys {
    /// Reads the keys in `folder`; none if `up` has kept none there.
    ///
    /// # Errors
    /// `Error::Setup` if the file cannot be read.
    pub fn load(folder: &Path) -> Result<Option<SavedKeys>> {
        let file = SavedKeys::file(folder);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::Setup(format!("{} cannot be read: {e}", file.display()))),
        };
        let read = serde_json::from_str(&text).map_err(|e| Error::Setup(format!("{}: {e}", file.display())))?;
        Ok(Some(read))
    }

    /// Writes the keys into `folder`, in a file that only its owner can read.
    ///
    /// # Errors
    /// `Error::Setup` if the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        write_secret(&SavedKeys::file(folder), &text)
    }

    fn file(folder: &Path) -> PathBuf {
        folder.join("credentials.json")
    }
}

/// Calls `/readyz` of the hub at `url`, within five seconds. Returns whether it is ready, and the body of the answer.
///
/// # Errors
/// `Error::Setup` if no hub answers.
pub async fn readiness(url: &str) -> Result<(bool, Value)> {
    let address = format!("{}/readyz", url.trim_end_matches('/'));
    let unreachable = |e: reqwest::Error| {
        let why = if e.is_connect() { "nothing listens there" } else { "no valid answer in time" };
        Error::Setup(format!("{address} does not answer ({why}); start a hub with `notihub up`, or give --url"))
    };
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().map_err(unreachable)?;
    let answer = client.get(&address).send().await.map_err(unreachable)?;
    let ready = answer.status().is_success();
    let body = answer.bytes().await.map_err(unreachable)?;
    Ok((ready, serde_json::from_slice(&body).unwrap_or_default()))
}

/// A client of one hub. It signs in on the first request, and again when its token has expired.
pub struct Client {
    http: reqwest::Client,
    url: String,
    credentials: Credentials,
    /// Whether the credentials are those that `up` keeps, because none were given.
    kept: bool,
    /// The user on whose behalf requests are sent.
    user: Option<String>,
    /// The access token of the last sign-in.
    token: Mutex<Option<String>>,
}

impl Client {
    /// A client with the given credentials; without any, as the demo partner whose key `up` keeps.
    ///
    /// # Errors
    /// `Error::Usage` if only one of id and secret is given; `Error::Setup` if no key is kept either.
    pub fn new(target: &Target) -> Result<Client> {
        Client::with(target, target.credentials(|kept| kept.partner)?)
    }

    /// A client with the given credentials; without any, as the operator whose key `up` keeps.
    ///
    /// # Errors
    /// `Error::Usage` if only one of id and secret is given; `Error::Setup` if no key is kept either.
    pub fn operating(target: &Target) -> Result<Client> {
        Client::with(target, target.credentials(|kept| kept.operator)?)
    }

    fn with(target: &Target, credentials: Credentials) -> Result<Client> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| Error::Setup(format!("the HTTP client cannot start: {e}")))?;
        let url = target.url.trim_end_matches('/').to_owned();
        let kept = target.client_id.is_none();
        Ok(Client { http, url, credentials, kept, user: None, token: Mutex::default() })
    }

    /// The client for requests on behalf of a user of the partner, by the partner's own id of it.
    pub fn on_behalf_of(self, user: &str) -> Client {
        Client { user: Some(user.to_owned()), ..self }
    }

    /// GET `path`. Returns the JSON body of a 2xx, null if there is none.
    ///
    /// # Errors
    /// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send_authenticated(|| self.with_user(self.http.get(format!("{}{path}", self.url)))).await
    }

    /// POST `body` to `path`. Returns the JSON body of a 2xx.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send_authenticated(|| self.post_request(path, body)).await
    }

    /// PATCH `path` with `body`. Returns the JSON body of a 2xx.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        let request = || self.http.patch(format!("{}{path}", self.url)).header("content-type", "application/json");
        self.send_authenticated(|| request().body(body.to_string())).await
    }

    /// DELETE `path`. Returns the JSON body of a 2xx, null if there is none.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.send_authenticated(|| self.http.delete(format!("{}{path}", self.url))).await
    }

    /// POST `body` to `path` once. Returns the status and body of any answer, none if there was no answer.
    pub async fn try_post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let token = self.token().await.ok()?;
        let response = self.post_request(path, body).bearer_auth(token).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, serde_json::from_slice(&response.bytes().await.ok()?).unwrap_or(Value::Null)))
    }

    fn post_request(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        self.with_user(request.body(body.to_string()))
    }

    fn with_user(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.user {
            Some(user) => request.header("x-user", user),
            None => request,
        }
    }

    /// The access token of the last sign-in; signs in if there is none.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn token(&self) -> Result<String> {
        let kept = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = kept {
            return Ok(token);
        }
        let Credentials { client_id, client_secret } = &self.credentials;
        let body = json!({"clientId": client_id, "clientSecret": client_secret});
        let signed_in = self.read(self.post_request("/v1/auth/token", &body)).await?;
        let token = signed_in["accessToken"].as_str().unwrap_or_default().to_owned();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    /// Sends a request with a token. Signs in again once if the kept token is refused.
    async fn send_authenticated(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Value> {
        let fresh = self.token.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let answered = self.read(request().bearer_auth(self.token().await?)).await;
        match answered {
            Err(Error::Answered { problem, .. }) if problem["status"] == 401 && !fresh => {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.read(request().bearer_auth(self.token().await?)).await
            }
            answered => answered,
        }
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
        let problem = if body.is_object() { body } else { json!({"status": status.as_u16()}) };
        let mut message = problem_text(status, &problem);
        if status == reqwest::StatusCode::NOT_FOUND && self.kept {
            message.push_str(
                "\n  this command signed in with a key that `up` keeps; to sign in as another partner, set \
                 NOTIHUB_CLIENT_ID and NOTIHUB_CLIENT_SECRET",
            );
        }
        Err(Error::Answered { message, problem })
    }

    /// Reads a message until its overall status is final, for at most `within`. Returns the message, and whether the
    /// status is final.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn wait_until_settled(&self, message_id: &str, within: Duration) -> Result<(Value, bool)> {
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

/// A problem as text: one line, or a line for each fault if there are several.
fn problem_text(status: reqwest::StatusCode, problem: &Value) -> String {
    let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let faults = problem["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let mut lines = match faults {
        [_, _, ..] => format!("{status}:"),
        _ if problem["detail"].is_string() => {
            format!("{status}: {} ({})", text(problem, "detail"), text(problem, "reason"))
        }
        _ => format!("{status}, with no detail given"),
    };
    for fault in faults.iter().filter(|_| faults.len() > 1) {
        lines.push_str(&format!(
            "\n  {} {} ({})",
            text(fault, "pointer"),
            text(fault, "detail"),
            text(fault, "reason")
        ));
    }
    if matches!(problem["reason"].as_str(), Some("endpoint_not_active" | "endpoint_disabled")) {
        lines.push_str("\n  notihub webhook resume ID makes it ACTIVE");
    }
    lines
}
