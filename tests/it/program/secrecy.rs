//! Secrets and personal data are in no log, no metric and no error.

use notihub::provider::simulator::Behaviour;
use notihub::provider::simulator::slack::SlackSimulator;
use notihub::provider::simulator::smtp::SmtpSimulator;
use notihub::shutdown::Shutdown;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::program::{OPEN, count};
use crate::support::database::fresh_database;
use crate::support::process::{Ended, Folder, Notihub, fsck, get, http_to, on, operator_to, post};
use crate::support::wait::until;

/// Marks in every secret and in everything personal, so that one search finds a leak.
const SECRETS: [&str; 4] = ["CANARYslack", "CANARYsmtp", "CANARYdatabase", "CANARYuser"];

const PERSONAL: [&str; 4] = ["CANARYbody", "CANARYtitle", "canaryrecipient", "CANARYmetadata"];

#[track_caller]
fn clean(where_: &str, text: &str, marks: &[&str]) {
    for mark in marks {
        if let Some(at) = text.find(mark) {
            let (from, to) = (text.floor_char_boundary(at.saturating_sub(200)), text.ceil_char_boundary(at + 100));
            panic!("{mark} in {where_}: …{}…", &text[from..to]);
        }
    }
}

#[track_caller]
fn clean_end(what: &str, ended: &Ended, marks: &[&str]) {
    clean(&format!("stdout of {what}"), &ended.stdout, marks);
    clean(&format!("stderr of {what}"), &ended.stderr, marks);
}

