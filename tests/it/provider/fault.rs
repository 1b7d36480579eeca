//! Providers that fail in their own way: hang, panic, refuse one message of a batch. No other delivery suffers.

use std::sync::Arc;

use notihub::model::capability::{Batch, Capability, Terms};
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::provider::simulator::Behaviour;
use notihub::provider::{Account, BoxFuture, Provider, SendRequest};
use notihub::worker::{self, Role};
use serde_json::json;

use crate::provider::{good, no};
use crate::support::app::{App, email, emails, slack_post, slack_posts};
use crate::support::message::{delivery, outcomes, post};
use crate::support::stub::{Gate, stub};
use crate::support::wait::until;

/// S0-36, S1-52: a provider that hangs holds up its own channel and no other. No more of its calls are made at the same
/// time than `--in-flight` allows, and none of them holds a connection: a test's hub has six.
#[tokio::test]
async fn provider_that_hangs_holds_up_its_own_channel_only() {
    let gate = Gate::new();
    let flags = ["--in-flight=8", "--poll-idle-ms=20", "--poll-busy-ms=20"];
    let app = App::with_provider(&flags, gate.provider(Channel::Slack)).await;
    app.accept_all(slack_posts(30)).await;
    worker::start(&app.hub, Role::Worker);
    until("the channel is full", async || gate.came() == 8).await;
    app.accept_all(emails(60)).await;
    until("all mails are out", async || app.smtp.records().len() == 60).await;
    assert_eq!(gate.came(), 8, "no more are held than may be");
    assert_eq!(app.count("select count(*) from deliveries where status = 'PROCESSING' and lane >= 6").await, 8);
    gate.open();
    until("all is sent", async || app.count("select count(*) from deliveries where status <> 'SENT'").await == 0).await;
    app.done().await;
}

/// An adapter that panics ends its own attempts in doubt and no others: they are made as often as the policy allows,
/// never end FAILED, and other messages of the channel and of other channels are sent meanwhile.
#[tokio::test]
async fn provider_that_panics_ends_its_own_attempts_only() {
    let provider = stub(Channel::Slack, |letter| {
        let text = &letter.content.body;
        let panics = text.contains("always") || (text.contains("once") && letter.attempt == 1);
        Box::pin(async move {
            assert!(!panics, "on purpose");
            Outcome::Accepted { provider_ref: None }
        })
    });
    let app = App::with_provider(&[], provider).await;
    let ids = app.accept_all([slack_posts(20), vec![slack_post("always"), slack_post("once")]].concat()).await;
    let mail = app.accept(email("kim@example.com")).await;
    app.work().await;
    assert_eq!(app.stands(&mail).await.0, "SENT");
    app.settle_all().await;
    let (always, once) = (&ids[20], &ids[21]);
    assert_eq!(app.stands(always).await, ("UNDETERMINED".into(), Some("sender_panicked".into())));
    assert_eq!(app.outcomes(always).await, ["UNKNOWN"; 3]);
    assert_eq!(
        (app.stands(once).await.0.as_str(), app.outcomes(once).await.join(" ")),
        ("SENT", "UNKNOWN ACCEPTED".into())
    );
    for id in &ids[..20] {
        assert_eq!(app.outcomes(id).await, ["ACCEPTED"]);
    }
    app.done().await;
}

/// A provider that hangs is left after the call budget, and what it was asked is in doubt.
#[tokio::test]
async fn provider_that_hangs_is_left_after_the_call_budget() {
    let app = App::with(&["--call-budget-ms=300", "--connect-budget-ms=200"]).await;
    app.slack.script(Behaviour::Hang, 1);
    let id = post(&app, slack_post("x")).await;
    app.work().await;
    let answer = delivery(&app, &id).await;
    assert_eq!(
        (&answer["status"], outcomes(&answer), &answer["possiblySent"]),
        (&json!("SCHEDULED"), vec!["UNKNOWN"], &json!(true))
    );
    assert_eq!(answer["attempts"][0]["errorCode"], "no_answer");
    app.settle_all().await;
    assert_eq!(delivery(&app, &id).await["status"], "SENT");
    app.done().await;
}

/// Refuses all that comes with something bad, and does not say what.
struct Choosy;

impl Choosy {
    fn says(letters: &[SendRequest<'_>]) -> Outcome {
        match letters.iter().any(|letter| letter.content.body.ends_with("no 7")) {
            true if letters.len() == 1 => no(ErrorClass::Content),
            true => no(ErrorClass::RefusedInBatch),
            false => good(),
        }
    }
}

impl Provider for Choosy {
    fn name(&self) -> &'static str {
        "choosy"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { batch: Batch::Any(100), ..Capability::of(Channel::Slack) }]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(std::future::ready(Choosy::says(&[letter])))
    }

    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(std::future::ready(vec![Choosy::says(&letters); letters.len()]))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("a stub".to_owned()) })
    }
}

/// One bad message neither ends the others of its batch nor opens the breaker: each is tried again by itself.
#[tokio::test]
async fn message_refused_in_a_batch_ends_no_other() {
    let app = App::with_accounts(&[], vec![Account::new(Arc::new(Choosy), Terms::default())]).await;
    let ids = app.post_many(40).await;
    app.work().await;
    assert_eq!(app.provider("choosy").await["status"], "UP");
    app.settle_all().await;
    for (n, id) in ids.iter().enumerate() {
        let (status, reason) = if n == 7 { ("FAILED", Some("content_refused")) } else { ("SENT", None) };
        let delivery = app.message(id).await["deliveries"][0].clone();
        assert_eq!((delivery["status"].as_str(), delivery["reason"].as_str()), (Some(status), reason), "{n}");
    }
    assert!(
        app.count("select count(*) from attempt_history where code = 'stub'").await > 2,
        "they went together at first"
    );
    app.done().await;
}
