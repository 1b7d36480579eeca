//! Clients of other projects read an inbox's stream, unchanged: npm's `eventsource`, PyPI's `httpx-sse`, and curl. And
//! programs that die, or are full.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::inbox::to_inbox;
use crate::laws::root;
use crate::support::database::fresh_database;
use crate::support::process::{Folder, ask, fsck, get, http_to, on, post};
use crate::support::programs::{is_there, node_library, python};
use crate::support::wait::until;

/// A program that prints what it receives.
struct Client {
    name: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
    _child: Child,
}

impl Client {
    fn start(name: &'static str, program: &str, args: &[&str]) -> Client {
        let mut command = Command::new(program);
        let mut child = command.args(args).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("a program");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let received = lines.clone();
        Shutdown::new().spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                received.lock().unwrap().push(line);
            }
        });
        Client { name, lines, _child: child }
    }

    fn curl(url: &str, token: &str, last: Option<&str>) -> Client {
        let authorization = format!("authorization: Bearer {token}");
        let last = format!("last-event-id: {}", last.unwrap_or_default());
        Client::start("curl", "curl", &["--no-buffer", "--silent", "-H", &authorization, "-H", &last, url])
    }

    /// The events, each (name, id, data): as a client prints them, or as they came (curl).
    fn events(&self) -> Vec<(String, String, Value)> {
        let lines = self.lines.lock().unwrap();
        if self.name != "curl" {
            let events = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return events.map(|event| (text(&event["name"]), text(&event["id"]), event["data"].clone())).collect();
        }
        let frames = lines.join("\n");
        let field = |frame: &str, name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let event = |frame: &str| {
            let data = serde_json::from_str(&field(frame, "data: ")?).ok()?;
            Some((field(frame, "event: ")?, field(frame, "id: ").unwrap_or_default(), data))
        };
        frames.split("\n\n").filter_map(event).collect()
    }

    /// The bodies of the items, in the order in which they came.
    fn items(&self) -> Vec<String> {
        let items = self.events().into_iter().filter(|(name, ..)| name == "item");
        items.map(|(_, _, data)| data["body"].as_str().expect("a body").to_owned()).collect()
    }

    async fn has(&self, items: &[&str]) {
        until(&format!("{} has {items:?}", self.name), async || self.items() == items).await;
    }
}

/// S4-74, L4: stock clients get each item once and in order, across a process that is killed and started again: both
/// libraries come back by themselves with the id of the last event, curl with the header that its user gives it.
#[tokio::test]
async fn stock_clients_read_the_stream_and_resume() {
    let library = node_library();
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let serve = |listen: &str| on(&folder, &url, &["serve", "--email=off", listen]).start();
    let mut doomed = serve("--listen=127.0.0.1:0");
    let address = doomed.address().await;
    let mut other = serve("--listen=127.0.0.1:0");
    let there = other.address().await;
    let work = on(&folder, &url, &["work", "--email=off"]).start();
    let (status, made) = post(&http, address, "/v1/users/u-1/token", &json!({})).await.unwrap();
    assert_eq!(status, 200, "{made}");
    let token = made["accessToken"].as_str().unwrap();
    let send = async |body: &str| {
        assert_eq!(post(&http, there, "/v1/messages", &to_inbox(&["u-1"], body)).await.unwrap().0, 202);
    };

    let stream = format!("http://{address}/v1/inbox/stream");
    let script = |name: &str| root().join("tests/fixtures").join(name).to_str().unwrap().to_owned();
    let of_python = script("httpx_sse_client.py");
    let mut clients = vec![Client::start("httpx-sse", python("httpx_sse"), &[&of_python, &stream, token])];
    if let Some(library) = &library {
        let of_node = script("event_source.mjs");
        clients.push(Client::start("eventsource", "node", &[&of_node, library, &stream, token]));
    }
    if is_there("curl") {
        clients.push(Client::curl(&stream, token, None));
    }
    for client in &clients {
        until(&format!("{} receives the counts", client.name), async || !client.events().is_empty()).await;
        assert_eq!(client.events()[0].0, "counts");
    }
    send("a").await;
    for client in &clients {
        client.has(&["a"]).await;
    }

    doomed.signal(Signal::SIGKILL);
    doomed.ended().await;
    for (body, delivered) in [("b", 2), ("c", 3)] {
        send(body).await;
        // One after the other: of two that wait together either may arrive first.
        until("it has arrived", async || {
            let page = get(&http, there, "/v1/deliveries?status=DELIVERED").await.unwrap().1;
            page["items"].as_array().unwrap().len() == delivered
        })
        .await;
    }
    let mut again = serve(&format!("--listen={address}"));
    again.address().await;
    if let Some(curl) = clients.iter().find(|client| client.name == "curl") {
        let (_, last, _) = curl.events().into_iter().rfind(|(name, ..)| name == "item").unwrap();
        let resumed = Client::curl(&stream, token, Some(&last));
        resumed.has(&["b", "c"]).await;
    }
    send("d").await;
    for client in clients.iter().filter(|client| client.name != "curl") {
        client.has(&["a", "b", "c", "d"]).await;
    }
    drop(clients);
    for program in [again, other, work] {
        program.stop().await.expect(0);
    }
    fsck(&folder, &url).await;
}

