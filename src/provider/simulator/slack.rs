//! Slack's incoming webhooks: `POST /services/T…/B…/…` takes what Slack takes and refuses it with Slack's words.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::{Answered, Behaviour, Cut, Desk};
use crate::error::Result;
use crate::shutdown::Shutdown;

const BLOCKS: usize = 50;
const REFUSAL: (u16, &str) = (500, "rollup_error");

/// A post that was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Post {
    /// The last part of the webhook's path.
    pub hook: String,
    pub text: Option<String>,
    pub blocks: Option<Value>,
}

#[derive(Clone)]
pub struct SlackSimulator {
    address: SocketAddr,
    desk: Desk<Post>,
    pace: Pace,
}

/// A post that is in order is taken only so long after the one before.
#[derive(Debug, Clone, Default)]
struct Pace(Arc<Mutex<(Duration, Option<Instant>, u64)>>);

impl Pace {
    /// Whether one is taken now; counts those that are not.
    fn allows(&self) -> bool {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let allows = pace.1.is_none_or(|last| now.duration_since(last) >= pace.0);
        if allows {
            pace.1 = Some(now);
        } else {
            pace.2 += 1;
        }
        allows
    }

    /// In whole seconds, as `Retry-After` says it: at least one.
    fn seconds(&self) -> u32 {
        let pace = self.0.lock().unwrap_or_else(PoisonError::into_inner).0;
        u32::try_from(pace.as_secs_f64().ceil() as i64).unwrap_or(1).max(1)
    }
}

impl SlackSimulator {
    /// Port 0 takes any that is free.
    pub async fn start(port: u16, shutdown: &Shutdown) -> Result<SlackSimulator> {
        let listener = super::listen(port).await?;
        let address = super::bound(&listener)?;
        let simulator = SlackSimulator { address, desk: Desk::new(), pace: Pace::default() };
        let session = {
            let (simulator, shutdown) = (simulator.clone(), shutdown.clone());
            move |stream| {
                let (simulator, stopping) = (simulator.clone(), shutdown.clone());
                let respond = move |request| respond(simulator.clone(), stopping.clone(), request);
                super::serve(stream, shutdown.clone(), respond)
            }
        };
        shutdown.spawn(super::accept(listener, shutdown.clone(), session));
        Ok(simulator)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A webhook's URL; `name` (letters and digits) tells in the records which one was posted to.
    pub fn hook(&self, name: &str) -> String {
        format!("http://{}/services/T00000000/B00000000/{name}", self.address)
    }

    /// How many posts were taken.
    pub fn taken(&self) -> u64 {
        self.desk.taken()
    }

    pub fn records(&self) -> Vec<Post> {
        self.desk.records()
    }

    /// From now on takes one post in so long, and answers those between with 429 and `Retry-After`, in whole seconds.
    pub fn take_one_in(&self, pace: Duration) {
        self.pace.0.lock().unwrap_or_else(PoisonError::into_inner).0 = pace;
    }

    /// How many posts came too soon.
    pub fn too_soon(&self) -> u64 {
        self.pace.0.lock().unwrap_or_else(PoisonError::into_inner).2
    }

    /// What to do with the next `times` posts that are in order, after what was scripted before.
    pub fn script(&self, behaviour: Behaviour, times: u32) {
        self.desk.script(behaviour, times);
    }

    /// Behaves well from now on.
    pub fn forget_script(&self) {
        self.desk.forget_script();
    }
}

async fn respond(simulator: SlackSimulator, shutdown: Shutdown, request: Request<Incoming>) -> Answered {
    let SlackSimulator { desk, pace, .. } = simulator;
    if request.method() != Method::POST || !request.uri().path().starts_with("/services/") {
        return Ok(super::control(&desk, REFUSAL, request).await);
    }
    let Some(hook) = hook(request.uri().path()) else {
        return Ok(super::text(StatusCode::NOT_FOUND, "no_service"));
    };
    let json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let Some(body) = super::body(request).await.filter(|_| json) else {
        return Ok(super::text(StatusCode::BAD_REQUEST, "invalid_payload"));
    };
    match parse(hook, &body) {
        Ok(_) if !pace.allows() => Ok(limited(pace.seconds())),
        Ok(post) => act(&desk, &shutdown, post, body.len()).await,
        Err(word) => Ok(super::text(StatusCode::BAD_REQUEST, word)),
    }
}

/// `/services/T…/B…/…`
fn hook(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.strip_prefix("/services/")?.split('/').collect();
    let [team, service, token] = parts.as_slice() else { return None };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    (team.starts_with('T') && service.starts_with('B') && word(team) && word(service) && word(token))
        .then(|| (*token).to_owned())
}

/// Or Slack's word for what is wrong with it.
fn parse(hook: String, body: &Bytes) -> Result<Post, &'static str> {
    let Ok(Value::Object(mut payload)) = serde_json::from_slice(body) else { return Err("invalid_payload") };
    let text = match payload.remove("text") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text).filter(|text| !text.is_empty()),
        Some(_) => return Err("invalid_payload"),
    };
    let blocks = payload.remove("blocks").filter(|blocks| !blocks.is_null());
    let listed = match &blocks {
        None => 0,
        Some(Value::Array(list)) if list.len() <= BLOCKS && list.iter().all(|block| block["type"].is_string()) => {
            list.len()
        }
        Some(_) => return Err("invalid_blocks"),
    };
    if text.is_none() && listed == 0 { Err("no_text") } else { Ok(Post { hook, text, blocks }) }
}

fn limited(retry_after: u32) -> Response<Full<Bytes>> {
    let mut limited = super::text(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    limited.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
    limited
}

async fn act(desk: &Desk<Post>, shutdown: &Shutdown, post: Post, bytes: usize) -> Answered {
    match desk.next() {
        Behaviour::Ok => {
            desk.record(post, bytes);
            Ok(super::text(StatusCode::OK, "ok"))
        }
        Behaviour::Fail { status, text } => {
            Ok(super::text(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &text))
        }
        Behaviour::Limit { retry_after } => Ok(limited(retry_after)),
        Behaviour::Hang => {
            desk.record(post, bytes);
            // Dropped when the client goes away.
            shutdown.stopping().await;
            Err(Cut)
        }
        Behaviour::Cut => {
            desk.record(post, bytes);
            Err(Cut)
        }
        Behaviour::CutBefore => Err(Cut),
        Behaviour::Garbage => Ok(super::text(StatusCode::OK, "<html><body>It works!</body></html>")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{BUDGET, rustls_provider};
    use super::*;

    /// Somebody else's HTTP client at the simulator's door.
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
    async fn what_slack_refuses_is_refused_in_slacks_words() {
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
    async fn records_and_script_are_open_over_http() {
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

    /// Faults E1: between two posts that are taken, others are told when to come again.
    #[tokio::test]
    async fn a_hook_with_a_pace_takes_one_and_refuses_the_others() {
        let caller = Caller::new().await;
        caller.simulator.take_one_in(Duration::from_secs(3_600));
        let post = json!({"text": "hello"});
        assert_eq!(caller.post(HOOK, &post).await.0, 200);
        assert_eq!(caller.post(HOOK, &post).await, (429, "rate_limited".to_owned()));
        assert_eq!((caller.simulator.taken(), caller.simulator.too_soon()), (1, 1));
        caller.simulator.take_one_in(Duration::ZERO);
        assert_eq!(caller.post(HOOK, &post).await.0, 200);
    }
}