/// No secret and nothing personal is in a log, even at its most talkative, nor in the metrics, whatever goes wrong.
#[tokio::test]
async fn secrets_and_contents_are_in_no_log_and_no_metric() {
    let (folder, ground, url) = (Folder::new(), Shutdown::new(), fresh_database().await);
    let smtp = SmtpSimulator::start(0, 0, &ground).await.unwrap();
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let role = format!("canary_{}", std::process::id());
    let mut server = PgConnection::connect(&crate::support::database::as_superuser(&url)).await.unwrap();
    let create = format!("create role {role} superuser login password 'CANARYdatabase'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut server).await.unwrap();
    let (_, rest) = url.split_once('@').unwrap();
    let database = format!("postgres://{role}:CANARYdatabase@{rest}");
    let secret = |args: &[&str]| {
        on(&folder, &database, args)
            .env("NOTIHUB_SLACK_DESTINATION", format!("ops={}", slack.webhook_url("CANARYslack")))
            .env("NOTIHUB_SMTP_HOST", "127.0.0.1")
            .env("NOTIHUB_SMTP_PORT", smtp.address().port().to_string())
            .env("NOTIHUB_SMTP_TLS", "none")
            .env("NOTIHUB_SMTP_USERNAME", "CANARYuser")
            .env("NOTIHUB_SMTP_PASSWORD", "CANARYsmtp")
    };
    let retries = [
        "--retry-backoff-delay=1",
        "--promote-every-ms=20",
        "--retry-max-attempts=2",
        "--retry-ceiling-s=1",
        "--retry-schedule=EMAIL=backoff",
        "--smtp-throttled-pause-s=1",
    ];
    let mut serve =
        secret(&[&["serve", "--work", "--listen=127.0.0.1:0", "--log=trace"], &retries[..]].concat()).start();
    let (address, http) = (serve.address().await, http_to(&url).await);
    let fail = |text: &str| Behaviour::Fail { status: 500, text: text.into() };
    for behaviour in
        [fail("no"), Behaviour::Limit { retry_after: 1 }, Behaviour::Cut, Behaviour::CutBefore, Behaviour::Garbage]
    {
        slack.script(behaviour.clone(), 1);
        smtp.script(
            if let Behaviour::Fail { .. } = behaviour {
                Behaviour::Fail { status: 451, text: "no".into() }
            } else {
                behaviour
            },
            1,
        );
    }
    let message = |n: usize| {
        json!({
            "type": "TEST", "title": "CANARYtitle", "body": "CANARYbody", "metadata": {"note": "CANARYmetadata"},
                "clientMsgId": format!("m{n}"),
            "channels": [{"channel": "EMAIL", "to": format!("canaryrecipient{n}@example.com")}, {"channel": "SLACK",
                "to": "ops"}],
        })
    };
    for n in 0..8 {
        assert_eq!(post(&http, address, "/v1/messages", &message(n)).await.unwrap().0, 202);
    }
    let mut wrong = message(99);
    wrong["channels"][0]["to"] = json!("CANARYbody@CANARYbody");
    assert_eq!(post(&http, address, "/v1/messages", &wrong).await.unwrap().0, 422);
    assert_eq!(post(&http, address, "/v1/messages", &json!({"CANARYbody": "CANARYtitle"})).await.unwrap().0, 422);
    get(&http, address, "/v1/messages?to=canaryrecipient1@example.com").await.unwrap();
    until("all have ended", async || count(&url, OPEN).await == 0).await;

    let all = [&SECRETS[..], &PERSONAL].concat();
    let operator = operator_to(&url).await;
    for path in ["/metrics", "/about", "/readyz", "/healthz"] {
        let answer = operator.get(format!("http://{address}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.unwrap();
        clean(path, &text, &all);
    }
    // What providers answered is kept, and must not bring our secrets along.
    let kept: Option<String> = sqlx::query_scalar("select string_agg(a::text, ' ') from attempt_history a")
        .fetch_one(&mut server)
        .await
        .unwrap();
    clean("the attempts", &kept.unwrap(), &SECRETS);
    clean_end("doctor", &secret(&["doctor"]).run().await, &all);
    clean_end("fsck", &secret(&["fsck", "--log=trace"]).run().await, &all);
    // The providers are gone.
    ground.stop();
    ground.drained(std::time::Duration::from_secs(10)).await;
    assert_eq!(post(&http, address, "/v1/messages", &message(100)).await.unwrap().0, 202);
    until("all have ended", async || count(&url, OPEN).await == 0).await;
    let served = serve.stop().await.expect(0);
    served.logged_json();
    assert!(served.stderr.len() > 10_000, "the log was at its most talkative");
    clean_end("serve", &served, &all);
    clean_end("doctor", &secret(&["doctor", "--log=trace"]).run().await, &all);
    fsck(&folder, &url).await;
}

/// A wrong setting is named without its secret.
#[tokio::test]
async fn setting_that_is_wrong_is_named_without_its_secret() {
    let folder = Folder::new();
    let up = |name: &str, value: &str| {
        let data = format!("--data-dir={}", folder.data().display());
        Notihub::new(&folder, &["up", "--once", "--listen=127.0.0.1:0", "--log=trace", &data]).env(name, value)
    };
    for (name, value) in [
        ("NOTIHUB_SLACK_DESTINATION", "https://hooks.slack.com/services/T0/B0/CANARYslack"),
        ("NOTIHUB_SLACK_DESTINATION", "ops=http://hooks.slack.com/services/T0/B0/CANARYslack"),
        ("NOTIHUB_SLACK_DESTINATION", "ops=CANARYslack"),
        ("NOTIHUB_SLACK_DESTINATION", "o p s=https://hooks.slack.com/services/T0/B0/CANARYslack"),
        ("NOTIHUB_DATABASE_URL", "postgres://u:CANARYdatabase@127.0.0.1:1/x"),
        ("NOTIHUB_DATABASE_URL", "postgres://u:CANARYdatabase@127.0.0.1:port/x"),
        ("NOTIHUB_DATABASE_URL", "CANARYdatabase"),
    ] {
        let ended = up(name, value).run().await;
        assert!(ended.code.is_some_and(|code| code != 0), "{value}");
        clean_end(value, &ended, &SECRETS);
    }
    for text in [
        "smtp-password = CANARYsmtp",
        "smtp-pasword = \"CANARYsmtp\"",
        "slack-destination = [\"https://hooks.slack.com/services/T0/B0/CANARYslack\"]",
        "slack-destination = [\"ops=https://hooks.slack.com/services/T0/B0/CANARYslack\"",
        "database-url = \"postgres://u:CANARYdatabase@127.0.0.1:port/x\"",
    ] {
        std::fs::write(folder.path().join("notihub.toml"), text).unwrap();
        let ended = up("LANG", "C").run().await;
        assert!(ended.code.is_some_and(|code| code != 0), "{text}");
        clean_end(text, &ended, &SECRETS);
    }
    std::fs::remove_file(folder.path().join("notihub.toml")).unwrap();
    let help = up("NOTIHUB_SMTP_PASSWORD", "CANARYsmtp")
        .env("NOTIHUB_SLACK_DESTINATION", "ops=https://hooks.slack.com/services/T0/B0/CANARYslack")
        .env("NOTIHUB_DATABASE_URL", "postgres://u:CANARYdatabase@127.0.0.1:1/x")
        .arg("--help");
    clean_end("--help", &help.run().await.expect(0), &SECRETS);
}
