//! Simulates Slack's incoming webhooks: `POST /services/T…/B…/…` accepts what Slack accepts, and refuses the rest with
//! Slack's error words.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::{Behaviour, ConnectionCut, Control, ServiceResult};
use crate::error::Result;
use crate::shutdown::Shutdown;

const MAX_BLOCKS: usize = 50;
const REFUSAL: (u16, &str) = (500, "rollup_error");

/// An accepted post.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Post {
    /// The last part of the webhook's path.
    pub hook: String,
    pub text: Option<String>,
    pub blocks: Option<Value>,
}

/// The running simulator. Clones share its state.
#[derive(Clone)]
pub struct SlackSimulator {
    address: SocketAddr,
    control: Control<Post>,
    rate: PostRate,
}

/// The least interval between two accepted posts, the time of the last one, and the number of posts refused as too
/// soon.
#[derive(Debug, Clone, Default)]
struct PostRate(Arc<Mutex<(Duration, Option<Instant>, u64)>>);

impl PostRate {
    /// Returns whether a post is accepted now. Counts those that are not.
    fn admit(&self) -> bool {
        let mut rate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let admitted = rate.1.is_none_or(|last| now.duration_since(last) >= rate.0);
        if admitted {
            rate.1 = Some(now);
        } else {
            rate.2 += 1;
        }
        admitted
    }

    /// The interval for `Retry-After`, in whole seconds: at least one.
    fn interval_seconds(&self) -> u32 {
        let pace = self.0.lock().unwrap_or_else(PoisonError::into_inner).0;
        u32::try_from(pace.as_secs_f64().ceil() as i64).unwrap_or(1).max(1)
    }
}

impl SlackSimulator {
    /// Starts the simulator on 127.0.0.1. Port 0 takes any free one.
    ///
    /// # Errors
    /// `Error::Setup` if it cannot listen on the port.
    pub async fn start(port: u16, shutdown: &Shutdown) -> Result<SlackSimulator> {
        let listener = super::listen(port).await?;
        let address = super::bound_address(&listener)?;
        let simulator = SlackSimulator { address, control: Control::new(), rate: PostRate::default() };
        let session = {
            let (simulator, shutdown) = (simulator.clone(), shutdown.clone());
            move |stream| {
                let (simulator, stopping) = (simulator.clone(), shutdown.clone());
                let respond = move |request| respond(simulator.clone(), stopping.clone(), request);
                super::serve_http(stream, shutdown.clone(), respond)
            }
        };
        shutdown.spawn(super::accept_connections(listener, shutdown.clone(), session));
        Ok(simulator)
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a webhook's URL. `name` (letters and digits) becomes the field `hook` of the records.
    pub fn webhook_url(&self, name: &str) -> String {
        format!("http://{}/services/T00000000/B00000000/{name}", self.address)
    }

    /// The number of accepted posts that are recorded.
    pub fn accepted_count(&self) -> u64 {
        self.control.record_count()
    }

    /// Returns the accepted posts, in order of arrival.
    pub fn records(&self) -> Vec<Post> {
        self.control.records()
    }

    /// From now on accepts one post in each interval of this length, and answers the others with 429 and `Retry-After`.
    pub fn set_min_interval(&self, pace: Duration) {
        self.rate.0.lock().unwrap_or_else(PoisonError::into_inner).0 = pace;
    }

    /// The number of posts refused as too soon.
    pub fn too_soon_count(&self) -> u64 {
        self.rate.0.lock().unwrap_or_else(PoisonError::into_inner).2
    }

    /// Sets the behaviour for the next `times` valid posts, after those scripted before.
    pub fn script(&self, behaviour: Behaviour, times: u32) {
        self.control.push_script(behaviour, times);
    }

    /// Empties the script: from now on every valid post is accepted.
    pub fn clear_script(&self) {
        self.control.clear_script();
    }
}

async fn respond(simulator: SlackSimulator, shutdown: Shutdown, request: Request<Incoming>) -> ServiceResult {
    let SlackSimulator { control: desk, rate, .. } = simulator;
    if request.method() != Method::POST || !request.uri().path().starts_with("/services/") {
        return Ok(super::serve_control(&desk, REFUSAL, request).await);
    }
    let Some(hook) = webhook_token(request.uri().path()) else {
        return Ok(super::text_response(StatusCode::NOT_FOUND, "no_service"));
    };
    let json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let Some(body) = super::read_body(request).await.filter(|_| json) else {
        return Ok(super::text_response(StatusCode::BAD_REQUEST, "invalid_payload"));
    };
    match parse_post(hook, &body) {
        Ok(_) if !rate.admit() => Ok(rate_limited(rate.interval_seconds())),
        Ok(post) => apply_behaviour(&desk, &shutdown, post, body.len()).await,
        Err(word) => Ok(super::text_response(StatusCode::BAD_REQUEST, word)),
    }
}

/// Returns the last part of a path `/services/T…/B…/…`.
fn webhook_token(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.strip_prefix("/services/")?.split('/').collect();
    let [team, service, token] = parts.as_slice() else { return None };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    (team.starts_with('T') && service.starts_with('B') && is_word(team) && is_word(service) && is_word(token))
        .then(|| (*token).to_owned())
}

/// Parses a post, or returns Slack's error word.
fn parse_post(hook: String, body: &Bytes) -> Result<Post, &'static str> {
    let Ok(Value::Object(mut payload)) = serde_json::from_slice(body) else { return Err("invalid_payload") };
    let text = match payload.remove("text") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text).filter(|text| !text.is_empty()),
        Some(_) => return Err("invalid_payload"),
    };
    let blocks = payload.remove("blocks").filter(|blocks| !blocks.is_null());
    let listed = match &blocks {
        None => 0,
        Some(Value::Array(list)) if list.len() <= MAX_BLOCKS && list.iter().all(|block| block["type"].is_string()) => {
            list.len()
        }
        Some(_) => return Err("invalid_blocks"),
    };
    if text.is_none() && listed == 0 { Err("no_text") } else { Ok(Post { hook, text, blocks }) }
}

