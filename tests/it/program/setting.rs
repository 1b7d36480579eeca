//! Settings: files, environment and flags, and refusals that name their place.

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::app::email;
use crate::support::database::{database_url, fresh_database, server_url};
use crate::support::process::{Folder, Notihub, fsck, get, http_to, on, post};

/// Fault D1, S3-29: the environment that compose.yaml gives without an .env, run as plain processes: it migrates,
/// serves, works, and is healthy; a variable that is empty counts as not set.
#[tokio::test]
async fn compose_environment_without_an_env_file_starts() {
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
            "NOTIHUB_MIGRATE_DATABASE_URL" => (name, crate::support::database::as_superuser(&url)),
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

/// Fault F6: a wrong value is refused with its place: the flag by itself, the variable by its name, the file by its
/// line; a secret is not shown.
#[tokio::test]
async fn setting_with_a_wrong_value_names_its_place() {
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
    for (text, shown) in [
        (
            "\n[providers.a]\nadapter = \"mock\"\n",
            "line 2: there is no table 'providers'; write accounts as tables [provider.NAME]",
        ),
        ("in-flight = 1\n\nin-flight = 2\n", "line 3: 'in-flight' is given twice"),
        ("smtp-password = \"SECRET\" x\n", "line 1: "),
        ("in-flight = 3\n[provider.a]\nadapter = \"mock\"\n[provider.a]\n", "line 4: '"),
    ] {
        std::fs::write(folder.path().join("notihub.toml"), text).unwrap();
        let wrong = work(&[]).run().await.expect(2).stderr;
        assert!(wrong.contains(shown) && !wrong.contains("SECRET"), "{text}: {wrong}");
    }
    let accounts = "[provider.b]\nadapter = \"mock\"\nchannels = \"LMS\"\n[provider.a]\nadapter = \"mock\"\nchannels \
        = \"SMS\"\n\
                    weight = -3\n";
    std::fs::write(folder.path().join("notihub.toml"), accounts).unwrap();
    let account = on(&folder, &fresh_database().await, &["work", "--once"]).run().await.expect(2).stderr;
    assert!(account.contains("provider 'a': the option weight must be a whole number from 0 to "), "{account}");
    assert!(account.contains("provider 'a' has its options from notihub.toml line 4"), "{account}");
    std::fs::remove_file(folder.path().join("notihub.toml")).unwrap();
    let mysql = work(&["--once"]).env("NOTIHUB_DATABASE_URL", "mysql://hub:SECRET@db/hub").run().await.expect(2).stderr;
    let shown = mysql.contains("postgres://user:password@host") && mysql.contains("the variable NOTIHUB_DATABASE_URL");
    assert!(shown && !mysql.contains("SECRET"), "{mysql}");
    // Commands below others read the file as well.
    std::fs::write(folder.path().join("notihub.toml"), "url = \"http://127.0.0.1:1\"\nclient-id = \"a\"\n").unwrap();
    let below = Notihub::new(&folder, &["provider", "list", "--client-secret=b"]).run().await.expect(1).stderr;
    assert!(below.contains("no hub answers at http://127.0.0.1:1"), "{below}");
}

/// The program warns of a variable that looks like a setting's and is none, without its value; not of one of
/// Kubernetes' for a service called notihub.
#[tokio::test]
async fn variable_of_no_setting_is_warned_of() {
    let folder = Folder::new();
    let adapters = || {
        let command = Notihub::new(&folder, &["provider", "adapters"]).env("NOTIHUB_DATABASE_URL", "postgres://a/b");
        let service = ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_8080_TCP_ADDR", "API_SERVICE_HOST", "API_PORT"];
        service.iter().fold(command, |command, name| command.env(&format!("NOTIHUB_{name}"), "10.0.0.1"))
    };
    assert_eq!(adapters().run().await.expect(0).stderr, "");
    let mistyped = || adapters().env("NOTIHUB_SMPT_PASSWORD", "SECRET").env("NOTIHUB_FROBNICATE", "SECRET");
    let shown = mistyped().run().await.expect(0).stderr;
    assert!(shown.contains("NOTIHUB_SMPT_PASSWORD") && shown.contains("NOTIHUB_SMTP_PASSWORD"), "{shown}");
    assert!(shown.contains("NOTIHUB_FROBNICATE") && shown.lines().count() == 2 && !shown.contains("SECRET"), "{shown}");
    let json = mistyped().arg("--output=json").run().await.expect(0).stderr;
    assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["warning"].is_string()), "{json}");
}

/// Wrong usage ends with exit code 2, and names the right one.
#[tokio::test]
async fn usage_that_is_wrong_exits_2_with_the_remedy() {
    let folder = Folder::new();
    for (args, remedy) in [
        (&[][..], "Usage"),
        (&["frobnicate"], "--help"),
        (&["up", "--frobnicate"], "--help"),
        (&["work", "--in-flight=0"], "1..=65536"),
        (&["work", "--in-flight=many"], "--in-flight"),
        (&["work", "--once", "--cron=* * * * *"], "cannot be used with"),
        (&["work", "--cron=61 * * * *"], "'61' as its minute, which must be 0 to 59"),
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
        let shown = doctor.run().await.expect(1).stdout;
        assert!(named.iter().all(|name| shown.contains(name)), "doctor {flags:?}: {shown}");
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

/// S3-32, S3-33, S3-41: every setting is a line in notihub.toml; the environment beats it, a flag beats both. A line
/// that means nothing is refused.
#[tokio::test]
async fn settings_file_is_overridden_by_environment_and_flags() {
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

    for (text, shown) in [
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
        assert!(ended.stderr.contains(shown), "{text}: {}", ended.stderr);
    }
    std::fs::remove_file(folder.path().join("notihub.toml")).unwrap();
    let mocked = on(&folder, &url, &["work", "--once", "--mock=SMS"]).run().await.expect(0).stderr;
    let warnings: Vec<&str> = mocked.lines().filter(|line| line.contains("logged and not sent")).collect();
    assert!(matches!(warnings[..], [only] if only.contains("EMAIL, SMS") && only.contains("--smtp-host")), "{mocked}");
    fsck(&folder, &url).await;
}

/// A database without the schema is refused with the remedy; migrating twice, or from two hosts at once, does no harm.
#[tokio::test]
async fn migrate_repeated_or_at_the_same_moment_does_no_harm() {
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
