//! What a partner's developer has at a terminal: `webhook listen` and `webhook verify`, as processes.

use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use notihub::clock::Clock;
use notihub::model::signature;
use serde_json::{Value, json};

use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub, Program};
use crate::webhook::{FORMER, SECRET};

fn now() -> i64 {
    Clock::system().now().timestamp()
}

async fn listening(folder: &Folder, args: &[&str]) -> (Program, String) {
    let mut program = Notihub::new(folder, &[&["webhook", "listen", "--listen=127.0.0.1:0"], args].concat()).start();
    program.says("http://").await;
    let shown = program.stdout();
    let (_, rest) = shown.split_once("http://").unwrap();
    (program, format!("http://{}", rest.split('/').next().unwrap()))
}

async fn post(url: &str, headers: &[(&str, String)], body: impl Into<Vec<u8>>) -> u16 {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = headers.iter().fold(http.post(url), |request, (name, value)| request.header(*name, value));
    request.body(body.into()).send().await.unwrap().status().as_u16()
}

fn body(id: &str) -> String {
    json!({"eventId": id, "event": "delivery.sent", "messageId": "0ABCDEFGHJKMN", "deliveryId": "0ABCDEFGHJKMN-1"})
        .to_string()
}

/// S0-44, S0-45, S0-49: a listener verifies what arrives, answers as told, knows what came before, and counts.
#[tokio::test]
async fn listener_verifies_answers_and_counts() {
    let folder = Folder::new();
    let args = ["--answer=500,delay:5ms:503,204", "--output=json", &format!("--secret={SECRET}")];
    let (mut program, url) = listening(&folder, &args).await;
    let first = body("0ABCDEFGHJKMN-1-1");
    let signed = signature::headers(SECRET, None, "0ABCDEFGHJKMN-1-1", now(), first.as_bytes());
    assert_eq!(post(&format!("{url}/hook?a=1"), &signed, first.clone()).await, 500);
    assert_eq!(post(&url, &signed, first.clone()).await, 503);
    assert_eq!(post(&url, &signed, format!("{first} ")).await, 204, "changed on the way");
    let old = signature::headers(SECRET, None, "x", now() - 400, b"not JSON");
    assert_eq!(post(&url, &old, "not JSON").await, 204, "the last answer stays");
    assert_eq!(post(&url, &[], vec![0xff, 0x00]).await, 204);
    assert_eq!(post(&url, &[], vec![b'x'; (1 << 20) + 1]).await, 413);
    let got = reqwest::Client::builder().no_proxy().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!(got.status().as_u16(), 405);

    program.signal(Signal::SIGINT);
    program.says("\"requests\"").await;
    let ended = program.ended().await.expect(0);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [_, one, two, changed, late, unsigned, sum] = lines.as_slice() else { panic!("{}", ended.stdout) };
    let holds = |header: &str| json!({"holds": true, "header": header, "secret": 1});
    assert_eq!(
        one["signatures"],
        json!({"xSignature": holds("x-signature"), "webhookSignature": holds("webhook-signature")})
    );
    assert_eq!((&one["headers"]["x-signature"], &one["rawBody"]), (&json!(signed[0].1), &json!(first)));
    assert_eq!(unsigned["rawBody"], json!({"base64": "/wA="}));
    assert_eq!((&one["path"], &one["event"]), (&json!("/hook?a=1"), &json!("delivery.sent")));
    assert_eq!((&one["messageId"], &one["deliveryId"]), (&json!("0ABCDEFGHJKMN"), &json!("0ABCDEFGHJKMN-1")));
    assert_eq!([one, two, changed].map(|l| l["times"].as_u64()), [Some(1), Some(2), Some(3)]);
    assert_eq!([one, two, changed, late].map(|l| l["answer"].as_u64()), [500, 503, 204, 204].map(Some));
    assert_eq!(
        [one, two, changed, late, unsigned].map(|l| l["valid"].as_bool().unwrap()),
        [true, true, false, false, false]
    );
    assert!(changed["signatures"]["xSignature"]["why"].as_str().unwrap().contains("body was changed"), "{changed}");
    assert!(late["signatures"]["webhookSignature"]["why"].as_str().unwrap().contains("s ago"), "{late}");
    assert_eq!((&late["body"], &unsigned["body"]), (&json!("not JSON"), &json!({"base64": "/wA="})));
    assert_eq!(unsigned["signatures"], json!({"xSignature": null, "webhookSignature": null}));
    assert_eq!(*sum, json!({"requests": 5, "events": 2, "again": 2, "invalid": 3}));
}

