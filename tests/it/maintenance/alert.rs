//! Alerts: operators get one alert per cause, through the hub's own Slack and e-mail, and one when it is over.

use std::sync::Arc;

use notihub::flow;
use notihub::flow::alert::watch;
use notihub::model::alert::AlertCause;
use notihub::model::capability::Terms;
use notihub::model::channel::Channel;
use notihub::provider::{Account, Provider};
use serde_json::json;

use crate::support::app::App;

/// What arrived at the ops destination and in the mailbox since it was last asked: the first line of each.
async fn told(app: &App, seen: &mut (usize, usize)) -> (Vec<String>, usize) {
    app.settle_all().await;
    let posts = app.slack.records();
    let mails = app.smtp.records();
    let titles = posts.iter().skip(seen.0).map(|p| p.text.clone().unwrap_or_default());
    let titles = titles.map(|text| text.lines().next().unwrap_or_default().trim_matches('*').to_owned()).collect();
    let mailed = mails.len() - seen.1;
    *seen = (posts.len(), mails.len());
    (titles, mailed)
}

/// Review F12: a partner that took the hub's name before it was reserved sees none of the hub's alerts.
#[tokio::test]
async fn alert_with_a_partner_named_notihub_stays_the_hubs_own() {
    let app = App::with(&["--alert-slack=ops"]).await;
    let renamed = "update partners set name = 'notihub' where partner_id = $1";
    sqlx::query(renamed).bind(app.partner.partner_id.0).execute(&app.db().await).await.unwrap();
    app.hub.causes.note(AlertCause::Limit { provider: "sms".into() }, "450 of 500 a minute".into());
    watch(&app.hub).await.unwrap();
    assert_eq!(told(&app, &mut (0, 0)).await.0, vec!["Provider sms is near its limit".to_owned()]);
    assert_eq!(app.get("/v1/messages").await.expect(200).body["items"], json!([]));
    app.done().await;
}

/// S1-45, S1-44: a cause is reported once, whatever number of processes see it, and however often; its end, when it was
/// not seen for a while, is reported once, too; then it may come again.
#[tokio::test]
async fn alert_of_a_cause_is_sent_once_and_so_is_its_end() {
    let app = App::with(&["--alert-slack=ops", "--alert-email=oncall@example.com"]).await;
    let mut seen = (0, 0);
    let fallback = || AlertCause::Fallback { from: Channel::KakaoAlimtalk, to: Channel::Sms };
    for round in 0..2 {
        for _ in 0..5 {
            app.hub.causes.note(fallback(), "credentials_refused".into());
            app.hub.causes.note(AlertCause::Limit { provider: "sms".into() }, "450 of 500 a minute".into());
            let (one, other) = tokio::join!(watch(&app.hub), watch(&app.hub));
            one.and(other).unwrap();
            app.advance(5);
        }
        let (titles, mailed) = told(&app, &mut seen).await;
        assert_eq!(
            (titles, mailed),
            (vec!["KAKAO_ALIMTALK falls back to SMS".to_owned(), "Provider sms is near its limit".to_owned()], 2),
            "round {round}"
        );
        app.advance(130);
        watch(&app.hub).await.unwrap();
        assert_eq!(told(&app, &mut seen).await, (vec!["Over: Provider sms is near its limit".to_owned()], 1));
        app.advance(600);
        watch(&app.hub).await.unwrap();
        watch(&app.hub).await.unwrap();
        assert_eq!(told(&app, &mut seen).await, (vec!["Over: KAKAO_ALIMTALK falls back to SMS".to_owned()], 1));
    }
    let times: i64 = sqlx::query_scalar("select sum(times)::bigint from alerts where cause like 'fallback:%'")
        .fetch_one(&app.db().await)
        .await
        .unwrap();
    assert_eq!(times, 10, "each is counted");
    app.done().await;
}

/// S1-44: a limit of which four fifths are used is reported, without any delivery waiting yet, and not again while it
/// stays so.
#[tokio::test]
async fn alert_of_a_limit_nearly_used_is_sent_once() {
    let limit = notihub::model::limit::RateLimit::per_minute(20);
    let terms = Terms { limit: Some(limit), ..Terms::default() };
    let provider: Arc<dyn Provider> = Arc::new(notihub::provider::mock::Mock::new(vec![Channel::Sms]));
    let app = App::with_accounts(&["--alert-slack=ops"], vec![Account::new(provider, terms)]).await;
    let mut seen = (0, 0);
    for n in 1..=18 {
        let body = json!({"type": "T", "body": "b", "channels": [{"channel": "SMS", "to": "010-1234-5678"}]});
        app.post("/v1/messages", body).await.expect(202);
        app.work().await;
        flow::delivery::limit::report_grants(&app.hub, true).await.unwrap();
        watch(&app.hub).await.unwrap();
        let (titles, _) = told(&app, &mut seen).await;
        assert_eq!(titles.len(), usize::from(n == 16), "after {n}: {titles:?}");
    }
    app.done().await;
}

