//! Seed 001 as a whole: its settings in a file, its two APIs on this machine, one process, and what its diagrams
//! promise.

use notihub::provider::simulator::slack::SlackSimulator;
use notihub::provider::simulator::vendor::SimulatorSetup;
use notihub::provider::simulator::{Behaviour, kakaotalk, sms};
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub, get, http_to, operator_to, post};
use crate::support::wait::until;

/// The seed's `application.yml`, in this program's words.
fn configuration(kakaotalk: &str, sms: &str, slack: &str) -> String {
    format!(
        r#"
accept-loss = true
log = "info,notihub::flow::delivery=debug"
slack-destination = ["ops={slack}"]
alert-slack = "ops"
retry-max-attempts = 3
retry-backoff-delay = 1000
retry-multiplier = 2.0

[provider.kakaotalk]
adapter = "kakaotalk"
base-url = "{kakaotalk}"
username = "autoever"
password = "1234"
limit = "100/m"

[provider.sms]
adapter = "sms"
base-url = "{sms}"
username = "autoever"
password = "5678"
limit = "500/m"
limit-strategy = "token-bucket"
limit-burst = 100
"#
    )
}

fn message(channel: &str, body: &str) -> Value {
    json!({"type": "TEST", "body": body, "channels": [{"channel": channel, "to": "010-1234-5678"}]})
}

/// S1-1, S1-2, S1-3, S1-4, S1-5, S1-6, S1-7, S1-9, S1-10, S1-20, S1-28, S1-29, S1-30, S1-31, S1-32, S1-33, S1-34,
/// S1-35, S1-36, S1-37, S1-38, S1-39, S1-40, S1-41, S1-42, S1-43, S1-49, S1-55: both APIs are called as their settings
/// require; each call is logged and counted; Kakao that fails three times is followed by SMS; an outage of Kakao is
/// reported to operators once, Kakao is not called meanwhile, and messages that name a fallback go by it.
#[tokio::test]
async fn provider_system_of_seed_001_works_as_a_whole() {
    let (folder, ground) = (Folder::new(), Shutdown::new());
    let setup = || SimulatorSetup { rate: 0.0, ..SimulatorSetup::default() };
    let kakao = kakaotalk::start(setup(), &ground).await.unwrap();
    let texts = sms::start(setup(), &ground).await.unwrap();
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let url = fresh_database().await;
    let file = configuration(&kakao.url(), &texts.url(), &slack.webhook_url("ops"));
    std::fs::write(folder.path().join("notihub.toml"), file).unwrap();
    let mut hub =
        Notihub::new(&folder, &["serve", "--work", "--listen=127.0.0.1:0"]).env("NOTIHUB_DATABASE_URL", &url).start();
    let (address, http, operator) = (hub.address().await, http_to(&url).await, operator_to(&url).await);
    let posted = async |body: &Value| {
        let (status, answer) = post(&http, address, "/v1/messages", body).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        answer["messageId"].as_str().unwrap().to_owned()
    };
    let status = async |id: &str| get(&http, address, &format!("/v1/messages/{id}")).await.unwrap().1;
    let completed = async |id: &str| until("completed", async || status(id).await["status"] == "COMPLETED").await;

    let (first, second) = (posted(&message("KAKAO_ALIMTALK", "one")).await, posted(&message("SMS", "two")).await);
    completed(&first).await;
    completed(&second).await;
    let took = |vendor: &notihub::provider::simulator::vendor::VendorSimulator| {
        vendor.records().into_iter().map(|taken| taken.text).collect::<Vec<_>>()
    };
    assert_eq!((took(&kakao), took(&texts)), (vec!["one".to_owned()], vec!["two".to_owned()]));

    let mut with_fallback = message("KAKAO_ALIMTALK", "three");
    with_fallback["channels"][0]["fallback"] = json!([{"channel": "SMS", "body": "three by SMS"}]);
    kakao.script(Behaviour::Fail { status: 503, text: "down".into() }, 3);
    let third = posted(&with_fallback).await;
    completed(&third).await;
    let deliveries = status(&third).await["deliveries"].clone();
    assert_eq!((&deliveries[0]["status"], &deliveries[0]["attempt"]), (&json!("FAILED"), &json!(3)));
    assert_eq!((&deliveries[1]["status"], &deliveries[1]["channel"]), (&json!("SENT"), &json!("SMS")));
    assert_eq!(took(&texts).last().unwrap(), "three by SMS");

    // Down from here on.
    kakao.script(Behaviour::Fail { status: 503, text: "down".into() }, 1000);
    let mut waiting = Vec::new();
    for n in 0..10 {
        waiting.push(posted(&message("KAKAO_ALIMTALK", &format!("waits {n}"))).await);
    }
    let provider = async || {
        let list = get(&operator, address, "/v1/providers").await.unwrap().1;
        list["items"].as_array().unwrap().iter().find(|p| p["name"] == "kakaotalk").cloned().unwrap()
    };
    until("the breaker opens", async || provider().await["status"] == "OPEN").await;
    assert_eq!(provider().await["channels"], json!(["KAKAO_ALIMTALK"]));
    let fourth = posted(&with_fallback).await;
    completed(&fourth).await;
    let title = "*Provider kakaotalk is down*";
    let shown = || slack.records().iter().filter(|p| p.text.as_deref().unwrap_or_default().starts_with(title)).count();
    until("operators have an alert", async || shown() > 0).await;

    let (_, metrics) = crate::support::process::text(&operator, address, "/metrics").await;
    for line in [
        "notihub_call_seconds_count{provider=\"kakaotalk\"}",
        "notihub_outcomes_total{outcome=\"ACCEPTED\",provider=\"sms\"",
        "notihub_outcomes_total{outcome=\"REJECTED\",provider=\"kakaotalk\",reason=\"provider_error\"}",
        "notihub_retries_total{",
        "notihub_limit_free{provider=\"sms\"}",
        "notihub_breaker_state{provider=\"kakaotalk\"}",
        "notihub_fallbacks_total{from=\"KAKAO_ALIMTALK\"",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert_eq!(shown(), 1, "once");
    let ended = hub.stop().await.expect(0);
    for part in ["attempt ended", "\"provider\":\"kakaotalk\"", "\"outcome\":\"REJECTED\"", "fallback to SMS"] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    for secret in ["1012345678", "1234-5678", "waits 1", "autoever"] {
        assert!(!ended.stderr.contains(secret), "{secret} in {}", ended.stderr);
    }
    Notihub::new(&folder, &["fsck"]).env("NOTIHUB_DATABASE_URL", &url).run().await.expect(0);
    ground.stop();
}
