//! Slack's incoming webhooks: one URL posts to one channel of one workspace. The URL is the credential, so it stands in
//! the settings under a name, and no log, error or `Debug` output shows it.
//!
//! Slack answers `200` with the body `ok`, or another status with one error word. A 2xx with any other body is an
//! unknown outcome, unless the settings call the destination compatible: then any 2xx is acceptance. Slack has no
//! idempotency key, so a second post after an unknown outcome may be a duplicate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::error::{Error, Result, excerpt};
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::message::Content;
use crate::model::mrkdwn;
use crate::model::pace::LimitScope;
use crate::model::retry::ErrorClass;

use super::http::{ClientSettings, ConnectionPolicy, DecidedBy, HttpClient, HttpResponse, is_loopback};
use super::{BoxFuture, Provider, SendRequest};

/// Slack's error words, and the class of each. Each webhook is a credential of its own: that one is revoked says
/// nothing about the others, so such an error has the class `Sender`, not `Credentials`, which would stop the whole
/// provider.
const ERROR_WORDS: [(&str, ErrorClass); 27] = [
    ("account_inactive", ErrorClass::Sender),
    ("action_prohibited", ErrorClass::Sender),
    ("channel_is_archived", ErrorClass::Address),
    ("channel_not_found", ErrorClass::Address),
    ("fatal_error", ErrorClass::ProviderInternal),
    ("internal_error", ErrorClass::ProviderInternal),
    ("invalid_auth", ErrorClass::Sender),
    ("invalid_blocks", ErrorClass::Content),
    ("invalid_blocks_format", ErrorClass::Content),
    ("invalid_payload", ErrorClass::Content),
    ("invalid_token", ErrorClass::Sender),
    ("is_archived", ErrorClass::Address),
    ("msg_too_long", ErrorClass::Content),
    ("no_active_hooks", ErrorClass::Sender),
    ("no_service", ErrorClass::Sender),
    ("no_service_id", ErrorClass::Sender),
    ("no_team", ErrorClass::Sender),
    ("no_text", ErrorClass::Content),
    ("posting_to_general_channel_denied", ErrorClass::Sender),
    ("rate_limited", ErrorClass::Throttled),
    ("ratelimited", ErrorClass::Throttled),
    ("rollup_error", ErrorClass::ProviderInternal),
    ("service_unavailable", ErrorClass::ProviderInternal),
    ("team_disabled", ErrorClass::Sender),
    ("token_revoked", ErrorClass::Sender),
    ("too_many_attachments", ErrorClass::Content),
    ("user_not_found", ErrorClass::Address),
];

/// What the Slack provider is built from.
pub struct SlackSettings {
    /// Webhook URLs by the name that messages address.
    pub destinations: BTreeMap<String, String>,
    /// The destinations where any 2xx is acceptance: servers that accept Slack's format and answer with another body.
    pub compatible: BTreeSet<String>,
    pub connections: ConnectionPolicy,
    pub common: ClientSettings,
}

impl fmt::Debug for SlackSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackSettings")
            .field("destinations", &self.destinations.keys())
            .field("compatible", &self.compatible)
            .finish_non_exhaustive()
    }
}

/// The provider of the channel SLACK.
pub struct Slack {
    http: HttpClient,
    webhook_urls: BTreeMap<String, Url>,
    compatible: BTreeSet<String>,
}

impl Slack {
    /// Builds the provider from its destinations.
    ///
    /// # Errors
    /// `Error::Usage` if a URL is not https (or http to this machine); those of [`HttpClient::new`].
    pub fn new(settings: &SlackSettings) -> Result<Slack> {
        let mut hooks = BTreeMap::new();
        for (name, url) in &settings.destinations {
            hooks.insert(name.clone(), parse_webhook_url(name, url)?);
        }
        let tls = hooks.values().any(|url| url.scheme() == "https");
        let http = HttpClient::new(&settings.common, settings.connections, tls)?;
        Ok(Slack { http, webhook_urls: hooks, compatible: settings.compatible.clone() })
    }

