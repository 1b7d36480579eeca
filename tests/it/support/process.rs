//! Processes of the hub's program for tests: start, signals, output and exit, and a client of its API.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use notihub::clock::Clock;
use notihub::flow;
use notihub::flow::partner::PartnerChange;
use notihub::hub::{Hub, Parts};
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::provider::Providers;
use notihub::shutdown::Shutdown;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::app::{create_partner, named, settings, sign_in};
use crate::support::database::store;
use crate::support::wait::{PATIENCE, wait_for};

/// As short as the rules between them allow: a call must have longer than a statement.
pub const TIMING: [&str; 6] = [
    "--call-budget-ms=10001",
    "--settle-budget-ms=300",
    "--lease-margin-ms=200",
    "--lease-ms=11600",
    "--reap-every-ms=250",
    "--shutdown-grace-ms=12000",
];

pub fn timed<'a>(args: &[&'a str]) -> Vec<&'a str> {
    args.iter().copied().chain(TIMING).collect()
}

/// A folder that goes with the test. A private PostgreSQL that still runs in it is killed first.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("/tmp/notihub-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(&name).expect("a folder");
        Folder(name.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where `up` keeps its PostgreSQL in this folder.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The server in the data folder; none when there is no such process.
    pub fn postmaster(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.data().join("pg/postmaster.pid")).ok()?;
        let pid: i32 = file.lines().next()?.trim().parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = self.data().join("pg").into_os_string().into_encoded_bytes();
        line.split(|byte| *byte == 0).any(|arg| arg == ours).then(|| Pid::from_raw(pid))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            let _gone = kill(pid, Signal::SIGQUIT);
        }
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