/// S0-44: a request that does not verify is refused, unless told otherwise, and reported first; it is kept byte for
/// byte, for `verify` to judge again.
#[tokio::test]
async fn listener_refuses_and_keeps_what_does_not_verify() {
    let folder = Folder::new();
    let kept = folder.path().join("got").join("here");
    let save = format!("--save={}", kept.display());
    let (program, url) = listening(&folder, &[&format!("--secret={SECRET}"), &save]).await;
    let body = format!("{}\n\n  ", body("0ABCDEFGHJKMN-1-1"));
    let signed = signature::headers(SECRET, None, "0ABCDEFGHJKMN-1-1", now(), body.as_bytes());
    assert_eq!(post(&format!("{url}/hook?a=1"), &signed, body.clone()).await, 200);
    assert_eq!(post(&url, &signed, format!("{body} ")).await, 401);
    let printed = program.stop().await.expect(0).stdout;
    let firsts: Vec<&str> = printed.lines().filter(|line| line.contains("delivery.sent  0ABC")).collect();
    assert!(!firsts[0].contains("NOT VALID") && firsts[1].contains("NOT VALID"), "{printed}");
    assert!(printed.contains("\n  → 200") && printed.contains("\n  → 401"), "{printed}");

    let mut files: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let [good, changed] = files.as_slice() else { panic!("{files:?}") };
    let text = std::fs::read_to_string(good).unwrap();
    assert!(text.starts_with("POST /hook?a=1 HTTP/1.1\n") && text.ends_with(&format!("\n\n{body}")), "{text}");
    for (file, code) in [(good, 0), (changed, 1)] {
        assert!(printed.contains(&format!("saved {}", file.display())), "{printed}");
        let verify = Notihub::new(&folder, &["webhook", "verify", &format!("--secret={SECRET}")]).arg(file);
        verify.run().await.expect(code);
    }
    let nowhere = format!("--save={}", good.join("x").display());
    let refused = Notihub::new(&folder, &["webhook", "listen", "--listen=127.0.0.1:0", &nowhere]).run().await;
    assert!(refused.expect(1).stderr.contains("cannot be written to"));
}

/// A request comes from anywhere: nothing of it steers the terminal, or looks like a line of the program.
#[tokio::test]
async fn listener_output_is_not_steered_by_requests() {
    let folder = Folder::new();
    let hostile = "\u{1b}[2J\u{9b}31m\u{7}\u{202e}\n  → 200\n";
    for form in ["text", "json"] {
        let (program, url) = listening(&folder, &[&format!("--output={form}"), "--answer=410"]).await;
        let body = json!({"event": hostile, "eventId": hostile, "messageId": hostile, "deliveryId": {}}).to_string();
        assert_eq!(post(&url, &[("webhook-id", "x".into())], body).await, 410);
        assert_eq!(post(&format!("{url}/%1b%0a"), &[], hostile).await, 410, "not JSON at all");
        assert_eq!(post(&url, &[], b"\x1b[2J\xff\x9b\r\n".as_slice()).await, 410);
        let printed = program.stop().await.expect(0).stdout;
        let steering = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!printed.contains(steering), "{printed:?}");
        if form == "text" {
            assert_eq!(printed.matches("\n  → 410").count(), 3, "{printed}");
            assert!(
                printed.contains("signatures not checked")
                    && printed.ends_with("3 requests, 1 events, 0 repeats, 0 not valid\n"),
                "{printed}"
            );
        } else {
            assert_eq!(printed.lines().count(), 5, "{printed}");
        }
    }
}