/// L1, L7: a worker that is killed after it put an item and before it said so: another process's sweep hands the item
/// to its open stream, and the worker that takes the delivery over puts no second one.
#[tokio::test]
async fn writer_killed_before_its_hint_loses_nothing_and_repeats_nothing() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let mut serve = on(&folder, &url, &["serve", "--email=off", "--listen=127.0.0.1:0"]).start();
    let address = serve.address().await;
    let (_, made) = post(&http, address, "/v1/users/u-1/token", &json!({})).await.unwrap();
    let stream = format!("http://{address}/v1/inbox/stream");
    let mut response = http.get(&stream).bearer_auth(made["accessToken"].as_str().unwrap()).send().await.unwrap();
    let (status, posted) = post(&http, address, "/v1/messages", &to_inbox(&["u-1"], "a")).await.unwrap();
    assert_eq!(status, 202, "{posted}");
    let once = || on(&folder, &url, &["work", "--once", "--email=off"]);
    let ended = once().env("FAILPOINTS", "put.after_commit=return").run().await;
    assert_eq!(ended.code, None, "{}", ended.stderr);
    let mut received = String::new();
    let mut read_until = async |wanted: &str| {
        while !received.contains(wanted) {
            let chunk = response.chunk().await.unwrap().expect("the stream stays open");
            received.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        received.matches("event: item").count()
    };
    assert_eq!(read_until("event: item").await, 1, "the sweep found it");

    let db = sqlx::PgPool::connect(&url).await.unwrap();
    // The lease runs by the database's clock, which no test can move.
    sqlx::query("update deliveries set lease_until = clock_timestamp() - interval '1 s' where status = 'PROCESSING'")
        .execute(&db)
        .await
        .unwrap();
    until("it is delivered", async || {
        once().run().await.expect(0);
        let id = posted["messageId"].as_str().unwrap();
        let message = get(&http, address, &format!("/v1/messages/{id}")).await.unwrap().1;
        message["deliveries"][0]["status"] == "DELIVERED"
    })
    .await;
    let (status, _) = post(&http, address, "/v1/messages", &to_inbox(&["u-1"], "b")).await.unwrap();
    assert_eq!(status, 202);
    once().run().await.expect(0);
    assert_eq!(read_until("\"b\"").await, 2, "a and b, each once");
    db.close().await;
    drop(response);
    serve.stop().await.expect(0);
    fsck(&folder, &url).await;
}

/// The program raises its limit of open files to what the system grants.
#[tokio::test]
async fn program_raises_its_limit_of_open_files() {
    let program = env!("CARGO_BIN_EXE_notihub");
    let limits = "ulimit -Sn 256 && exec \"$0\" pg -- sh -c 'ulimit -Sn; ulimit -Hn'";
    let ran = Command::new("sh").args(["-c", limits, program]).output().await.expect("a shell");
    let printed = String::from_utf8_lossy(&ran.stdout);
    let limits: Vec<&str> = printed.lines().collect();
    assert_eq!(limits.len(), 2, "{printed}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(limits[0] != "256" && limits[0] == limits[1], "{printed}");
}

/// A process refuses streams over --live-connections with the way out, while requests go on.
#[tokio::test]
async fn streams_are_refused_over_the_limit_of_live_connections() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let args = ["serve", "--email=off", "--listen=127.0.0.1:0", "--live-connections=1"];
    let mut serve = on(&folder, &url, &args).start();
    let address = serve.address().await;
    let open = || http.get(format!("http://{address}/v1/inbox/stream")).header("x-user", "u-1");
    let first = open().send().await.unwrap();
    assert_eq!(first.status().as_u16(), 200);
    let (status, problem) = ask(open()).await.unwrap();
    assert_eq!((status, &problem["reason"]), (503, &json!("queue_unavailable")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("--live-connections"), "{problem}");
    assert_eq!(get(&http, address, "/v1/messages").await.unwrap().0, 200);
    drop(first);
    serve.stop().await.expect(0);
    fsck(&folder, &url).await;
}
