//! The fault `live`: users write in a room, 200 messages a second, while API processes and PostgreSQL are killed and
//! the connections are cut that listen to notifications. Afterwards the room's stream is compared with the answers that
//! senders got and with what each of a hundred listeners received. In the control run clients come back without their
//! position and repeat what had no answer under a new id: the comparison must object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::super::{Output, client, process};
use super::faults::{LIVE, check_alive, free_port, print_line, send, start, wait_until_answering};
use super::report::{Figure, Goal, print_figure, table};
use super::sizes::Sizes;
use super::stomp::Stomp;
use super::testbed::{self, BenchServer};
use crate::clock::Clock;
use crate::config::{Database, Settings};
use crate::error::{Error, Result};
use crate::flow;
use crate::shutdown::Shutdown;
use crate::store::{PoolSizes, Store, bench};

const USERS: usize = 10;
/// Connections that write, together 200 messages a second; and connections that listen.
const SENDERS: usize = 20;
const SEND_EVERY: Duration = Duration::from_millis(100);
const LISTENERS: usize = 100;
/// The time between two disturbances.
const DISTURB_EVERY: Duration = Duration::from_millis(1_500);
/// Longest wait for the answer to one message, and longest time in which it is sent again and again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(40);
/// A control that is behind stays behind.
const PATIENCE_CONTROL: Duration = Duration::from_secs(5);

const FLAGS: [&str; 4] = ["--email=off", "--log=error", "--user-sends=1000", "--room-sends=1000"];

/// Runs the fault and its control. Returns whether every promise was kept and the control had objections.
///
/// # Errors
/// Any error of the processes under test or the database.
pub async fn run(settings: &Settings, sizes: &Sizes, server: &BenchServer, output: Output) -> Result<bool> {
    let mut figures = Vec::new();
    let mut add = |name: &str, value: f64, unit: &'static str, goal: Option<Goal>| {
        let mut figure = Figure::new(LIVE, name, value, unit);
        figure.goal = goal;
        print_figure(&figure, output);
        figures.push(figure);
    };
    let none = Some(Goal::AtMost(0.0));
    let found = round(settings, sizes.seconds, false, server).await?;
    add("processes killed", found.disturbed.processes_killed as f64, "", Some(Goal::AtLeast(1.0)));
    add("listening connections cut", found.disturbed.listeners_cut as f64, "", Some(Goal::AtLeast(1.0)));
    add("PostgreSQL killed", found.disturbed.postgres_killed as f64, "", None);
    add("answered as saved", found.saved as f64, "messages", None);
    add("lost", found.lost as f64, "messages", none);
    add("stored twice", found.stored_twice as f64, "messages", none);
    add("never answered", found.given_up as f64, "messages", none);
    add("events due at all listeners", found.due as f64, "", None);
    add("missing at a listener", found.missing as f64, "events", none);
    add("at a listener and not in the stream", found.strange as f64, "events", none);
    add("twice or out of order", found.backwards as f64, "events", none);
    add("listeners that had to begin anew", found.resets as f64, "", none);
    add("connections that listeners made", found.connections as f64, "", None);
    add("processes that ended badly", found.ended_badly as f64, "", none);
    add("fsck findings", found.findings as f64, "rows", none);
    for objection in found.objections() {
        print_line(LIVE, &format!("the judge objects: {objection}"));
    }
    let control = round(settings, sizes.seconds.min(8), true, server).await?;
    let objections = control.objections();
    print_line(LIVE, &format!("with the defence off the judge objects: {}", objections.join("; ")));
    add("missing with the defence off", control.missing as f64, "events", Some(Goal::AtLeast(1.0)));
    add("objections with the defence off", objections.len() as f64, "", Some(Goal::AtLeast(1.0)));
    let all_reached = figures.iter().all(|figure| figure.reached() != Some(false));
    if output == Output::Text {
        table(&figures);
    }
    Ok(all_reached)
}