    async fn post(&self, request: SendRequest<'_>) -> Outcome {
        let Some(url) = self.webhook_urls.get(request.to) else {
            // The destination existed when the message was posted; the settings have changed since.
            let detail = format!("the settings have no Slack destination '{}'", excerpt(request.to));
            return rejected(ErrorClass::Sender, "destination_unknown", detail, None);
        };
        let body = payload(request.content).to_string().into_bytes();
        let compatible = self.compatible.contains(request.to);
        let decided_by = if compatible { DecidedBy::Status } else { DecidedBy::Body };
        match self.http.post_json(url, body, HeaderMap::new(), decided_by).await {
            Ok(answer) => outcome_of(&answer, compatible),
            Err(failure) => failure.into_outcome(),
        }
    }

    async fn check_hosts(&self) -> Result<String, String> {
        let mut hosts: BTreeMap<&str, &Url> = BTreeMap::new();
        hosts.extend(self.webhook_urls.values().map(|url| (url.host_str().unwrap_or_default(), url)));
        for (host, url) in &hosts {
            if let Err(failure) = self.http.probe(url).await {
                return Err(format!("{host} cannot be reached: {failure}"));
            }
        }
        let names: Vec<&str> = hosts.into_keys().collect();
        match self.webhook_urls.len() {
            0 => Err("the settings have no Slack destination, so nothing can be sent to Slack".to_owned()),
            n => Ok(format!("{n} destination(s); {} answers", names.join(", "))),
        }
    }
}

impl Provider for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Slack)]
    }

    fn max_concurrent_calls(&self) -> usize {
        // Slack accepts about one post a second on each webhook; more concurrency would only get 429s.
        32
    }

    /// Slack limits each webhook separately, to about one message a second.
    fn limited_by(&self) -> LimitScope {
        LimitScope::Destination
    }

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(request))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.check_hosts())
    }
}

fn parse_webhook_url(name: &str, url: &str) -> Result<Url> {
    let invalid = |problem: &str| {
        let remedy =
            "copy it from the app's page 'Incoming Webhooks' at Slack; plain http is allowed only to this machine";
        Err(Error::Usage(format!("Slack destination '{}': its URL {problem}: {remedy}", excerpt(name))))
    };
    match Url::parse(url.trim()) {
        Ok(url) if url.scheme() == "https" && url.has_host() => Ok(url),
        Ok(url) if url.scheme() == "http" && url.host_str().is_some_and(is_loopback) => Ok(url),
        Ok(_) => invalid("does not begin with https://"),
        Err(error) => invalid(&format!("cannot be read ({error})")),
    }
}

/// Makes the JSON of a post. With blocks, Slack shows the text only where blocks cannot be shown.
fn payload(content: &Content) -> Value {
    let mut payload = json!({ "text": mrkdwn::text(content.subject.as_deref(), &content.body) });
    if let Some(blocks) = &content.blocks {
        payload["blocks"] = blocks.clone();
    }
    payload
}

fn rejected(class: ErrorClass, code: &str, detail: String, retry_after: Option<Duration>) -> Outcome {
    Outcome::Rejected { class, code: code.to_owned(), detail, retry_after }
}

