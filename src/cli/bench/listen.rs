//! The readers of inboxes: a process of its own with many open streams, each of a user. It takes commands on standard
//! input, one a line, and answers each with a line of JSON on standard output:
//!
//! - `open`: opens all streams, a hundred at a time. Answers when each has had its first event.
//! - `cut`: closes all connections.
//! - `resume N`: opens all streams again after their last event. Answers when each has had N items, or after a minute.
//! - `report N`: the waits since the last report, from the time in an item's body to its arrival. Answers when there
//!   are N of them, or after a minute.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::helper::{self, Helper};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::shutdown::Shutdown;

/// How many streams are being opened at once.
const OPENING: usize = 100;
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Listen {
    /// The `host:port` of the API.
    #[arg(long)]
    address: String,
    /// Streams to open. Stream n is of the user `u-{n}`.
    #[arg(long)]
    streams: usize,
    /// The partner's access token.
    #[arg(long, env = "NOTIHUB_TOKEN", hide_env_values = true)]
    token: String,
}

/// The answer to a command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Streams that were opened; with `resume`, those that had all their items.
    pub streams: usize,
    /// Items that came twice, and items that are missing.
    pub twice: usize,
    pub missing: usize,
    /// Until all streams were open, or whole.
    pub seconds: f64,
    pub waits: usize,
    pub p50_us: u64,
    pub p99_us: u64,
}

struct Reader {
    last_id: Mutex<Option<String>>,
    /// The items since the last `cut`, by their ids in the stream.
    items: Mutex<HashSet<String>>,
}

struct Readers {
    listen: Listen,
    readers: Vec<Reader>,
    waits: Mutex<Histogram<u64>>,
    twice: Mutex<usize>,
    clock: Clock,
}