/// The findings of a round.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    saved: usize,
    /// Answered as saved, and not in the stream under that id.
    lost: usize,
    /// Texts that are in the stream more than once.
    stored_twice: usize,
    given_up: u64,
    /// Events that the listeners should have received, all together.
    due: usize,
    missing: usize,
    strange: usize,
    backwards: usize,
    resets: u64,
    connections: u64,
    disturbed: Disturbed,
    ended_badly: u64,
    findings: usize,
}

impl Found {
    fn objections(&self) -> Vec<String> {
        let counts = [
            (self.lost, "messages are lost"),
            (self.stored_twice, "messages are stored twice"),
            (self.missing, "events are missing at listeners"),
            (self.strange, "events at listeners are not in the stream"),
            (self.backwards, "events came twice or out of order"),
            (self.findings, "findings of fsck"),
        ];
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
    }
}

/// How often a round was disturbed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Disturbed {
    processes_killed: usize,
    postgres_killed: usize,
    listeners_cut: i64,
}

/// An event of the room: its number, and the text of its message.
type Entry = (i64, String);

/// The events that a listener has received, and its position.
#[derive(Default)]
struct Ledger {
    /// The number after which it began; none until it has subscribed.
    from: Option<i64>,
    epoch: String,
    entries: Vec<Entry>,
}

/// Compares the stream with the answers of senders, by text, and the ledgers of listeners.
fn judge(stream: &[Entry], saved: &HashMap<String, i64>, ledgers: &[&Ledger]) -> Found {
    let mut by_text: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (seq, text) in stream.iter().filter(|(_, text)| !text.is_empty()) {
        by_text.entry(text).or_default().push(*seq);
    }
    let is_there = |text: &str, seq: i64| by_text.get(text).is_some_and(|seqs| seqs.contains(&seq));
    let mut found = Found {
        saved: saved.len(),
        lost: saved.iter().filter(|(text, seq)| !is_there(text, **seq)).count(),
        stored_twice: by_text.values().filter(|seqs| seqs.len() > 1).count(),
        ..Found::default()
    };
    for ledger in ledgers {
        let from = ledger.from.unwrap_or(0);
        let due: BTreeSet<&Entry> = stream.iter().filter(|(seq, _)| *seq > from).collect();
        let came: BTreeSet<&Entry> = ledger.entries.iter().collect();
        found.due += due.len();
        found.missing += due.difference(&came).count();
        found.strange += came.difference(&due).count();
        found.backwards += ledger.entries.windows(2).filter(|pair| pair[1].0 <= pair[0].0).count();
    }
    found
}

/// The clients of a round, and what they know.
struct Clients {
    ports: [u16; 2],
    room: String,
    tokens: Vec<String>,
    /// Without the defence: clients do not resume, and repeat under new ids.
    is_control: bool,
    ledgers: Vec<Mutex<Ledger>>,
    /// The numbers of the messages that were answered as saved, by their texts.
    saved: Mutex<HashMap<String, i64>>,
    given_up: AtomicU64,
    resets: AtomicU64,
    connections: AtomicU64,
    has_sent: AtomicBool,
    over: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    async fn connect(&self, client: usize, tries: usize) -> std::io::Result<Stomp> {
        let address = format!("127.0.0.1:{}", self.ports[(client + tries) % 2]);
        Stomp::connect(&address, &self.tokens[client % USERS], 10_000).await
    }