/// Returns the outcome of a response. Of its body only Slack's own words are repeated, because an error page of a proxy
/// may show the URL. `compatible`: any 2xx is acceptance, unless the body says that it is not.
fn outcome_of(answer: &HttpResponse, compatible: bool) -> Outcome {
    let text = str::from_utf8(&answer.body).map(str::trim).unwrap_or_default();
    let error_field =
        serde_json::from_str::<Value>(text).ok().and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
    let error_word = error_field.as_deref().unwrap_or(text);
    let error_word = ERROR_WORDS.into_iter().find(|(known, _)| *known == error_word);
    let rejected_as =
        |class, code: &str| rejected(class, code, format!("answered {}", answer.status), answer.retry_after);
    match (answer.status, error_word) {
        (200..=299, _) if parse_acceptance(text) == Some(true) => Outcome::Accepted { provider_ref: None },
        (429, _) => rejected_as(ErrorClass::Throttled, "rate_limited"),
        (_, Some((error_word, class))) => rejected_as(class, error_word),
        (200..=299, None) if parse_acceptance(text) == Some(false) => rejected_as(ErrorClass::Content, "refused"),
        (200..=299, None) if compatible => Outcome::Accepted { provider_ref: None },
        (200..=299, None) => {
            let detail = format!("answered {} without Slack's \"ok\"; see --slack-compatible", answer.status);
            Outcome::Unknown { code: "answer_unreadable", detail }
        }
        (status, None) => match class_by_status(status) {
            Some(class) => rejected_as(class, &format!("http_{status}")),
            // The failure may have happened after Slack posted the message.
            None => Outcome::Unknown {
                code: "http_5xx",
                detail: format!("answered {status} without an error word of Slack"),
            },
        },
    }
}

/// Returns whether a body accepts or refuses, as Slack and compatible servers say it: `ok`, `{"ok": true}`,
/// `{"success": true}`. `None` if it says neither.
fn parse_acceptance(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("ok") {
        return Some(true);
    }
    let body: Value = serde_json::from_str(text).ok()?;
    body["ok"].as_bool().or(body["success"].as_bool())
}

