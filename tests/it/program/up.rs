//! The first minute: one command, on a machine where nothing is set up.

use std::collections::BTreeSet;

use notihub::config::ProviderSettings;
use notihub::provider::http::ClientSettings;
use notihub::provider::registry::{self, ADAPTERS};
use notihub::provider::simulator::slack::SlackSimulator;
use notihub::provider::simulator::smtp::SmtpSimulator;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub, fsck, get, http_as_demo, on, post};
use crate::support::wait::{until, wait_for};

/// S0-5, S3-2, S3-5, S3-6, S3-15, S3-16, S3-28, S3-40, S3-42: the three scenarios arrive from one command, on a machine
/// where nothing is set up; the next start finds them, and sends its own to where the settings say; the types of seed
/// 000 go to simulators; everything stops with the program.
#[tokio::test]
async fn up_delivers_the_three_scenarios_and_keeps_them() {
    let (folder, ground) = (Folder::new(), Shutdown::new());
    let data = format!("--data-dir={}", folder.data().display());
    let demo = ["up", "--demo", "--once", "--listen=127.0.0.1:0", &data];
    let first = Notihub::new(&folder, &demo).arg("--output=json").run().await.expect(0);
    let answer = first.json();
    assert_eq!(
        (&answer["good"], &answer["mails"], &answer["slackPosts"]),
        (&json!(true), &json!(2), &json!(2)),
        "{answer}"
    );
    let mut ids = BTreeSet::new();
    for (scenario, channels) in
        answer["scenarios"].as_array().unwrap().iter().zip([&["EMAIL"][..], &["EMAIL", "SLACK"], &["SLACK"]])
    {
        let message = &scenario["message"];
        assert_eq!(message["status"], "COMPLETED", "{scenario}");
        let deliveries: Vec<_> =
            message["deliveries"].as_array().unwrap().iter().map(|d| (&d["channel"], &d["status"])).collect();
        let sent = json!("SENT");
        let wanted: Vec<Value> = channels.iter().map(|c| json!(c)).collect();
        assert_eq!(deliveries, wanted.iter().map(|c| (c, &sent)).collect::<Vec<_>>());
        for what in ["accepted", "claimed", "called", "answered", "event"] {
            assert!(scenario["timeline"].as_array().unwrap().iter().any(|e| e["what"] == what), "{what}: {scenario}");
        }
        ids.insert(message["messageId"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 3);
    assert!(folder.postmaster().is_none(), "PostgreSQL stops with the program");
    println!("first message sent {} s after the start, initdb included", answer["scenarios"][0]["afterSeconds"]);

    // Again on the same data, and to providers that stand outside.
    let smtp = SmtpSimulator::start(0, 0, &ground).await.unwrap();
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let port = format!("--smtp-port={}", smtp.address().port());
    let second = Notihub::new(&folder, &demo)
        .arg("--smtp-host=127.0.0.1")
        .arg(port)
        .arg("--smtp-tls=none")
        .env("NOTIHUB_SLACK_DESTINATION", format!("ops={}", slack.webhook_url("ops")))
        .run()
        .await
        .expect(0);
    assert!(second.stdout.contains("COMPLETED") && second.stdout.contains("first message sent"), "{}", second.stdout);
    let solapi = "solapi  simulator for LMS, MMS, KAKAO_BRAND_MESSAGE, RCS; received: http://127.0.0.1:";
    assert!(second.stdout.contains(solapi), "{}", second.stdout);
    assert!(!second.stdout.contains('\u{1b}'), "colours are for terminals");
    let mails: Vec<_> = smtp.records().into_iter().map(|mail| mail.to.join(",")).collect();
    assert_eq!(mails, ["kim@example.com", "lee@example.com"]);
    for (mail, subject) in smtp.records().iter().zip(["Order 2026-1234 completed", "Payment of order 2026-1235 failed"])
    {
        assert!(mail.data.contains(&format!("Subject: {subject}\r\n")), "{}", mail.data);
    }
    let posts: Vec<_> = slack.records().into_iter().map(|post| post.text.unwrap()).collect();
    assert_eq!(posts.len(), 2);
    assert!(posts[0].starts_with("*Payment of order 2026-1235 failed*\nThe card was declined."), "{posts:?}");
    assert!(posts[1].starts_with("*checkout is down*\n3 of 3 probes failed"), "{posts:?}");

    // And a third time, to stay: all six are there.
    let mut up = Notihub::new(&folder, &["up", "--listen=127.0.0.1:0", &data]).start();
    let address = up.address().await;
    let http = http_as_demo(&folder, address).await;
    let (status, body) = get(&http, address, "/v1/messages?status=COMPLETED").await.unwrap();
    assert_eq!(status, 200);
    let there: BTreeSet<String> =
        body["items"].as_array().unwrap().iter().map(|item| item["messageId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(there.len(), 6);
    assert!(there.is_superset(&ids));
    for channel in ["SMS", "LMS", "MMS", "KAKAO_ALIMTALK", "KAKAO_BRAND_MESSAGE", "NAVER_TALK", "RCS"] {
        let to = if channel == "NAVER_TALK" { "al-2eGuGr5WQOnco1_V-FQ" } else { "010-1234-5678" };
        let body = json!({"type": "T", "body": "b", "channels": [{"channel": channel, "to": to}]});
        assert_eq!(post(&http, address, "/v1/messages", &body).await.unwrap().0, 202, "{channel}");
        let provider = match channel {
            "SMS" => "sms-simulator",
            "KAKAO_ALIMTALK" => "kakaotalk-simulator",
            "NAVER_TALK" => "talktalk-simulator",
            _ => "solapi-simulator",
        };
        until("a simulator has it", async || {
            let list = get(&http, address, &format!("/v1/deliveries?provider={provider}&channel={channel}")).await;
            let list = list.unwrap().1;
            list["items"].as_array().unwrap().iter().any(|d| d["status"] == "SENT" || d["status"] == "DELIVERED")
        })
        .await;
    }
    let mut taken = 0;
    for (_, rest) in up.stdout().lines().filter_map(|line| line.split_once(" simulator for ")) {
        let at = rest.split_once("http://").unwrap().1.trim_end_matches("/_records").parse().unwrap();
        taken += get(&http, at, "/_records").await.unwrap().1.as_array().unwrap().len();
    }
    assert_eq!(taken, 7);
    Notihub::new(&folder, &["fsck", &data]).run().await.expect(0);
    let other = Notihub::new(&folder, &["up", "--listen=127.0.0.1:0", &data]).run().await;
    assert_ne!(other.code, Some(0));
    assert!(other.stderr.contains("another notihub") && other.stderr.contains("--data-dir"), "{}", other.stderr);
    up.stop().await.expect(0).logged_json();
    assert!(folder.postmaster().is_none());
    ground.stop();
}

/// S0-5: `simulate` prints all that a hub needs: an account of every adapter, which reaches its simulator.
#[tokio::test]
async fn simulate_prints_settings_for_each_adapter() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let folder = Folder::new();
    let ports = ["slack", "smtp", "smtp-control", "kakaotalk", "sms", "solapi", "nhn", "talktalk", "gateway"];
    let ports = ports.map(|name| format!("--{name}-port=0"));
    let started =
        |output| ports.iter().fold(Notihub::new(&folder, &["simulate", output]), |n, port| n.arg(port)).start();
    let simulate = started("--output=json");
    let answer: Value = wait_for("what it tells", async || serde_json::from_str(&simulate.stdout()).ok()).await;
    let mut adapters = BTreeSet::new();
    for (vendor, about) in answer.as_object().unwrap().iter().filter(|(_, about)| about.is_object()) {
        for (name, account) in about["providers"].as_object().unwrap() {
            let options = serde_json::from_value(account["options"].clone()).unwrap();
            let adapter = account["adapter"].as_str().unwrap().to_owned();
            adapters.insert(adapter.clone());
            let settings = ProviderSettings { name: name.clone(), adapter, options };
            let common = ClientSettings::with_budget(std::time::Duration::from_secs(10));
            let account = registry::build_account(&settings, &common).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(account.provider.check().await.is_ok(), "{name} at {vendor}");
        }
    }
    let all: BTreeSet<String> = ADAPTERS.iter().map(|a| a.name.to_owned()).filter(|name| name != "mock").collect();
    assert_eq!(adapters, all);
    simulate.stop().await.expect(0);

    // The lines for people are those of a settings file.
    let mut simulate = started("--output=text");
    simulate.says("# receipt-hours").await;
    let lines = simulate.stdout().split_once("slack-destination").unwrap().1.to_owned();
    let file = folder.path().join("notihub.toml");
    std::fs::write(&file, format!("slack-destination{lines}")).unwrap();
    let config = format!("--config={}", file.display());
    let url = fresh_database().await;
    let doctor = on(&folder, &url, &["doctor", &config]).run().await;
    assert!(doctor.stdout.contains("solapi") && doctor.stdout.contains("talktalk"), "{doctor:?}");
    simulate.stop().await.expect(0);
}

/// S3-17, S3-18, S3-39: the commands for people at a terminal, each in both of its forms.
#[tokio::test]
async fn commands_reach_a_running_hub() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let mut up = on(&folder, &url, &["up", "--listen=127.0.0.1:0"]).start();
    let hub = format!("--url=http://{}", up.address().await);
    let run = async |args: &[&str]| on(&folder, &url, args).run().await;

    let send =
        ["send", &hub, "--email=kim@example.com", "--slack=ops", "--subject=Hi", "--body=Hello", "--type=GREETING"];
    let sent = run(&[&send[..], &["--wait", "--output=json"]].concat()).await.expect(0).json();
    assert_eq!(sent["status"], "COMPLETED");
    assert_eq!(sent["deliveries"].as_array().unwrap().len(), 2);
    let id = sent["messageId"].as_str().unwrap();
    let dry = run(&[&send[..], &["--dry-run"]].concat()).await.expect(0);
    assert!(dry.stdout.contains("the message would be accepted"));
    let plain = run(&send).await.expect(0);
    assert_eq!(plain.stdout.trim().len(), 13, "the id alone, for scripts: {}", plain.stdout);
    let wrong = run(&["send", &hub, "--email=nobody", "--body=x"]).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("/channels/0/to"), "says what is wrong where: {}", wrong.stderr);
    let bounced =
        run(&["send", &hub, "--email=bounce@example.com", "--subject=s", "--body=x", "--wait"]).await.expect(1);
    assert!(bounced.stdout.contains("FAILED") && bounced.stdout.contains("no_such_recipient"), "{}", bounced.stdout);

    let status = run(&["status", &hub, id]).await.expect(0).stdout;
    assert!(status.contains("COMPLETED") && status.contains("delivery.sent"), "{status}");
    let status = run(&["status", &hub, id, "--output=json"]).await.expect(0).json();
    assert_eq!(status["messageId"], id);
    assert!(status["timeline"].as_array().unwrap().len() > 5);
    let nothing = run(&["status", &hub, "0000000000000"]).await.expect(1);
    assert!(nothing.stderr.contains("404"), "{}", nothing.stderr);
    let nobody = run(&["status", "--url=http://127.0.0.1:1", id]).await.expect(1);
    assert!(nobody.stderr.contains("notihub up"), "names the remedy: {}", nobody.stderr);

    let tail = run(&["tail", &hub, "--no-follow"]).await.expect(0).stdout;
    assert!(
        tail.lines().any(|line| line.contains(id) && line.contains("GREETING") && line.contains("COMPLETED")),
        "{tail}"
    );
    let tail = run(&["tail", &hub, "--no-follow", "--output=json", "-n1", "--type=GREETING"]).await.expect(0).stdout;
    let lines: Vec<Value> = tail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["type"]), (1, &json!("GREETING")));

    let doctor = run(&["doctor", "--output=json"]).await.expect(0).json();
    assert_ne!(doctor["grade"], "fail", "{doctor}");
    let graded = |what: &str| {
        let found = doctor["findings"].as_array().unwrap().iter().find(|f| f["check"] == what);
        found.unwrap_or_else(|| panic!("{what}: {doctor}"))["grade"].as_str().unwrap().to_owned()
    };
    assert_eq!(graded("workers"), "ok");
    assert_eq!(graded("partitions"), "ok");
    assert_eq!(graded("durability"), "warn", "this server's fsync is off, and we said that we accept it");
    let strict = Notihub::new(&folder, &["doctor", "--database-url", &url]).run().await.expect(1);
    assert!(strict.stdout.contains("fsync") && strict.stdout.contains("alter system"), "{}", strict.stdout);
    let refused = Notihub::new(&folder, &["work", "--once", "--database-url", &url]).run().await;
    assert_ne!(refused.code, Some(0), "it does not start where confirmed data may be lost");
    assert!(refused.stderr.contains("fsync") && refused.stderr.contains("--accept-loss"), "{}", refused.stderr);

    fsck(&folder, &url).await;
    let mut conn = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("update deliveries set event_seq = 7 where event_seq = 1").execute(&mut conn).await.unwrap();
    let broken = run(&["fsck"]).await.expect(1).stdout;
    assert!(broken.contains(&format!("{id}-1")), "names what is broken: {broken}");
    sqlx::raw_sql("update deliveries set event_seq = 1 where event_seq = 7").execute(&mut conn).await.unwrap();
    fsck(&folder, &url).await;
    up.stop().await.expect(0).logged_json();
}