fn rate_limited(retry_after: u32) -> Response<Full<Bytes>> {
    let mut limited = super::text_response(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    limited.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
    limited
}

async fn apply_behaviour(control: &Control<Post>, shutdown: &Shutdown, post: Post, bytes: usize) -> ServiceResult {
    match control.next_behaviour() {
        Behaviour::Ok => {
            control.record(post, bytes);
            Ok(super::text_response(StatusCode::OK, "ok"))
        }
        Behaviour::Fail { status, text } => {
            Ok(super::text_response(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &text))
        }
        Behaviour::Limit { retry_after } => Ok(rate_limited(retry_after)),
        Behaviour::Hang => {
            control.record(post, bytes);
            // This future is dropped when the client closes the connection.
            shutdown.stopping().await;
            Err(ConnectionCut)
        }
        Behaviour::Cut => {
            control.record(post, bytes);
            Err(ConnectionCut)
        }
        Behaviour::CutBefore => Err(ConnectionCut),
        Behaviour::Garbage => Ok(super::text_response(StatusCode::OK, "<html><body>It works!</body></html>")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{BUDGET, rustls_provider};
    use super::*;

    /// A simulator and an HTTP client that calls it.
    struct Caller {
        client: reqwest::Client,
        simulator: SlackSimulator,
        _shutdown: Shutdown,
    }

    impl Caller {
        async fn new() -> Caller {
            rustls_provider();
            let shutdown = Shutdown::new();
            let client = reqwest::Client::builder().no_proxy().timeout(BUDGET).tls_certs_only([]).build().unwrap();
            Caller { client, simulator: SlackSimulator::start(0, &shutdown).await.unwrap(), _shutdown: shutdown }
        }

        async fn send(&self, method: Method, path: &str, kind: &str, body: String) -> (u16, String) {
            let url = format!("http://{}{path}", self.simulator.address());
            let request = self.client.request(method, url).header("content-type", kind).body(body);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }

        async fn post(&self, path: &str, body: &Value) -> (u16, String) {
            self.send(Method::POST, path, "application/json; charset=utf-8", body.to_string()).await
        }
    }

    const HOOK: &str = "/services/T1/B2/x-3";

    #[tokio::test]
    async fn invalid_posts_are_refused_in_slacks_words() {
        let caller = Caller::new().await;
        let said = |status: u16, word: &str| (status, word.to_owned());
        for path in
            ["/services/T1/B2", "/services/X1/B2/x", "/services/T1/X2/x", "/services/T1/B2/", "/services/T1/B2/a/b"]
        {
            assert_eq!(caller.post(path, &json!({ "text": "x" })).await, said(404, "no_service"), "{path}");
        }
        for payload in [json!([]), json!("x"), json!({ "text": 1 })] {
            assert_eq!(caller.post(HOOK, &payload).await, said(400, "invalid_payload"), "{payload}");
        }
        let form = caller.send(Method::POST, HOOK, "text/plain", "{}".to_owned()).await;
        assert_eq!(form, said(400, "invalid_payload"));
        let broken = caller.send(Method::POST, HOOK, "application/json", "{".to_owned()).await;
        assert_eq!(broken, said(400, "invalid_payload"));
        for payload in [json!({}), json!({ "text": "" }), json!({ "text": null, "blocks": [] })] {
            assert_eq!(caller.post(HOOK, &payload).await, said(400, "no_text"), "{payload}");
        }
        let block = json!({ "type": "divider" });
        for blocks in [json!({}), json!([1]), json!([{ "type": 1 }]), json!(vec![block.clone(); 51])] {
            assert_eq!(caller.post(HOOK, &json!({ "blocks": blocks })).await, said(400, "invalid_blocks"), "{blocks}");
        }
        assert_eq!(caller.simulator.records(), []);
        assert_eq!(caller.post(HOOK, &json!({ "blocks": vec![block; 50] })).await, said(200, "ok"));
    }

    #[tokio::test]
    async fn records_and_script_are_served_over_http() {
        let caller = Caller::new().await;
        let ok = (200, "ok".to_owned());
        let order = json!({ "do": "fail", "status": 403, "text": "action_prohibited", "times": 2 });
        assert_eq!(caller.post("/_script", &order).await, ok);
        assert_eq!(caller.post("/_script", &json!({ "do": "limit", "retryAfter": 7 })).await, ok);
        assert_eq!(caller.post("/_script", &json!({ "do": "garbage", "times": 9 })).await, ok);
        let text = json!({ "text": "hello" });
        for _ in 0..2 {
            assert_eq!(caller.post(HOOK, &text).await, (403, "action_prohibited".to_owned()));
        }
        assert_eq!(caller.post(HOOK, &text).await, (429, "rate_limited".to_owned()));
        assert!(caller.post(HOOK, &text).await.1.starts_with("<html>"));
        let nothing = String::new();
        assert_eq!(caller.send(Method::DELETE, "/_script", "", nothing.clone()).await, ok);
        assert_eq!(caller.post(HOOK, &text).await, ok);

        let (status, records) = caller.send(Method::GET, "/_records", "", nothing.clone()).await;
        assert_eq!(status, 200);
        let records: Value = serde_json::from_str(&records).unwrap();
        assert_eq!(records, json!([{ "hook": "x-3", "text": "hello", "blocks": null }]));

        for order in [
            json!({}),
            json!({ "do": "explode" }),
            json!({ "do": "fail", "status": 200 }),
            json!({ "do": "fail", "text": "a\nb" }),
            json!({ "do": "ok", "time": 1 }),
        ] {
            assert_eq!(caller.post("/_script", &order).await.0, 400, "{order}");
        }
        assert_eq!(caller.send(Method::DELETE, "/_records", "", nothing.clone()).await.0, 405);
        assert_eq!(caller.send(Method::GET, "/", "", nothing).await.0, 404);
    }

    /// Faults E1: with a minimum interval, posts between two accepted ones get a 429 with `Retry-After`.
    #[tokio::test]
    async fn minimum_interval_refuses_posts_in_between() {
        let caller = Caller::new().await;
        caller.simulator.set_min_interval(Duration::from_secs(3_600));
        let post = json!({"text": "hello"});
        assert_eq!(caller.post(HOOK, &post).await.0, 200);
        assert_eq!(caller.post(HOOK, &post).await, (429, "rate_limited".to_owned()));
        assert_eq!((caller.simulator.accepted_count(), caller.simulator.too_soon_count()), (1, 1));
        caller.simulator.set_min_interval(Duration::ZERO);
        assert_eq!(caller.post(HOOK, &post).await.0, 200);
    }
}
