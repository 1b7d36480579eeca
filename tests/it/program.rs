//! The program as people, cron and supervisors use it: the real binary, its exit codes, what it prints and what it never
//! prints.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use notihub::config::ProviderSettings;
use notihub::provider::http::Common;
use notihub::provider::registry::{self, ADAPTERS};
use notihub::provider::simulator::{Behaviour, slack::SlackSimulator, smtp::SmtpSimulator};
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::processes::{Ended, Folder, Notihub, fsck, get, http_as_demo, http_to, operator_to, post, until, wait_for};
use crate::support::{database_url, email, fresh_database, server_url, slack_post};

/// A program of its own on this database, which is the tests' and not durable.
fn on(folder: &Folder, url: &str, args: &[&str]) -> Notihub {
    Notihub::new(folder, args).env("NOTIHUB_DATABASE_URL", url).env("NOTIHUB_ACCEPT_LOSS", "true")
}

async fn count(url: &str, sql: &'static str) -> i64 {
    let mut conn = PgConnection::connect(url).await.expect("the database");
    sqlx::query_scalar(sql).fetch_one(&mut conn).await.expect("a count")
}

const OPEN: &str = "select count(*) from deliveries where status in ('SCHEDULED', 'PENDING', 'PROCESSING')";

// ---- the first minute

