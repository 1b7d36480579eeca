//! Access: partners, keys, tokens, rates and the audit log.

mod audit;
mod partner;
mod rate;
mod refresh_token;
mod sign_in;
mod sign_in_limit;
mod tenancy;
mod token;

use std::net::SocketAddr;

use notihub::flow::partner::Credentials;
use notihub::hub::{Hub, Parts};
use notihub::provider::Providers;
use notihub::shutdown::Shutdown;
use notihub::{api, flow, http, store};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, MASTER_KEY, settings};

fn told(value: &Value) -> Credentials {
    let text = |name: &str| value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}")).to_owned();
    Credentials { client_id: text("clientId"), client_secret: text("clientSecret") }
}

/// The key that signs now, as only the hub has it.
async fn signing_key(app: &App) -> (String, Vec<u8>) {
    let keys = store::signing_key::list(app.hub.store.api(), app.hub.clock.now()).await.unwrap();
    let key = keys.last().unwrap();
    let secret = app.hub.keyring.open(&format!("signing_keys|sealed|{}", key.kid), &key.sealed).unwrap();
    (key.kid.clone(), secret)
}

/// The same, with a field set; none: without it.
fn with(value: &Value, name: &str, to: impl Into<Option<Value>>) -> Value {
    let mut value = value.clone();
    let fields = value.as_object_mut().unwrap();
    match to.into() {
        Some(to) => fields.insert(name.to_owned(), to),
        None => fields.remove(name),
    };
    value
}

/// Refused like every other, and told no more than that.
#[track_caller]
fn unauthenticated(what: &str, answer: Answer) {
    assert_eq!((answer.status, &answer.body["reason"]), (401, &json!("unauthenticated")), "{what}: {}", answer.text);
    let told = (answer.header("www-authenticate"), &answer.body["code"], answer.header("content-type"));
    assert_eq!(told, ("Bearer", &json!("E002"), "application/problem+json"), "{what}");
}

struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    fn of(answer: &Answer) -> Tokens {
        let text = |name: &str| answer.body[name].as_str().unwrap().to_owned();
        Tokens { access: text("accessToken"), refresh: text("refreshToken") }
    }
}

async fn try_sign_in(app: &App, key: &flow::partner::Credentials) -> Answer {
    let body = json!({"clientId": key.client_id, "clientSecret": key.client_secret});
    app.ask("", "POST", "/v1/auth/token", Some(body)).await
}

async fn signed_in(app: &App, key: &flow::partner::Credentials) -> Tokens {
    Tokens::of(&try_sign_in(app, key).await.expect(200))
}

async fn refresh(app: &App, token: &str) -> Answer {
    app.ask("", "POST", "/v1/auth/refresh", Some(json!({"refreshToken": token}))).await
}

async fn refreshed(app: &App, token: &str) -> Tokens {
    Tokens::of(&refresh(app, token).await.expect(200))
}

async fn looks(app: &App, tokens: &Tokens) -> Answer {
    app.ask(&tokens.access, "GET", "/v1/messages", None).await
}

/// Another process of the same hub: its own memory, the same database and clock.
struct Other {
    hub: Hub,
    address: SocketAddr,
}

impl Other {
    async fn of(app: &App) -> Other {
        Other::with(app, &["--accept-loss"]).await
    }

    async fn with(app: &App, flags: &[&str]) -> Other {
        let parts = Parts {
            settings: settings(flags),
            store: crate::support::database::store(&app.url),
            providers: Providers::default(),
            clock: app.hub.clock.clone(),
            shutdown: Shutdown::new(),
            master_keys: vec![MASTER_KEY],
        };
        let hub = flow::start(parts).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        http::server::start(listener, api::router(&hub), &hub.shutdown);
        Other { hub, address }
    }

    async fn looks(&self, tokens: &Tokens) -> Answer {
        let request = reqwest::Client::new().get(format!("http://{}/v1/messages", self.address));
        Answer::read(request.bearer_auth(&tokens.access)).await
    }

    async fn done(self) {
        self.hub.shutdown.stop();
        assert!(self.hub.shutdown.drained(std::time::Duration::from_secs(20)).await);
        self.hub.store.close().await;
    }
}