/// A command line to be run.
pub struct Notihub {
    pub command: Command,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Notihub {
    pub fn new(folder: &Folder, args: &[&str]) -> Notihub {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(env!("CARGO_BIN_EXE_notihub"));
        command.args(args).current_dir(folder.path()).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        for kept in ["PATH", "HOME", "LANG"] {
            command.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        let file = |what: &str| folder.path().join(format!("{n}.{what}"));
        Notihub { command, stdout: file("stdout"), stderr: file("stderr") }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Notihub {
        self.command.arg(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Notihub {
        self.command.env(name, value.into());
        self
    }

    pub fn start(mut self) -> Program {
        let file = |path: &Path| std::fs::File::create(path).expect("a file for output");
        self.command.stdout(file(&self.stdout)).stderr(file(&self.stderr));
        let child = self.command.spawn().expect("the program starts");
        Program { child, stdout: self.stdout, stderr: self.stderr }
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ended {
        self.start().ended().await
    }
}

/// The program, running.
pub struct Program {
    pub child: Child,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// What is left of a program that ended.
#[derive(Debug)]
pub struct Ended {
    /// None: a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(i32::try_from(id).expect("a process id"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).expect("its output")
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("its log")
    }

    /// Waits until it has written this; panics when it ends first.
    pub async fn says(&mut self, text: &str) {
        wait_for(text, async || {
            let printed = self.stdout().contains(text) || self.stderr().contains(text);
            let ended = self.child.try_wait().expect("a process");
            assert!(printed || ended.is_none(), "it ended ({ended:?}): {}{}", self.stdout(), self.stderr());
            printed.then_some(())
        })
        .await;
    }

    /// Where the API of `up` (which tells people) or of `serve` (which logs) answers.
    pub async fn address(&mut self) -> SocketAddr {
        self.says("answers").await;
        let shown = self.stdout();
        let shown = shown.split_once("answers at http://").and_then(|(_, rest)| rest.split_whitespace().next());
        let logged = || {
            let log = self.stderr();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter_map(|line| line["address"].as_str().map(str::to_owned)).next()
        };
        shown.map(str::to_owned).or_else(logged).expect("an address").parse().expect("an address")
    }

    pub async fn ended(mut self) -> Ended {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!("it does not end: {} {}", self.stdout(), self.stderr());
        };
        let status = status.expect("a process");
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Asks it to stop.
    pub async fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }
}

impl Ended {
    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Its output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", self.stdout, self.stderr))
    }

    /// Every line of its log is a JSON object with time and level.
    #[track_caller]
    pub fn logged_json(&self) {
        for line in self.stderr.lines() {
            let logged: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(logged["level"].is_string() && logged["timestamp"].is_string(), "{line}");
        }
    }
}

/// `notihub fsck` finds nothing.
pub async fn fsck(folder: &Folder, database_url: &str) {
    let checked = Notihub::new(folder, &["fsck", "--output", "json", "--database-url", database_url]).run().await;
    let found = checked.json();
    assert_eq!((&found["clean"], &found["findings"]), (&true.into(), &serde_json::json!([])), "{}", checked.stderr);
    checked.expect(0);
}

/// A client of the hub on this database, signed in as a partner that may post as much as it likes.
pub async fn http_to(url: &str) -> reqwest::Client {
    http_with(url, Vec::new()).await
}

/// The same where secrets are sealed under a master key.
pub async fn http_with_key(url: &str, master_key: [u8; 32]) -> reqwest::Client {
    http_with(url, vec![master_key]).await
}

/// The same of an `up` that keeps its data in this folder.
pub async fn http_in(folder: &Folder) -> reqwest::Client {
    let url = notihub::cli::pg::running_url(&folder.data()).expect("a file").expect("a running PostgreSQL");
    let key = std::fs::read_to_string(folder.data().join("master.key")).expect("a master key");
    http_with(&url, vec![notihub::crypt::read_key(&key).expect("a key")]).await
}

/// As the demo partner of an `up`, with the key that it keeps in its folder.
pub async fn http_as_demo(folder: &Folder, address: SocketAddr) -> reqwest::Client {
    let kept = std::fs::read_to_string(folder.data().join("credentials.json")).expect("the keys of `up`");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    let (status, signed_in) = post(&client(""), address, "/v1/auth/token", &kept["partner"]).await.expect("an answer");
    assert_eq!(status, 200, "{signed_in}");
    client(signed_in["accessToken"].as_str().expect("a token"))
}

pub fn client(token: &str) -> reqwest::Client {
    let bearer = format!("Bearer {token}");
    let headers = [(reqwest::header::AUTHORIZATION, bearer.parse().expect("a header"))].into_iter().collect();
    reqwest::Client::builder().no_proxy().default_headers(headers).build().expect("a client")
}

/// The same as an operator.
pub async fn operator_to(url: &str) -> reqwest::Client {
    let hub = hub_on(url, Vec::new()).await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().expect("an admin");
    let key = flow::partner::create_key(&hub, permit, StaffRole::Operator, "test").await.expect("a key");
    let token = sign_in(&hub, &key).await;
    hub.shutdown.stop();
    hub.store.close().await;
    client(&token)
}

pub async fn hub_on(url: &str, master_keys: Vec<[u8; 32]>) -> Hub {
    let _first_wins = rustls::crypto::ring::default_provider().install_default();
    let parts = Parts {
        settings: settings(&[]),
        store: store(url),
        providers: Providers::default(),
        clock: Clock::system(),
        shutdown: Shutdown::new(),
        master_keys,
    };
    notihub::flow::start(parts).await.expect("a hub")
}

pub async fn http_with(url: &str, master_keys: Vec<[u8; 32]>) -> reqwest::Client {
    client(&token_with(url, master_keys).await)
}

/// The access token of a partner that may post as much as it likes.
pub async fn token_to(url: &str) -> String {
    token_with(url, Vec::new()).await
}

async fn token_with(url: &str, master_keys: Vec<[u8; 32]>) -> String {
    let hub = hub_on(url, master_keys).await;
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().expect("an admin");
    let credentials = match notihub::store::partner::find_by_name(hub.store.api(), "test").await.expect("an answer") {
        Some(partner) => {
            let overlap = chrono::TimeDelta::hours(1);
            flow::partner::rotate(&hub, permit, partner.partner_id, overlap).await.expect("a new secret")
        }
        None => create_partner(&hub, PartnerChange { rate_limit_tps: Some(1_000_000), ..named("test") }).await.1,
    };
    let token = sign_in(&hub, &credentials).await;
    hub.shutdown.stop();
    hub.store.close().await;
    token
}

/// Status and body of an answer; none when there was none.
pub async fn ask(request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, serde_json::from_str(&response.text().await.ok()?).unwrap_or(Value::Null)))
}

/// What is no JSON.
pub async fn text(http: &reqwest::Client, address: SocketAddr, path: &str) -> (u16, String) {
    let answer = http.get(format!("http://{address}{path}")).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

/// Posts JSON.
pub async fn post(http: &reqwest::Client, address: SocketAddr, path: &str, body: &Value) -> Option<(u16, Value)> {
    let request = http.post(format!("http://{address}{path}")).header("content-type", "application/json");
    ask(request.body(body.to_string())).await
}

pub async fn get(http: &reqwest::Client, address: SocketAddr, path: &str) -> Option<(u16, Value)> {
    ask(http.get(format!("http://{address}{path}"))).await
}

/// A program of its own on this database, which is the tests' and not durable.
pub fn on(folder: &Folder, url: &str, args: &[&str]) -> Notihub {
    Notihub::new(folder, args).env("NOTIHUB_DATABASE_URL", url).env("NOTIHUB_ACCEPT_LOSS", "true")
}