/// S0-5, S3-2, S3-5, S3-6, S3-15, S3-16, S3-28, S3-40, S3-42: the three scenarios arrive from one command, on a machine where nothing is set up;
/// the next start finds them, and sends its own to where the settings say; the types of seed 000 go to simulators; everything stops with the program.
#[tokio::test]
async fn the_three_scenarios_arrive_and_stay() {
    let (folder, ground) = (Folder::new(), Shutdown::new());
    let data = format!("--data-dir={}", folder.data().display());
    let demo = ["up", "--demo", "--once", "--listen=127.0.0.1:0", &data];
    let first = Notihub::new(&folder, &demo).arg("--output=json").run().await.expect(0);
    let told = first.json();
    assert_eq!((&told["good"], &told["mails"], &told["slackPosts"]), (&json!(true), &json!(2), &json!(2)), "{told}");
    let mut ids = BTreeSet::new();
    for (scenario, channels) in
        told["scenarios"].as_array().unwrap().iter().zip([&["EMAIL"][..], &["EMAIL", "SLACK"], &["SLACK"]])
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
    println!("first message sent {} s after the start, initdb included", told["scenarios"][0]["afterSeconds"]);

    // Again on the same data, and to providers that stand outside.
    let smtp = SmtpSimulator::start(0, 0, &ground).await.unwrap();
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let port = format!("--smtp-port={}", smtp.address().port());
    let second = Notihub::new(&folder, &demo)
        .arg("--smtp-host=127.0.0.1")
        .arg(port)
        .arg("--smtp-tls=none")
        .env("NOTIHUB_SLACK_DESTINATION", format!("ops={}", slack.hook("ops")))
        .run()
        .await
        .expect(0);
    assert!(second.stdout.contains("COMPLETED") && second.stdout.contains("first message sent"), "{}", second.stdout);
    let solapi = "solapi  simulator, for LMS, MMS, KAKAO_BRAND_MESSAGE, RCS; what it got: http://127.0.0.1:";
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
    for (_, rest) in up.stdout().lines().filter_map(|line| line.split_once(" simulator, for ")) {
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

/// S0-5: what `simulate` tells is all that a hub needs: an account of every adapter, which reaches its simulator.
#[tokio::test]
async fn simulate_tells_how_a_hub_gets_there() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let folder = Folder::new();
    let ports = ["slack", "smtp", "smtp-control", "kakaotalk", "sms", "solapi", "nhn", "talktalk", "gateway"];
    let ports = ports.map(|name| format!("--{name}-port=0"));
    let started =
        |output| ports.iter().fold(Notihub::new(&folder, &["simulate", output]), |n, port| n.arg(port)).start();
    let simulate = started("--output=json");
    let told: Value = wait_for("what it tells", async || serde_json::from_str(&simulate.stdout()).ok()).await;
    let mut adapters = BTreeSet::new();
    for (vendor, about) in told.as_object().unwrap().iter().filter(|(_, about)| about.is_object()) {
        for (name, account) in about["providers"].as_object().unwrap() {
            let options = serde_json::from_value(account["options"].clone()).unwrap();
            let adapter = account["adapter"].as_str().unwrap().to_owned();
            adapters.insert(adapter.clone());
            let settings = ProviderSettings { name: name.clone(), adapter, options };
            let common = Common::within(std::time::Duration::from_secs(10));
            let account = registry::make(&settings, &common).unwrap_or_else(|e| panic!("{name}: {e}"));
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

/// S3-17, S3-18, S3-39: what a person does at a terminal, each command in both of its forms.
#[tokio::test]
async fn commands_speak_with_a_running_hub() {
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
    assert!(dry.stdout.contains("it would be accepted"));
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

// ---- workers

/// S3-3, S3-14, S3-31: a worker run by cron delivers what is due and ends; one with a schedule of its own goes on.
#[tokio::test]
async fn a_worker_can_be_run_by_cron() {
    let (folder, ground, url) = (Folder::new(), Shutdown::new(), fresh_database().await);
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let hook = format!("ops={}", slack.hook("ops"));
    let with_slack = |args: &[&str]| on(&folder, &url, args).env("NOTIHUB_SLACK_DESTINATION", &hook);
    let mut serve = with_slack(&["serve", "--listen=127.0.0.1:0"]).start();
    let (address, http) = (serve.address().await, http_to(&url).await);
    let nothing = with_slack(&["work", "--once", "--output=json"]).run().await.expect(0);
    assert_eq!(nothing.json(), json!({"claimed": 0}));

    let messages: Vec<Value> = (0..300).map(|n| slack_post(&format!("no {n}"))).collect();
    assert_eq!(post(&http, address, "/v1/messages/batch", &json!({"messages": messages})).await.unwrap().0, 202);
    let mut later = slack_post("later");
    later["scheduledAt"] = json!("2099-01-01T00:00:00Z");
    let (status, refusal) = post(&http, address, "/v1/messages", &later).await.unwrap();
    assert_eq!(status, 422, "{refusal}");
    assert!(slack.records().is_empty(), "the API sends nothing");
    let once = with_slack(&["work", "--once", "--output=json"]).run().await.expect(0);
    assert_eq!(once.json(), json!({"claimed": 300}));
    assert_eq!(slack.records().len(), 300);
    assert_eq!(count(&url, OPEN).await, 0);

    for cron in ["* * * * * *", "*/1 * * * * *"] {
        let before = slack.records().len();
        let worker = with_slack(&["work", "--cron", cron]).start();
        for n in 1..=2 {
            assert_eq!(post(&http, address, "/v1/messages", &slack_post("x")).await.unwrap().0, 202);
            until("the next second delivers", async || slack.records().len() == before + n).await;
        }
        until("settled", async || count(&url, OPEN).await == 0).await;
        worker.stop().await.expect(0).logged_json();
    }
    let wrong = with_slack(&["work", "--cron", "every day"]).run().await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("every day") && wrong.stderr.contains("*/5 * * * *"), "{}", wrong.stderr);
    serve.stop().await.expect(0).logged_json();
    fsck(&folder, &url).await;
    ground.stop();
}

/// S3-12, S3-36: told to stop in the middle of its work, a worker ends what it began, gives back the rest, and exits 0:
/// nothing is held by nobody, nothing is sent twice.
#[tokio::test]
async fn a_worker_told_to_stop_leaves_nothing_held() {
    let (folder, ground, url) = (Folder::new(), Shutdown::new(), fresh_database().await);
    let slack = SlackSimulator::start(0, &ground).await.unwrap();
    let hook = format!("ops={}", slack.hook("ops"));
    let with_slack = |args: &[&str]| on(&folder, &url, args).env("NOTIHUB_SLACK_DESTINATION", &hook);
    let mut serve = with_slack(&["serve", "--work", "--listen=127.0.0.1:0"]).start();
    let (address, http) = (serve.address().await, http_to(&url).await);
    let messages =
        |from: usize| -> Vec<Value> { (from..from + 1000).map(|n| slack_post(&format!("no {n}"))).collect() };
    for round in 0..2 {
        let body = json!({"messages": messages(round * 1000)});
        assert_eq!(post(&http, address, "/v1/messages/batch", &body).await.unwrap().0, 202);
    }
    until("some are sent", async || slack.records().len() > 100).await;
    serve.signal(Signal::SIGTERM);
    serve.ended().await.expect(0).logged_json();
    let held = count(&url, "select count(*) from deliveries where status = 'PROCESSING'").await;
    assert_eq!(held, 0, "something is held by nobody");
    let taken = slack.records().len();
    assert!(taken < 2000, "it was told too late to tell anything");
    assert_eq!(
        count(&url, "select count(*) from deliveries where status = 'SENT'").await,
        taken as i64,
        "all that was taken is known"
    );
    assert_eq!(count(&url, "select count(*) from workers").await, 0, "it signed off");

    with_slack(&["work", "--once"]).run().await.expect(0);
    let texts: BTreeSet<_> = slack.records().into_iter().map(|post| post.text).collect();
    assert_eq!((texts.len(), slack.records().len()), (2000, 2000), "each once");
    assert_eq!(count(&url, "select count(*) from attempts where outcome = 'UNKNOWN'").await, 0);
    fsck(&folder, &url).await;
    ground.stop();
}

// ---- settings

/// Fault D1, S3-29: the environment that compose.yaml gives without an .env, run as plain processes: it migrates, serves,
/// works, and is healthy; a variable that is empty counts as not set.
#[tokio::test]
async fn compose_environment_without_env_file_starts() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let text = std::fs::read_to_string(crate::laws::root().join("compose.yaml")).unwrap();
    let default = |value: &str| match value.split_once("${").map(|(_, rest)| rest.split_once('}').unwrap().0) {
        Some(variable) => variable.split_once(":-").map_or(String::new(), |(_, default)| default.to_owned()),
        None => value.to_owned(),
    };
    let pairs = text.lines().filter_map(|line| line.trim().strip_prefix("NOTIHUB_")?.split_once(": "));
    let environment: Vec<(String, String)> = pairs
        .map(|(name, value)| (format!("NOTIHUB_{name}"), value))
        .map(|(name, value)| match name.as_str() {
            "NOTIHUB_DATABASE_URL" => (name, url.clone()),
            "NOTIHUB_MIGRATE_DATABASE_URL" => (name, crate::support::as_superuser(&url)),
            "NOTIHUB_LISTEN" => (name, "127.0.0.1:0".to_owned()),
            _ => (name, default(value)),
        })
        .collect();
    assert!(environment.contains(&("NOTIHUB_MASTER_KEY".into(), String::new())), "{environment:?}");
    let program = |args: &[&str]| {
        // The tests' server does not wait for its disk.
        let program = Notihub::new(&folder, args).env("NOTIHUB_ACCEPT_LOSS", "true");
        environment.iter().fold(program, |program, (name, value)| program.env(name, value))
    };
    program(&["migrate"]).run().await.expect(0);
    let mut serve = program(&["serve"]).start();
    let hub = format!("http://{}", serve.address().await);
    assert!(program(&["health", "--url", &hub]).run().await.expect(0).stdout.contains("ready"));
    program(&["work", "--once"]).run().await.expect(0);
    serve.stop().await.expect(0);
    let gone = program(&["health", "--url", &hub]).run().await.expect(1);
    assert!(gone.stderr.contains("does not answer"), "{}", gone.stderr);
}

/// Fault F6: a wrong value is told with where it was written: the flag by itself, the variable by its name, the file by its
/// line; a secret is not shown.
#[tokio::test]
async fn setting_with_a_wrong_value_names_where_it_was_written() {
    let folder = Folder::new();
    let work = |args: &[&str]| Notihub::new(&folder, &[&["work"], args].concat());
    let flag = work(&["--in-flight=many"]).run().await.expect(2).stderr;
    assert!(flag.contains("--in-flight") && !flag.contains("has its value from"), "{flag}");
    let variable = work(&[]).env("NOTIHUB_IN_FLIGHT", "many").run().await.expect(2).stderr;
    assert!(variable.contains("--in-flight has its value from the variable NOTIHUB_IN_FLIGHT"), "{variable}");
    let key = work(&[]).env("NOTIHUB_MASTER_KEY", "SECRET").run().await.expect(2).stderr;
    assert!(key.contains("the variable NOTIHUB_MASTER_KEY") && !key.contains("SECRET"), "{key}");
    std::fs::write(folder.path().join("notihub.toml"), "# settings\n\nin-flight = \"many\"\n").unwrap();
    let file = work(&[]).run().await.expect(2).stderr;
    assert!(file.contains("--in-flight has its value from notihub.toml line 3"), "{file}");
    std::fs::write(folder.path().join("notihub.toml"), "lease-ms = 24999\nconnect-budget-ms = 2000\n").unwrap();
    let pair = work(&["--once"]).run().await.expect(2);
    assert!(pair.stderr.contains("lease-ms") && pair.stderr.contains("notihub.toml line 1"), "{}", pair.stderr);
    std::fs::write(folder.path().join("notihub.toml"), "\nin-flihgt = 7\n").unwrap();
    let unknown = work(&[]).run().await.expect(2).stderr;
    assert!(unknown.contains("notihub.toml line 2: there is no setting 'in-flihgt', perhaps 'in-flight'"), "{unknown}");
    for (text, told) in [
        (
            "\n[providers.a]\nadapter = \"mock\"\n",
            "line 2: there is no table 'providers'; accounts are tables as [provider.NAME]",
        ),
        ("in-flight = 1\n\nin-flight = 2\n", "line 3: 'in-flight' stands there twice"),
        ("smtp-password = \"SECRET\" x\n", "line 1: "),
        ("in-flight = 3\n[provider.a]\nadapter = \"mock\"\n[provider.a]\n", "line 4: '"),
    ] {
        std::fs::write(folder.path().join("notihub.toml"), text).unwrap();
        let wrong = work(&[]).run().await.expect(2).stderr;
        assert!(wrong.contains(told) && !wrong.contains("SECRET"), "{text}: {wrong}");
    }
    let accounts = "[provider.b]\nadapter = \"mock\"\nchannels = \"LMS\"\n[provider.a]\nadapter = \"mock\"\nchannels = \"SMS\"\n\
                    weight = -3\n";
    std::fs::write(folder.path().join("notihub.toml"), accounts).unwrap();
    let account = on(&folder, &fresh_database().await, &["work", "--once"]).run().await.expect(2).stderr;
    assert!(account.contains("provider 'a': the option weight must be a whole number from 0 to "), "{account}");
    assert!(account.contains("provider 'a' has its options from notihub.toml line 4"), "{account}");
    std::fs::remove_file(folder.path().join("notihub.toml")).unwrap();
    let mysql = work(&["--once"]).env("NOTIHUB_DATABASE_URL", "mysql://hub:SECRET@db/hub").run().await.expect(2).stderr;
    let told = mysql.contains("postgres://user:password@host") && mysql.contains("the variable NOTIHUB_DATABASE_URL");
    assert!(told && !mysql.contains("SECRET"), "{mysql}");
    // Commands below others read the file as well.
    std::fs::write(folder.path().join("notihub.toml"), "url = \"http://127.0.0.1:1\"\nclient-id = \"a\"\n").unwrap();
    let below = Notihub::new(&folder, &["provider", "list", "--client-secret=b"]).run().await.expect(1).stderr;
    assert!(below.contains("no hub answers at http://127.0.0.1:1"), "{below}");
}

/// A variable that looks like a setting's and is none is told, without its value; one of Kubernetes' for a service called
/// notihub is not.
#[tokio::test]
async fn a_variable_that_no_setting_has_is_told() {
    let folder = Folder::new();
    let adapters = || {
        let command = Notihub::new(&folder, &["provider", "adapters"]).env("NOTIHUB_DATABASE_URL", "postgres://a/b");
        let service = ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_8080_TCP_ADDR", "API_SERVICE_HOST", "API_PORT"];
        service.iter().fold(command, |command, name| command.env(&format!("NOTIHUB_{name}"), "10.0.0.1"))
    };
    assert_eq!(adapters().run().await.expect(0).stderr, "");
    let mistyped = || adapters().env("NOTIHUB_SMPT_PASSWORD", "SECRET").env("NOTIHUB_FROBNICATE", "SECRET");
    let told = mistyped().run().await.expect(0).stderr;
    assert!(told.contains("NOTIHUB_SMPT_PASSWORD") && told.contains("NOTIHUB_SMTP_PASSWORD"), "{told}");
    assert!(told.contains("NOTIHUB_FROBNICATE") && told.lines().count() == 2 && !told.contains("SECRET"), "{told}");
    let json = mistyped().arg("--output=json").run().await.expect(0).stderr;
    assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["warning"].is_string()), "{json}");
}

/// What was typed wrong is told with exit code 2, and with what would be right.
#[tokio::test]
async fn wrong_usage_exits_2_and_names_the_remedy() {
    let folder = Folder::new();
    for (args, remedy) in [
        (&[][..], "Usage"),
        (&["frobnicate"], "--help"),
        (&["up", "--frobnicate"], "--help"),
        (&["work", "--in-flight=0"], "1..=65536"),
        (&["work", "--in-flight=many"], "--in-flight"),
        (&["work", "--once", "--cron=* * * * *"], "cannot be used with"),
        (&["work", "--cron=61 * * * *"], "'61' as its minute, which is 0 to 59"),
        (&["serve", "--listen=nowhere"], "--listen"),
        (&["up", "--smtp-tls=maybe"], "starttls"),
        (&["up", "--email=pigeon"], "smtp"),
        (&["up", "--on-unknown=SLACK=perhaps"], "none of retry, lookup, hold"),
        (&["up", "--on-unknown=PIGEON=hold"], "KAKAO_ALIMTALK"),
        (&["up", "--mock=PIGEON"], "KAKAO_ALIMTALK"),
        (&["up", "--mock=SMS,PUSH"], "over PUSH"),
        (&["up", "--retention-days=1"], "62"),
        (&["pg"], "COMMAND"),
        (&["status"], "MESSAGE"),
        (&["tail", "-n0"], "1..=200"),
        (&["--config", "nowhere.toml", "up"], "nowhere.toml"),
    ] {
        let ended = Notihub::new(&folder, args).run().await;
        assert_eq!(ended.code, Some(2), "{args:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(remedy), "{args:?}: {}", ended.stderr);
    }
    for args in [&["--help"][..], &["--version"], &["up", "--help"], &["work", "--help"], &["send", "--help"]] {
        assert!(!Notihub::new(&folder, args).run().await.expect(0).stdout.is_empty(), "{args:?}");
    }
}

/// Settings that would lose or double messages: refused before anything is touched, naming the two that disagree.
#[tokio::test]
async fn settings_that_disagree_are_refused_by_name() {
    let folder = Folder::new();
    for (flags, named) in [
        (&["--connect-budget-ms=20000"][..], ["connect-budget-ms", "call-budget-ms"]),
        (&["--lease-ms=24999"], ["lease-ms", "call-budget-ms"]),
        // A lease that leaves no time in which a call may begin: everything would be claimed and given back for ever.
        (&["--lease-ms=25000"], ["lease-ms", "call-budget-ms"]),
        (&["--call-budget-ms=25000", "--shutdown-grace-ms=60000"], ["lease-ms", "settle-budget-ms"]),
        (&["--shutdown-grace-ms=19999"], ["shutdown-grace-ms", "call-budget-ms"]),
        (&["--call-budget-ms=10000", "--connect-budget-ms=5000"], ["call-budget-ms", "statement time-out"]),
        (&["--slack-default=nobody"], ["slack-default", "slack-destination"]),
    ] {
        for command in [&["up", "--once"][..], &["work", "--once"], &["serve"]] {
            let data = format!("--data-dir={}", folder.data().display());
            let ended = Notihub::new(&folder, &[command, &[&data], flags].concat()).run().await;
            assert_eq!(ended.code, Some(2), "{command:?} {flags:?}: {}", ended.stderr);
            assert!(named.iter().all(|name| ended.stderr.contains(name)), "{command:?} {flags:?}: {}", ended.stderr);
            assert!(!folder.data().exists(), "nothing was begun");
        }
        let doctor = Notihub::new(&folder, &[&["doctor", "--database-url=postgres://127.0.0.1:1/x"], flags].concat());
        let told = doctor.run().await.expect(1).stdout;
        assert!(named.iter().all(|name| told.contains(name)), "doctor {flags:?}: {told}");
    }
}

async fn max_attempts(url: &str, hub: Notihub) -> i64 {
    let mut serve = hub.arg("--retry-schedule=EMAIL=backoff").start();
    let (address, http) = (serve.address().await, http_to(url).await);
    let (status, accepted) = post(&http, address, "/v1/messages", &email("kim@example.com")).await.unwrap();
    assert_eq!(status, 202, "{accepted}");
    let path = format!("/v1/messages/{}", accepted["messageId"].as_str().unwrap());
    let (_, message) = get(&http, address, &path).await.unwrap();
    serve.stop().await.expect(0);
    message["deliveries"][0]["maxAttempts"].as_i64().unwrap()
}

/// S3-32, S3-33, S3-41: every setting is a line in notihub.toml; the environment beats it, a flag beats both. A line that
/// means nothing is refused.
#[tokio::test]
async fn a_file_holds_settings_the_environment_beats_it_and_flags_beat_both() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let serve = |args: &[&str]| on(&folder, &url, &[&["serve", "--listen=127.0.0.1:0"], args].concat());
    write("notihub.toml", "retry-max-attempts = 5\nretry-multiplier = 1.5\n");
    assert_eq!(max_attempts(&url, serve(&[])).await, 5, "notihub.toml where it is started");
    assert_eq!(
        max_attempts(&url, serve(&[]).env("NOTIHUB_RETRY_MAX_ATTEMPTS", "6")).await,
        6,
        "the environment beats it"
    );
    let both = serve(&["--retry-max-attempts=7"]).env("NOTIHUB_RETRY_MAX_ATTEMPTS", "6");
    assert_eq!(max_attempts(&url, both).await, 7, "a flag beats both");
    write("other.toml", "retry-max-attempts = 8\n");
    assert_eq!(max_attempts(&url, serve(&["--config", "other.toml"])).await, 8);
    assert_eq!(max_attempts(&url, serve(&["--config=other.toml"])).await, 8, "in either way of writing it");
    assert_eq!(max_attempts(&url, serve(&[]).env("NOTIHUB_CONFIG", "other.toml")).await, 8);

    // A list, and a truth value.
    let hooks = "slack-destination = [\"a=http://127.0.0.1:1/x\", \"b=http://127.0.0.1:1/y\"]\naccept-loss = true\n";
    write("notihub.toml", hooks);
    let mut listed = Notihub::new(&folder, &["serve", "--listen=127.0.0.1:0", "--database-url", &url]).start();
    let address = listed.address().await;
    let to_b = json!({"type": "T", "body": "x", "channels": [{"channel": "SLACK", "to": "b"}]});
    assert_eq!(post(&http_to(&url).await, address, "/v1/messages", &to_b).await.unwrap().0, 202);
    listed.stop().await.expect(0);

    for (text, told) in [
        ("retry-max-attempt = 5", "retry-max-attempt"),
        ("retry_max_attempts = 5", "retry_max_attempts"),
        ("retry-max-attempts = 0", "retry-max-attempts"),
        ("retry-max-attempts = \"many\"", "retry-max-attempts"),
        ("[retry]\nmax-attempts = 5", "retry"),
        ("retry-max-attempts = ", "notihub.toml"),
    ] {
        write("notihub.toml", text);
        let ended = serve(&[]).run().await;
        assert_eq!(ended.code, Some(2), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{text}: {}", ended.stderr);
    }
    std::fs::remove_file(folder.path().join("notihub.toml")).unwrap();
    let mocked = on(&folder, &url, &["work", "--once", "--mock=SMS"]).run().await.expect(0).stderr;
    let warnings: Vec<&str> = mocked.lines().filter(|line| line.contains("not sent to anybody")).collect();
    assert!(matches!(warnings[..], [only] if only.contains("EMAIL, SMS") && only.contains("--smtp-host")), "{mocked}");
    fsck(&folder, &url).await;
}

/// A database without the schema is refused with the remedy; migrating twice, or from two hosts at once, does no harm.
#[tokio::test]
async fn the_schema_is_brought_up_to_date_once() {
    let folder = Folder::new();
    let name = format!("empty_{}", std::process::id());
    let mut server = PgConnection::connect(&server_url()).await.unwrap();
    let create = format!("create database {name}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut server).await.unwrap();
    let url = database_url(&name);
    let missing = on(&folder, &url, &["migrate", "--check"]).run().await.expect(1);
    assert!(missing.stdout.contains("notihub migrate"), "{}", missing.stdout);
    let refused = on(&folder, &url, &["serve", "--listen=127.0.0.1:0"]).run().await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("notihub migrate"), "{}", refused.stderr);
    let (one, two) = (on(&folder, &url, &["migrate"]), on(&folder, &url, &["migrate", "--output=json"]));
    let (one, two) = tokio::join!(one.run(), two.run());
    one.expect(0).logged_json();
    two.expect(0).logged_json();
    on(&folder, &url, &["migrate", "--check"]).run().await.expect(0);
    let again = on(&folder, &url, &["migrate", "--output=json"]).run().await.expect(0).json();
    let changed = ["missing", "applied", "partitionsMade", "repaired", "toRun"].map(|name| again[name].clone());
    assert_eq!(changed, [json!(0), json!(0), json!(0), json!([]), json!([])], "{again}");

    // A program that is older than the schema does not touch it.
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 values (99999999, 'from the future', true, ''::bytea, 0)";
    sqlx::raw_sql(newer).execute(&mut PgConnection::connect(&url).await.unwrap()).await.unwrap();
    for args in [&["migrate"][..], &["migrate", "--check"], &["work", "--once"]] {
        let refused = on(&folder, &url, args).run().await;
        assert_ne!(refused.code, Some(0), "{args:?}");
        assert!(refused.stderr.contains("99999999") && refused.stderr.contains("newer notihub"), "{}", refused.stderr);
    }
    fsck(&folder, &url).await;
}

// ---- what must not be seen

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
    let mut server = PgConnection::connect(&crate::support::as_superuser(&url)).await.unwrap();
    let create = format!("create role {role} superuser login password 'CANARYdatabase'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut server).await.unwrap();
    let (_, rest) = url.split_once('@').unwrap();
    let database = format!("postgres://{role}:CANARYdatabase@{rest}");
    let secret = |args: &[&str]| {
        on(&folder, &database, args)
            .env("NOTIHUB_SLACK_DESTINATION", format!("ops={}", slack.hook("CANARYslack")))
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
            "type": "TEST", "title": "CANARYtitle", "body": "CANARYbody", "metadata": {"note": "CANARYmetadata"}, "clientMsgId": format!("m{n}"),
            "channels": [{"channel": "EMAIL", "to": format!("canaryrecipient{n}@example.com")}, {"channel": "SLACK", "to": "ops"}],
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
    let kept: Option<String> =
        sqlx::query_scalar("select string_agg(a::text, ' ') from attempts a").fetch_one(&mut server).await.unwrap();
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

/// Settings that are wrong are told without the secrets in them.
#[tokio::test]
async fn a_wrong_setting_is_told_without_its_secret() {
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