    /// Listens until the round is over, and comes back, at either process, when the connection ends.
    async fn listener(self: Arc<Clients>, n: usize) {
        for tries in 0.. {
            tokio::select! {
                () = self.over.cancelled() => return,
                // It ended: it is made again.
                _ended = self.listen(n, tries) => (),
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(10..300))).await;
        }
    }

    async fn listen(&self, n: usize, tries: usize) -> std::io::Result<()> {
        let mut stomp = self.connect(n, tries).await?;
        let ledger = &self.ledgers[n];
        let mut subscribe = format!("SUBSCRIBE\nid:e\nreceipt:e\ndestination:/topic/rooms/{}\n", self.room);
        {
            let ledger = lock(ledger);
            if let (Some(from), false) = (ledger.from, self.is_control) {
                let last = ledger.entries.last().map_or(from, |(seq, _)| *seq);
                subscribe += &format!("x-from-seq:{last}\nx-epoch:{}\n", ledger.epoch);
            }
        }
        stomp.write(&(subscribe + "\n\0")).await?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        loop {
            stomp
                .read(|frame| {
                    let mut ledger = lock(ledger);
                    let number = |name: &str| frame.header(name).parse::<i64>().unwrap_or(0);
                    match frame.command {
                        "RECEIPT" if ledger.from.is_none() => {
                            ledger.from = Some(number("x-head"));
                            ledger.epoch = frame.header("x-epoch").to_owned();
                        }
                        "MESSAGE" => {
                            let body: Value = serde_json::from_str(frame.body).unwrap_or_default();
                            if body["eventType"] == "RESET" {
                                self.resets.fetch_add(1, Ordering::Relaxed);
                            } else {
                                ledger.entries.push((number("x-seq"), text(&body["data"]["content"])));
                            }
                        }
                        _ => (),
                    }
                })
                .await?;
        }
    }

    /// Writes one message after the other, each until it is saved.
    async fn sender(self: Arc<Clients>, n: usize) {
        let mut tick = tokio::time::interval(SEND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut connection, mut tries) = (None, 0);
        for m in 0.. {
            tick.tick().await;
            if self.has_sent.load(Ordering::Relaxed) {
                return;
            }
            let (content, began) = (format!("{n} writes {m}"), Instant::now());
            loop {
                let temp_id = if self.is_control { format!("{n}-{m}-{tries}") } else { format!("{n}-{m}") };
                match self.send(&mut connection, n, tries, &temp_id, &content).await {
                    Ok(Some(seq)) => {
                        lock(&self.saved).insert(content, seq);
                        break;
                    }
                    // It may be sent again over the same connection.
                    Ok(None) => (),
                    Err(_) => connection = None,
                }
                tries += 1;
                if began.elapsed() > PATIENCE {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Sends a message once. Returns its number; None if it has failed.
    async fn send(
        &self,
        connection: &mut Option<Stomp>,
        n: usize,
        tries: usize,
        temp_id: &str,
        content: &str,
    ) -> std::io::Result<Option<i64>> {
        let stomp = match connection {
            Some(stomp) => stomp,
            None => {
                let mut stomp = self.connect(n, tries).await?;
                stomp.subscribe("s", &format!("/topic/message/status/{}", self.room)).await?;
                connection.insert(stomp)
            }
        };
        let body = json!({"roomId": self.room, "tempId": temp_id, "content": content}).to_string();
        let frame = format!("SEND\ndestination:/app/chat\ncontent-length:{}\n\n{body}\0", body.len());
        stomp.write(&frame).await?;
        let mut answer = None;
        while answer.is_none() {
            let read = stomp.read(|frame| {
                let status: Value = serde_json::from_str(frame.body).unwrap_or_default();
                if status["tempId"] == temp_id {
                    match status["status"].as_str() {
                        Some("SAVED") => answer = Some(seq_of(&status["persistedId"])),
                        Some("FAILED") => answer = Some(None),
                        _ => (),
                    }
                }
            });
            tokio::time::timeout(ANSWER_WITHIN, read).await??;
        }
        Ok(answer.flatten())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The number in a message's id.
fn seq_of(id: &Value) -> Option<i64> {
    id.as_str()?.rsplit_once('-')?.1.parse().ok()
}

/// The API processes of a round.
struct Processes {
    database_url: String,
    ports: [u16; 2],
    children: [Child; 2],
}

fn serve(database_url: &str, port: u16) -> Result<Child> {
    let flags = FLAGS.map(str::to_owned);
    start(database_url, &[], &flags, &["serve", &format!("--listen=127.0.0.1:{port}")])
}

impl Processes {
    async fn start(database_url: &str) -> Result<Processes> {
        let ports = [free_port().await?, free_port().await?];
        let children = [serve(database_url, ports[0])?, serve(database_url, ports[1])?];
        let mut processes = Processes { database_url: database_url.to_owned(), ports, children };
        for (child, port) in processes.children.iter_mut().zip(ports) {
            wait_until_answering(child, port).await?;
        }
        Ok(processes)
    }

    /// Kills one, and starts it again.
    async fn replace(&mut self, n: usize) -> Result<()> {
        check_alive(&mut self.children[n])?;
        send(&self.children[n], Signal::SIGKILL);
        let _killed = self.children[n].wait().await;
        self.children[n] = serve(&self.database_url, self.ports[n])?;
        wait_until_answering(&mut self.children[n], self.ports[n]).await
    }

    /// Stops all. Returns how many did not end as they should.
    async fn stop(&mut self) -> u64 {
        self.children.iter().for_each(|child| send(child, Signal::SIGTERM));
        let mut ended_badly = 0;
        for child in &mut self.children {
            let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
            ended_badly += u64::from(status.ok().and_then(|s| s.ok()?.code()) != Some(0));
        }
        ended_badly
    }
}

async fn round(settings: &Settings, seconds: u64, is_control: bool, server: &BenchServer) -> Result<Found> {
    print_line(LIVE, &format!("{}, for {seconds} s", if is_control { "with the defence off" } else { "under load" }));
    let here = Shutdown::new();
    let name = format!("notihub_live_{}_{}", std::process::id(), Clock::system().unix_millis());
    let database_url = bench::create_database(server.url(), &name).await?;
    let store = Store::new(&database_url, PoolSizes { api: 2, intake: 1, engine: 1, webhooks: 1 })?;
    store.migrate().await?;
    let database = Database { database_url: Some(database_url.clone()), ..settings.database.clone() };
    let hub = process::open_for_command(&database).await?.0;
    let (_, credentials) = testbed::posting_partner(&hub, "bench").await?;
    process::stop(&hub).await;
    let mut processes = Processes::start(&database_url).await?;
    let target = client::Target::of(format!("http://127.0.0.1:{}", processes.ports[0]), &credentials);
    let partner = client::Client::new(&target)?;
    let (mut tokens, mut ids) = (Vec::new(), Vec::new());
    for n in 0..USERS {
        let made = partner.post(&format!("/v1/users/u-{n}/token"), &json!({})).await?;
        tokens.push(text(&made["accessToken"]));
        ids.push(text(&made["userId"]));
    }
    let user = partner.on_behalf_of("u-0");
    let body = json!({"type": "GROUP", "title": "Bench", "participantIds": ids});
    let room = text(&user.post("/api/v1/chatrooms", &body).await?["data"]["roomId"]);
    let clients = Arc::new(Clients {
        ports: processes.ports,
        room: room.clone(),
        tokens,
        is_control,
        ledgers: (0..LISTENERS).map(|_| Mutex::default()).collect(),
        saved: Mutex::default(),
        given_up: AtomicU64::new(0),
        resets: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        has_sent: AtomicBool::new(false),
        over: CancellationToken::new(),
    });
    let listeners: Vec<_> = (0..LISTENERS).map(|n| here.spawn(clients.clone().listener(n))).collect();
    let is_listening = || clients.ledgers.iter().all(|ledger| lock(ledger).from.is_some());
    wait(PATIENCE, is_listening).await;
    let senders: Vec<_> = (0..SENDERS).map(|n| here.spawn(clients.clone().sender(n))).collect();
    let disturbed = disturb(&mut processes, &store, server, Duration::from_secs(seconds)).await?;
    clients.has_sent.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.map_err(|e| Error::Internal(e.to_string()))?;
    }
    let stream = stream(&user, &room).await?;
    let head = stream.last().map_or(0, |(seq, _)| *seq);
    let has_head = |ledger: &Mutex<Ledger>| lock(ledger).entries.last().is_some_and(|(seq, _)| *seq >= head);
    let patience = if is_control { PATIENCE_CONTROL } else { PATIENCE };
    wait(patience, || clients.ledgers.iter().all(has_head)).await;
    clients.over.cancel();
    for listener in listeners {
        listener.await.map_err(|e| Error::Internal(e.to_string()))?;
    }
    let ended_badly = processes.stop().await;
    let findings = flow::fsck::fsck(&store, Clock::system().now(), |_| ()).await?;
    for finding in findings.iter().take(5) {
        print_line(LIVE, &format!("fsck: {finding:?}"));
    }
    here.stop();
    store.close().await;
    bench::drop_database(server.url(), &name).await?;
    let ledgers: Vec<MutexGuard<'_, Ledger>> = clients.ledgers.iter().map(lock).collect();
    let found = judge(&stream, &lock(&clients.saved), &ledgers.iter().map(|ledger| &**ledger).collect::<Vec<_>>());
    Ok(Found {
        given_up: clients.given_up.load(Ordering::Relaxed),
        resets: clients.resets.load(Ordering::Relaxed),
        connections: clients.connections.load(Ordering::Relaxed),
        disturbed,
        ended_badly,
        findings: findings.len(),
        ..found
    })
}

async fn wait(patience: Duration, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() && began.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills the processes in turns, and cuts the listening connections in between; in the middle it kills PostgreSQL, if
/// that is ours.
async fn disturb(processes: &mut Processes, store: &Store, server: &BenchServer, long: Duration) -> Result<Disturbed> {
    let (began, mut disturbed) = (Instant::now(), Disturbed::default());
    while began.elapsed() < long {
        tokio::time::sleep(DISTURB_EVERY / 2).await;
        // A server that has just started may not answer in time: nothing is cut then.
        disturbed.listeners_cut += bench::cut_listeners(store.api()).await.unwrap_or(0);
        tokio::time::sleep(DISTURB_EVERY / 2).await;
        match server.postmaster().filter(|_| disturbed.postgres_killed == 0 && began.elapsed() > long / 2) {
            Some(pid) => {
                disturbed.postgres_killed += 1;
                // The server may still be starting.
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
                // A process that starts while its database is down ends; restarting it is a supervisor's task.
                let killed = Instant::now();
                while bench::wal_bytes(store.api()).await.is_err() && killed.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            None => {
                processes.replace(disturbed.processes_killed % 2).await?;
                disturbed.processes_killed += 1;
            }
        }
    }
    Ok(disturbed)
}

/// The whole stream of the room.
async fn stream(user: &client::Client, room: &str) -> Result<Vec<Entry>> {
    let mut stream: Vec<Entry> = Vec::new();
    loop {
        let page = user.get(&format!("/api/v1/chatrooms/{room}/events?after={}", stream.len())).await?;
        let items = page["data"]["items"].as_array().map_or(&[][..], Vec::as_slice);
        if items.is_empty() {
            return Ok(stream);
        }
        stream.extend(items.iter().map(|i| (i["seq"].as_i64().unwrap_or(0), text(&i["data"]["content"]))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge sees each way in which senders and listeners can be wrong, and nothing where they are right.
    #[test]
    fn judge_sees_what_is_wrong() {
        let entry = |seq: i64, text: &str| (seq, text.to_owned());
        let stream = vec![entry(1, ""), entry(2, "a"), entry(3, "b"), entry(4, "a")];
        let saved = |seq: i64| HashMap::from([("b".to_owned(), seq)]);
        let ledger = |seqs: &[usize]| Ledger {
            from: Some(1),
            epoch: String::new(),
            entries: seqs.iter().map(|seq| stream[seq - 1].clone()).collect(),
        };
        let right = judge(&stream[..3], &saved(3), &[&ledger(&[2, 3])]);
        assert_eq!(right, Found { saved: 1, due: 2, ..Found::default() });
        assert_eq!(judge(&stream, &saved(4), &[]), Found { saved: 1, lost: 1, stored_twice: 1, ..Found::default() });
        for (seqs, missing, strange, backwards) in
            [(&[2, 4][..], 1, 0, 0), (&[2, 3, 3, 4], 0, 0, 1), (&[3, 2, 4], 0, 0, 1), (&[1, 2, 3, 4], 0, 1, 0)]
        {
            let found = judge(&stream, &HashMap::new(), &[&ledger(seqs)]);
            assert_eq!((found.missing, found.strange, found.backwards), (missing, strange, backwards), "{seqs:?}");
        }
    }
}