/// A pasted request is judged by each scheme, and the output names the remedy.
#[tokio::test]
async fn verify_command_judges_a_pasted_request() {
    let folder = Folder::new();
    let body = body("0ABCDEFGHJKMN-1-1");
    let pasted = |at: i64, body: &str| {
        let signed = signature::headers(SECRET, Some(FORMER), "0ABCDEFGHJKMN-1-1", at, body.as_bytes());
        let headers: String = signed.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("POST /hook HTTP/1.1\r\nHost: example.com\r\n{headers}\r\n{body}")
    };
    let file = folder.path().join("request");
    let verify = async |request: &str, args: &[&str]| {
        std::fs::write(&file, request).unwrap();
        Notihub::new(&folder, &[&["webhook", "verify"], args].concat())
            .arg(&file)
            .env("NOTIHUB_WEBHOOK_SECRET", SECRET)
            .run()
            .await
    };

    let good = verify(&pasted(now(), &body), &[]).await.expect(0);
    assert!(
        good.stdout.contains("X-Signature        holds (x-signature-next, secret 1)\nwebhook-signature  holds\nvalid"),
        "{}",
        good.stdout
    );
    let echoed = verify(&format!("{}\n", pasted(now(), &body)), &["--output=json"]).await.expect(0).json();
    assert_eq!((&echoed["valid"], &echoed["lastNewlineTakenAway"]), (&json!(true), &json!(true)));
    let other = Notihub::new(&folder, &["webhook", "verify"]).arg(&file).arg(format!("--secret={FORMER}")).run().await;
    assert!(other.expect(0).stdout.contains("X-Signature        holds\n"), "the former's");

    let old = verify(&pasted(1_700_000_000, &body), &[]).await.expect(1);
    assert!(old.stdout.contains("s ago") && old.stdout.contains("--ignore-time"), "{}", old.stdout);
    verify(&pasted(1_700_000_000, &body), &["--ignore-time"]).await.expect(0);
    verify(&pasted(1_700_000_000, &body), &["--at=2023-11-14T22:18:20Z"]).await.expect(0);
    verify(&pasted(1_700_000_000, &body), &["--at=1700000301"]).await.expect(1);
    let changed = verify(&pasted(now(), &body).replace("delivery.sent", "delivery.Sent"), &["--output=json"]).await;
    let changed = changed.expect(1).json();
    assert_eq!((&changed["valid"], &changed["signatures"]["xSignature"]["holds"]), (&json!(false), &json!(false)));
    assert!(changed["hints"].to_string().contains("use the exact bytes of the body"), "{changed}");

    for (request, args) in
        [("", &[][..]), ("hello\n", &[]), ("A: b\n\n", &["--at=soon"]), ("A: b\n\n", &["--secret=whsec_c2hvcnQ="])]
    {
        let refused = verify(request, args).await.expect(2);
        assert!(refused.stderr.contains("error") && !refused.stderr.contains("c2hvcnQ"), "{}", refused.stderr);
    }
    let nothing = Notihub::new(&folder, &["webhook", "verify"]).arg(&file).run().await.expect(2);
    assert!(nothing.stderr.contains("NOTIHUB_WEBHOOK_SECRET"), "{}", nothing.stderr);

    // From standard input, the secret from a file.
    let secrets = folder.path().join("secrets");
    std::fs::write(&secrets, format!("{FORMER}\n\n{SECRET}\n")).unwrap();
    let mut piped = std::process::Command::new(env!("CARGO_BIN_EXE_notihub"))
        .args(["webhook", "verify", "--secret-file"])
        .arg(&secrets)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(pasted(now(), &body).as_bytes()).unwrap();
    assert!(piped.wait().unwrap().success());
}

/// A listener registers itself at a hub, as the partner that is signed in, and takes itself off at the end.
#[tokio::test]
async fn listener_registers_and_removes_itself() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let data = format!("--data-dir={}", folder.data().display());
    let allow = ["--webhook-allow-http", "--webhook-allow-network=127.0.0.0/8"];
    let mut up = Notihub::new(&folder, &[&["up", "--listen=127.0.0.1:0", "--accept-loss", &data], &allow[..]].concat())
        .env("NOTIHUB_DATABASE_URL", url)
        .start();
    let hub = format!("--url=http://{}", up.address().await);
    let list = async || {
        let listed = Notihub::new(&folder, &["webhook", "list", &hub, &data, "--output=json"]).run().await;
        listed.expect(0).json()["items"].as_array().unwrap().clone()
    };

    let (mut listener, url) =
        listening(&folder, &["--create", "--events=delivery.failed,message.completed", &hub, &data]).await;
    listener.says(" as endpoint ").await;
    let listed = list().await;
    let [endpoint] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(endpoint["url"], format!("{url}/"));
    assert_eq!(endpoint["events"], json!(["delivery.failed", "message.completed"]));
    assert!(
        listener.stdout().contains(endpoint["endpointId"].as_str().unwrap())
            && !listener.stdout().contains("not checked")
    );
    // It has a secret now: what is not signed with that is not valid.
    assert_eq!(post(&url, &signature::headers(SECRET, None, "x", now(), b"{}"), "{}").await, 401);
    let ended = listener.stop().await.expect(0);
    assert!(ended.stdout.ends_with("1 requests, 1 events, 0 repeats, 1 not valid\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("whsec_") && list().await.is_empty());

    let refused = Notihub::new(&folder, &["webhook", "listen", "--listen=127.0.0.1:0", "--create", &hub, &data])
        .arg("--endpoint-url=http://169.254.169.254/")
        .run()
        .await;
    let refused = refused.expect(1).stderr;
    assert!(refused.contains("/url") && refused.contains("--webhook-allow-http --webhook-allow-network"), "{refused}");

    // What a listener that was killed left goes with the next one of the same URL; no other does.
    let at = "--endpoint-url=http://127.0.0.1:9999/left";
    for kill in [true, false] {
        let made = ["webhook", "create", "http://127.0.0.1:9999/left", &hub, &data];
        let mine = "--description=mine";
        if kill {
            Notihub::new(&folder, &made).arg(mine).run().await.expect(0);
        }
        let (mut listener, _) = listening(&folder, &["--create", at, &hub, &data]).await;
        listener.says(" as endpoint ").await;
        let listed = list().await;
        let mut described: Vec<&str> = listed.iter().map(|e| e["description"].as_str().unwrap()).collect();
        described.sort_unstable();
        assert_eq!(described, ["mine", "notihub webhook listen"]);
        if kill {
            listener.signal(Signal::SIGKILL);
            listener.ended().await;
        } else {
            listener.stop().await.expect(0);
        }
    }
    assert_eq!(list().await.len(), 1);
    up.stop().await.expect(0);
}