/// The process. It ends with its standard input.
///
/// # Errors
/// `Error::Setup` if the API cannot be reached.
pub async fn run(listen: &Listen) -> Result<u8> {
    let reader = || Reader { last_id: Mutex::default(), items: Mutex::default() };
    let all = Arc::new(Readers {
        listen: listen.clone(),
        readers: (0..listen.streams).map(|_| reader()).collect(),
        waits: Mutex::new(histogram()?),
        twice: Mutex::default(),
        clock: Clock::system(),
    });
    let shutdown = Shutdown::new();
    let mut cut = CancellationToken::new();
    let mut commands = helper::commands();
    while let Some(command) = commands.recv().await {
        let began = Instant::now();
        let mut answer = Answer::default();
        let (name, number) = command.split_once(' ').unwrap_or((&command, "0"));
        let expected: usize = number.parse().map_err(|_| Error::Usage(format!("{name} N")))?;
        match name {
            "open" => answer.streams = open(&all, &shutdown, &cut).await?,
            "cut" => {
                cut.cancel();
                cut = CancellationToken::new();
                all.readers.iter().for_each(|reader| locked(&reader.items).clear());
            }
            "resume" => {
                open(&all, &shutdown, &cut).await?;
                let have = || all.readers.iter().map(|r| locked(&r.items).len().min(expected)).sum::<usize>();
                while have() < expected * all.readers.len() && began.elapsed() < WITHIN {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer.streams = all.readers.iter().filter(|r| locked(&r.items).len() >= expected).count();
                answer.missing = expected * all.readers.len() - have();
            }
            _ => {
                let came = || usize::try_from(locked(&all.waits).len()).unwrap_or(usize::MAX);
                while came() < expected && began.elapsed() < WITHIN {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let mut waits = locked(&all.waits);
                answer.waits = usize::try_from(waits.len()).unwrap_or(usize::MAX);
                (answer.p50_us, answer.p99_us) = (waits.value_at_quantile(0.5), waits.value_at_quantile(0.99));
                waits.reset();
            }
        }
        answer.twice = *locked(&all.twice);
        answer.seconds = began.elapsed().as_secs_f64();
        helper::answer(&answer)?;
    }
    Ok(0)
}

/// Opens all streams and returns how many had a first event.
async fn open(all: &Arc<Readers>, shutdown: &Shutdown, cut: &CancellationToken) -> Result<usize> {
    let turns = Arc::new(Semaphore::new(OPENING));
    let mut opening = Vec::new();
    for n in 0..all.readers.len() {
        let turn = turns.clone().acquire_owned().await.map_err(|e| Error::Internal(e.to_string()))?;
        let (opened, is_open) = tokio::sync::oneshot::channel();
        let (all, cut) = (all.clone(), cut.clone());
        shutdown.spawn(async move {
            // A stream that breaks is missing in the counts.
            let _ended = tokio::select! {
                read = read(&all, n, opened) => read,
                () = cut.cancelled() => Ok(()),
            };
        });
        opening.push(async move {
            let opened = is_open.await.is_ok();
            drop(turn);
            opened
        });
        // The turns are given back by those that wait, so let them run.
        if opening.len() >= OPENING {
            for waiting in opening.drain(..OPENING / 2) {
                waiting.await;
            }
        }
    }
    for waiting in opening {
        waiting.await;
    }
    Ok(all.readers.iter().filter(|reader| locked(&reader.last_id).is_some()).count())
}

/// Opens the stream of user `n` and reads it until it ends.
async fn read(all: &Readers, n: usize, opened: tokio::sync::oneshot::Sender<()>) -> std::io::Result<()> {
    let Some(reader) = all.readers.get(n) else { return Ok(()) };
    let mut stream = BufReader::with_capacity(1024, TcpStream::connect(&all.listen.address).await?);
    let resume = locked(&reader.last_id).as_ref().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /v1/inbox/stream HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\nx-user: u-{n}\r\n{resume}\r\n",
        all.listen.token
    );
    stream.get_mut().write_all(request.as_bytes()).await?;
    let (mut line, mut event, mut id) = (String::new(), String::new(), None::<String>);
    let mut opened = Some(opened);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        // Lines that are none of these are the answer's head, sizes of chunks, comments.
        let text = line.trim_end();
        if let Some(name) = text.strip_prefix("event: ") {
            event = name.to_owned();
        } else if let Some(value) = text.strip_prefix("id: ") {
            id = Some(value.to_owned());
        } else if let Some(data) = text.strip_prefix("data: ") {
            let position = id.take();
            if let Some(position) = &position {
                *locked(&reader.last_id) = Some(position.clone());
            }
            if let Some(opened) = opened.take() {
                // Fails only if the process is ending.
                let _heard = opened.send(());
            }
            if let Some(position) = position.filter(|_| event == "item") {
                all.note(reader, position, data);
            }
        }
    }
}

impl Readers {
    fn note(&self, reader: &Reader, position: String, data: &str) {
        if !locked(&reader.items).insert(position) {
            *locked(&self.twice) += 1;
        }
        let item: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let posted = item["body"].as_str().and_then(|body| body.parse::<i64>().ok());
        if let Some(posted) = posted {
            let waited = self.clock.now().timestamp_micros() - posted;
            locked(&self.waits).saturating_record(waited.max(1).unsigned_abs());
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_max(600_000_000, 3).map_err(|e| Error::Internal(e.to_string()))
}

/// The process, as its parent sees it.
pub struct ListenProcess(Helper);

impl ListenProcess {
    /// Starts it.
    ///
    /// # Errors
    /// `Error::Setup` if the process cannot start.
    pub fn start(address: &str, token: &str, streams: usize) -> Result<ListenProcess> {
        let args = ["--address", address, "--streams", &streams.to_string()];
        Ok(ListenProcess(Helper::start("listen", &args, token)?))
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// `Error::Internal` if the process ended or answered nonsense.
    pub async fn ask(&mut self, command: &str) -> Result<Answer> {
        self.0.ask(command).await
    }
}