/// An alert that could not be written is written the next time.
#[tokio::test]
async fn alert_that_could_not_be_written_is_sent_later() {
    let app = App::with(&["--alert-slack=ops"]).await;
    app.hub.causes.note(AlertCause::Limit { provider: "sms".into() }, "450 of 500 a minute".into());
    let db = app.db().await;
    sqlx::query("alter table alerts rename to alerts_away").execute(&db).await.unwrap();
    watch(&app.hub).await.unwrap_err();
    sqlx::query("alter table alerts_away rename to alerts").execute(&db).await.unwrap();
    watch(&app.hub).await.unwrap();
    assert_eq!(told(&app, &mut (0, 0)).await.0, ["Provider sms is near its limit"]);
    app.done().await;
}

/// A provider that was taken out of the settings while it was down is over some day.
#[tokio::test]
async fn alert_of_a_removed_provider_ends() {
    let app = App::with(&["--alert-slack=ops"]).await;
    let down = "insert into provider_states (provider, breaker, reason, opened_at, open_until, openings, changed_at)
        values ('gone', 'OPEN', 'http_5xx', $1, $1, 1, $1)";
    sqlx::query(down).bind(app.hub.clock.now()).execute(&app.db().await).await.unwrap();
    watch(&app.hub).await.unwrap();
    let mut seen = (0, 0);
    let (titles, _) = told(&app, &mut seen).await;
    assert_eq!(titles.len(), 1, "another process may have it in its settings: {titles:?}");
    app.advance(1200);
    watch(&app.hub).await.unwrap();
    watch(&app.hub).await.unwrap();
    let (titles, _) = told(&app, &mut seen).await;
    assert!(titles.len() == 1 && titles[0].starts_with("Over:"), "{titles:?}");
    app.done().await;
}

/// Without a destination an alert is in the log only; and a destination that does not exist is refused at the start.
#[tokio::test]
async fn alert_without_a_destination_is_logged_alone() {
    let app = App::new().await;
    app.hub.causes.note(AlertCause::Limit { provider: "sms".into() }, "450 of 500 a minute".into());
    watch(&app.hub).await.unwrap();
    assert_eq!(told(&app, &mut (0, 0)).await, (vec![], 0));
    let settings = crate::support::app::settings(&["--alert-slack=nowhere"]);
    assert!(settings.check().unwrap_err().to_string().contains("slack-destination"));
    app.done().await;
}

/// What a worker's check finds broken is reported once, as long as it is broken, and so is its end.
#[tokio::test]
async fn alert_of_a_broken_invariant_is_sent_until_it_is_sound() {
    let app = App::with(&["--alert-slack=ops", "--fsck-every-s=60"]).await;
    app.post("/v1/messages", crate::support::app::email("kim@example.com")).await.expect(202);
    app.settle_all().await;
    let (mut seen, mut check) = ((0, 0), flow::fsck::Watch::new(chrono::TimeDelta::hours(24)));
    let change = async |seq: i16| {
        let sql = "update deliveries set event_seq = $1 where lane = 2";
        sqlx::query(sql).bind(seq).execute(&app.db().await).await.unwrap();
    };
    flow::fsck::watch_lately(&app.hub, &mut check).await.unwrap();
    watch(&app.hub).await.unwrap();
    told(&app, &mut seen).await;
    change(7).await;
    for titles in [vec!["Invariant events of the database is broken".to_owned()], vec![]] {
        flow::fsck::watch_lately(&app.hub, &mut check).await.unwrap();
        watch(&app.hub).await.unwrap();
        assert_eq!(told(&app, &mut seen).await.0, titles);
        app.advance(300);
    }
    change(1).await;
    flow::fsck::watch_lately(&app.hub, &mut check).await.unwrap();
    app.advance(901);
    watch(&app.hub).await.unwrap();
    assert_eq!(told(&app, &mut seen).await.0, ["Over: Invariant events of the database is broken"]);
    app.done().await;
}