/// Returns the class of a status without one of Slack's words. `None`: the outcome is unknown.
fn class_by_status(status: u16) -> Option<ErrorClass> {
    match status {
        // Redirects are not followed, so a webhook that has moved is gone.
        300..=399 | 401 | 403 | 404 | 410 => Some(ErrorClass::Sender),
        408 | 425 | 503 => Some(ErrorClass::ProviderInternal),
        500.. => None,
        _ => Some(ErrorClass::Content),
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulator::Behaviour;
    use super::super::simulator::slack::SlackSimulator;
    use super::super::simulator::testing::{
        BUDGET, SHORT, closed_port, content, rejected, rustls_provider, send_request, unknown,
    };
    use super::*;
    use crate::shutdown::Shutdown;

    fn slack(url: &str, call_budget: Duration) -> Result<Slack> {
        rustls_provider();
        let destinations = BTreeMap::from([("ops".to_owned(), url.to_owned())]);
        Slack::new(&SlackSettings {
            destinations,
            compatible: BTreeSet::new(),
            connections: ConnectionPolicy::KeepAlive,
            common: ClientSettings::with_budget(call_budget),
        })
    }

    async fn simulated(call_budget: Duration) -> (SlackSimulator, Slack, Shutdown) {
        let shutdown = Shutdown::new();
        let simulator = SlackSimulator::start(0, &shutdown).await.unwrap();
        let slack = slack(&simulator.webhook_url("SECRET"), call_budget).unwrap();
        (simulator, slack, shutdown)
    }

    async fn send(slack: &Slack) -> Outcome {
        slack.send(send_request("ops", &content(Some("disk full"), "on db-1"))).await
    }

    fn fail(status: u16, text: &str) -> Behaviour {
        Behaviour::Fail { status, text: text.to_owned() }
    }

    #[tokio::test]
    async fn message_is_escaped_as_plain_text() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        let content = content(Some(" R&D:\r\ndown "), "see <http://x|y>, <!channel> & 한글");
        assert_eq!(slack.send(send_request("ops", &content)).await, Outcome::Accepted { provider_ref: None });
        let post = simulator.records().pop().unwrap();
        assert_eq!(post.text.unwrap(), "*R&amp;D: down*\nsee &lt;http://x|y&gt;, &lt;!channel&gt; &amp; 한글");
        assert_eq!((post.hook.as_str(), post.blocks), ("SECRET", None));
    }

    #[tokio::test]
    async fn blocks_pass_as_they_are() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        let blocks = json!([{ "type": "section", "text": { "type": "mrkdwn", "text": "<https://x|*y*> & <!here>" } }]);
        let content = Content { blocks: Some(blocks.clone()), ..content(None, "plain") };
        assert!(matches!(slack.send(send_request("ops", &content)).await, Outcome::Accepted { .. }));
        let post = simulator.records().pop().unwrap();
        assert_eq!((post.text.as_deref(), post.blocks), (Some("plain"), Some(blocks)));
    }

    #[tokio::test]
    async fn error_words_decide_the_class() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        for (word, class) in ERROR_WORDS {
            simulator.script(fail(if class == ErrorClass::ProviderInternal { 500 } else { 403 }, word), 1);
            assert_eq!(rejected(send(&slack).await), (class, word.to_owned()));
        }
        simulator.script(fail(404, "no_service\n"), 1);
        assert_eq!(rejected(send(&slack).await).1, "no_service", "white space around a word means nothing");
        assert_eq!(simulator.records(), []);
    }

    #[tokio::test]
    async fn status_decides_without_an_error_word() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        for (status, class) in [
            (302, ErrorClass::Sender),
            (400, ErrorClass::Content),
            (401, ErrorClass::Sender),
            (403, ErrorClass::Sender),
            (404, ErrorClass::Sender),
            (408, ErrorClass::ProviderInternal),
            (410, ErrorClass::Sender),
            (413, ErrorClass::Content),
            (503, ErrorClass::ProviderInternal),
        ] {
            simulator.script(fail(status, "<html>SECRET</html>"), 1);
            let outcome = send(&slack).await;
            assert!(!format!("{outcome:?}").contains("SECRET"), "an error page is not repeated: {outcome:?}");
            assert_eq!(rejected(outcome), (class, format!("http_{status}")));
        }
        for status in [500, 502, 504, 599] {
            simulator.script(fail(status, "<html>SECRET</html>"), 1);
            let outcome = send(&slack).await;
            assert!(!format!("{outcome:?}").contains("SECRET"), "{outcome:?}");
            assert_eq!(unknown(outcome), "http_5xx", "{status}");
        }
    }

    #[tokio::test]
    async fn rate_limit_has_its_pause() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        simulator.script(Behaviour::Limit { retry_after: 30 }, 1);
        let Outcome::Rejected { class, code, retry_after, .. } = send(&slack).await else { panic!("not rejected") };
        assert_eq!((class, code.as_str()), (ErrorClass::Throttled, "rate_limited"));
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
        simulator.script(fail(429, "whatever"), 1);
        assert_eq!(rejected(send(&slack).await).0, ErrorClass::Throttled, "also without a word or a pause");
    }

    #[tokio::test]
    async fn status_200_is_acceptance_only_with_ok() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        simulator.script(Behaviour::Garbage, 1);
        assert_eq!(unknown(send(&slack).await), "answer_unreadable", "it may have been taken");
        assert_eq!(simulator.records(), []);
        let answered_by = |body: &[u8], compatible| {
            outcome_of(&HttpResponse { status: 200, body: body.to_vec(), retry_after: None }, compatible)
        };
        let answered = |body: &[u8]| answered_by(body, false);
        let no = |word: &str| rejected(answered(format!("{{\"ok\":false,\"error\":\"{word}\"}}").as_bytes()));
        assert_eq!(no("ratelimited"), (ErrorClass::Throttled, "ratelimited".to_owned()));
        assert_eq!(no("something else"), (ErrorClass::Content, "refused".to_owned()));
        let yes = Outcome::Accepted { provider_ref: None };
        for body in [&b"OK"[..], b"{\"success\":true}", b"{\"ok\":true}"] {
            assert_eq!((answered_by(body, false), answered_by(body, true)), (yes.clone(), yes.clone()));
        }
        for body in [&b""[..], b"{\"id\":1}", b"<html>"] {
            assert_eq!((unknown(answered(body)), answered_by(body, true)), ("answer_unreadable", yes.clone()));
        }
        for compatible in [false, true] {
            assert_eq!(rejected(answered_by(b"{\"ok\":false}", compatible)).1, "refused");
            assert_eq!(rejected(answered_by(b"no_service", compatible)).0, ErrorClass::Sender);
        }
        assert_eq!(unknown(answered(b"")), "answer_unreadable");
        assert_eq!(unknown(answered(b" \r\n")), "answer_unreadable");
        assert_eq!(unknown(answered(b"\xff\xfe")), "answer_unreadable");
        assert_eq!(rejected(answered(b"invalid_token")).0, ErrorClass::Sender);
        assert_eq!(answered(b"ok"), Outcome::Accepted { provider_ref: None });
    }

    #[tokio::test]
    async fn no_answer_is_unknown() {
        let (simulator, slack, _shutdown) = simulated(BUDGET).await;
        simulator.script(Behaviour::Cut, 1);
        assert_eq!(unknown(send(&slack).await), "answer_cut");
        assert_eq!(simulator.records().len(), 1);
        simulator.script(Behaviour::CutBefore, 1);
        assert_eq!(unknown(send(&slack).await), "answer_cut");
        assert_eq!(simulator.records().len(), 1, "one request per call");
    }

    #[tokio::test]
    async fn a_call_ends_within_its_budget() {
        let (simulator, slack, shutdown) = simulated(SHORT).await;
        simulator.script(Behaviour::Hang, 1);
        assert_eq!(unknown(send(&slack).await), "no_answer");
        assert_eq!(simulator.records().len(), 1);
        shutdown.stop();
        assert!(shutdown.drained(BUDGET).await, "what hung has ended");
    }

    #[tokio::test]
    async fn closed_port_is_definite() {
        let slack = slack(&format!("http://{}/services/T0/B0/SECRET", closed_port().await), BUDGET).unwrap();
        let outcome = send(&slack).await;
        assert!(!format!("{outcome:?}").contains("SECRET"));
        assert_eq!(rejected(outcome), (ErrorClass::Unreachable, "connect_failed".to_owned()));
        assert!(slack.check().await.unwrap_err().contains("127.0.0.1 cannot be reached: connect_failed"));
    }

    #[tokio::test]
    async fn removed_destination_is_a_permanent_failure() {
        let (_simulator, slack, _shutdown) = simulated(BUDGET).await;
        let outcome = slack.send(send_request("dev", &content(None, "x"))).await;
        assert_eq!(rejected(outcome), (ErrorClass::Sender, "destination_unknown".to_owned()));
        assert_eq!(slack.check().await.unwrap(), "1 destination(s); 127.0.0.1 answers");
    }

    #[test]
    fn urls_are_not_shown_and_must_be_encrypted() {
        for url in [
            "http://hooks.slack.com/services/SECRET",
            "http://127.0.0.1.example.com/SECRET",
            "ftp://localhost/SECRET",
            "hooks.slack.com/SECRET",
            "",
        ] {
            let error = slack(url, BUDGET).err().unwrap().to_string();
            assert!(error.contains("'ops'") && error.contains("Incoming Webhooks"), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
        for url in ["https://hooks.slack.com/services/x", "http://localhost:1/x", "http://[::1]:1/x"] {
            assert!(slack(url, BUDGET).is_ok(), "{url}");
        }
        let destinations = BTreeMap::from([("ops".to_owned(), "https://hooks.slack.com/SECRET".to_owned())]);
        let settings = SlackSettings {
            destinations,
            compatible: BTreeSet::new(),
            connections: ConnectionPolicy::KeepAlive,
            common: ClientSettings::with_budget(BUDGET),
        };
        let shown = format!("{settings:?}");
        assert!(shown.contains("ops") && !shown.contains("SECRET"), "{shown}");
    }
}
