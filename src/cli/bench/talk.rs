//! The users of rooms: a process of its own with many connections of STOMP. Some send, in turns with their receipts;
//! others listen. It takes a [`Command`] as a line of JSON on standard input, and answers each on standard output.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::helper::{self, Helper};
use super::stomp::{Frame, Stomp};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::shutdown::Shutdown;

/// How many connections are being opened at once.
const OPENING: usize = 100;
/// Both sides of a listener's connection send a heart-beat this often.
const HEART_BEAT: Duration = Duration::from_secs(10);
/// After so long without a delivery, the rest is missing.
const QUIET: Duration = Duration::from_secs(5);
/// The length of a text.
const TEXT_BYTES: usize = 100;

/// Rooms with consecutive ids.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Rooms {
    pub first: i64,
    pub count: usize,
}

impl Rooms {
    /// The first so many of these rooms.
    pub fn first(self, count: usize) -> Rooms {
        Rooms { count: count.min(self.count), ..self }
    }

    fn nth(self, n: usize) -> Tsid {
        Tsid(self.first + i64::try_from(n % self.count.max(1)).unwrap_or(0))
    }
}

/// What the process does next.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Opens connections that listen. Connection n listens to room n, and to the first room again after the last.
    Listen(Open),
    /// Opens connections that send.
    Join(Open),
    /// Sends messages.
    Send(Sending),
}

/// Connections to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Open {
    /// The `host:port` of the API.
    pub address: String,
    /// The tokens of the users; each has a connection.
    pub tokens: Vec<String>,
    pub rooms: Rooms,
}

/// Messages to send.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sending {
    /// How many of the open senders send.
    pub senders: usize,
    /// Each message goes to one of them, by chance.
    pub rooms: Rooms,
    pub seconds: u64,
    /// Messages a second over all senders, at most; 0: each sends as soon as it has the receipt of its last one.
    pub rate: u64,
    /// Listeners of each room.
    pub listeners: u64,
}

/// The answer to [`Command::Send`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Talked {
    /// Messages with a receipt, and those that were refused, with the first reason.
    pub sent: u64,
    pub refused: u64,
    pub refusal: Option<String>,
    /// Until the last receipt.
    pub seconds: f64,
    /// SEND → receipt, which follows the status SAVED: from the moment when the message was due.
    pub saved_p50_us: u64,
    pub saved_p99_us: u64,
    /// Messages with a receipt in each second.
    pub series: Vec<u64>,
    /// Deliveries to listeners, and those that did not come.
    pub received: u64,
    pub missing: u64,
    /// Until the last delivery.
    pub received_seconds: f64,
    /// SEND → MESSAGE at a listener: from the moment when the message was due.
    pub received_p50_us: u64,
    pub received_p99_us: u64,
    /// Deliveries with a number that is not the next one of their room, and connections of listeners that ended.
    pub out_of_order: u64,
    pub ended: u64,
}

/// The answer to the other commands.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Opened {
    pub connections: usize,
    pub seconds: f64,
}

/// Deliveries to listeners.
struct Heard {
    /// The number of the present [`Command::Send`]: deliveries of an earlier one are not measured.
    turn: AtomicU64,
    received: AtomicU64,
    out_of_order: AtomicU64,
    ended: AtomicU64,
    waits: Mutex<Histogram<u64>>,
    clock: Clock,
}

struct Talkers {
    heard: Arc<Heard>,
    senders: Vec<Stomp>,
    shutdown: Shutdown,
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_max(600_000_000, 3).map_err(|e| Error::Internal(e.to_string()))
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::Setup(format!("a connection of STOMP broke: {e}"))
}

/// The process. It ends with its standard input.
///
/// # Errors
/// `Error::Setup` if the API cannot be reached, or the connection of a sender breaks.
pub async fn run() -> Result<u8> {
    let heard = Arc::new(Heard {
        turn: AtomicU64::new(0),
        received: AtomicU64::new(0),
        out_of_order: AtomicU64::new(0),
        ended: AtomicU64::new(0),
        waits: Mutex::new(histogram()?),
        clock: Clock::system(),
    });
    let mut talkers = Talkers { heard, senders: Vec::new(), shutdown: Shutdown::new() };
    let mut commands = helper::commands();
    while let Some(line) = commands.recv().await {
        match serde_json::from_str(&line).map_err(|e| Error::Usage(format!("{line}: {e}")))? {
            Command::Listen(open) => {
                let began = Instant::now();
                let listeners = talkers.connect(&open, true).await?;
                let connections = listeners.len();
                for (stomp, last) in listeners {
                    talkers.shutdown.spawn(listen(stomp, last, talkers.heard.clone()));
                }
                helper::answer(&Opened { connections, seconds: began.elapsed().as_secs_f64() })?;
            }
            Command::Join(open) => {
                let began = Instant::now();
                let senders = talkers.connect(&open, false).await?;
                talkers.senders.extend(senders.into_iter().map(|(stomp, _)| stomp));
                let connections = talkers.senders.len();
                helper::answer(&Opened { connections, seconds: began.elapsed().as_secs_f64() })?;
            }
            Command::Send(sending) => helper::answer(&talkers.send(sending).await?)?,
        }
    }
    Ok(0)
}

impl Talkers {
    /// Opens connections, each with two subscriptions. Returns them with the number of the last event of a listener's
    /// room.
    async fn connect(&self, open: &Open, listens: bool) -> Result<Vec<(Stomp, i64)>> {
        let turns = Arc::new(Semaphore::new(OPENING));
        let mut opening = Vec::new();
        for (n, token) in open.tokens.iter().enumerate() {
            let turn = turns.clone().acquire_owned().await.map_err(|e| Error::Internal(e.to_string()))?;
            let (address, token, room) = (open.address.clone(), token.clone(), open.rooms.nth(n));
            opening.push(self.shutdown.spawn(async move {
                let _turn = turn;
                let heart_beat_ms = if listens { HEART_BEAT.as_millis() as u64 } else { 0 };
                let mut stomp = Stomp::connect(&address, &token, heart_beat_ms).await?;
                stomp.subscribe("e", "/user/queue/errors").await?;
                let last = match listens {
                    true => stomp.subscribe("m", &format!("/topic/messages/{room}")).await?,
                    false => 0,
                };
                Ok::<_, std::io::Error>((stomp, last))
            }));
        }
        let mut opened = Vec::new();
        for task in opening {
            opened.push(task.await.map_err(broken)?.map_err(broken)?);
        }
        Ok(opened)
    }

    async fn send(&mut self, sending: Sending) -> Result<Talked> {
        let heard = &self.heard;
        let turn = heard.turn.fetch_add(1, Ordering::Relaxed) + 1;
        heard.received.store(0, Ordering::Relaxed);
        locked(&heard.waits).reset();
        let plan = Arc::new(Plan {
            turn,
            sending,
            began: Instant::now(),
            began_us: heard.clock.now().timestamp_micros(),
            series: (0..=sending.seconds).map(|_| AtomicU64::new(0)).collect(),
        });
        let senders = self.senders.drain(..sending.senders.min(self.senders.len()));
        let tasks: Vec<_> = senders
            .enumerate()
            .map(|(n, mut stomp)| {
                let plan = plan.clone();
                self.shutdown.spawn(async move {
                    let sent = plan.send(&mut stomp, n).await?;
                    Ok::<_, Error>((stomp, sent))
                })
            })
            .collect();
        let mut talked = Talked::default();
        let mut saved = histogram()?;
        for task in tasks {
            let (stomp, sent) = task.await.map_err(broken)??;
            self.senders.push(stomp);
            talked.sent += sent.sent;
            talked.refused += sent.refused;
            talked.refusal = talked.refusal.or(sent.refusal);
            saved += sent.saved;
        }
        talked.seconds = plan.began.elapsed().as_secs_f64();
        (talked.saved_p50_us, talked.saved_p99_us) = (saved.value_at_quantile(0.5), saved.value_at_quantile(0.99));
        talked.series = plan.series.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        self.wait_for(talked.sent * sending.listeners).await;
        talked.received_seconds = plan.began.elapsed().as_secs_f64();
        talked.received = self.heard.received.load(Ordering::Relaxed);
        talked.missing = (talked.sent * sending.listeners).saturating_sub(talked.received);
        let waits = locked(&self.heard.waits);
        (talked.received_p50_us, talked.received_p99_us) =
            (waits.value_at_quantile(0.5), waits.value_at_quantile(0.99));
        talked.out_of_order = self.heard.out_of_order.swap(0, Ordering::Relaxed);
        talked.ended = self.heard.ended.swap(0, Ordering::Relaxed);
        Ok(talked)
    }

    /// Waits for so many deliveries, or until none comes any more.
    async fn wait_for(&self, deliveries: u64) {
        let (mut received, mut since) = (0, Instant::now());
        while since.elapsed() < QUIET {
            let now = self.heard.received.load(Ordering::Relaxed);
            if now >= deliveries {
                return;
            }
            if now > received {
                (received, since) = (now, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A [`Command::Send`] that is being executed.
struct Plan {
    turn: u64,
    sending: Sending,
    began: Instant,
    began_us: i64,
    series: Vec<AtomicU64>,
}

struct Sent {
    sent: u64,
    refused: u64,
    refusal: Option<String>,
    saved: Histogram<u64>,
}

impl Plan {
    /// Sends the share of one sender. Each message waits for the receipt of the one before it.
    async fn send(&self, stomp: &mut Stomp, n: usize) -> Result<Sent> {
        let Sending { senders, rooms, seconds, rate, .. } = self.sending;
        let until = self.began + Duration::from_secs(seconds);
        let pause = (rate > 0).then(|| Duration::from_secs_f64(senders as f64 / rate as f64));
        // Spread the senders of a paced load evenly over time.
        let mut due = self.began + pause.unwrap_or_default().mul_f64(n as f64 / senders as f64);
        let mut sent = Sent { sent: 0, refused: 0, refusal: None, saved: histogram()? };
        for k in 0_u64.. {
            let mut asked = Instant::now();
            if let Some(pause) = pause {
                if due >= until {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                asked = due;
                due += pause;
            }
            if Instant::now() >= until {
                break;
            }
            let room = rooms.nth(rand::random_range(0..rooms.count.max(1)));
            stomp.write(&self.frame(room, n, k, asked)).await.map_err(broken)?;
            let refusal = answer(stomp, k).await.map_err(broken)?;
            sent.saved.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
            if refusal.is_some() {
                sent.refused += 1;
                sent.refusal = sent.refusal.or(refusal);
                continue;
            }
            sent.sent += 1;
            let second = usize::try_from(self.began.elapsed().as_secs()).unwrap_or(0).min(self.series.len() - 1);
            self.series[second].fetch_add(1, Ordering::Relaxed);
        }
        Ok(sent)
    }

    /// A message with the time at which it was due in its text.
    fn frame(&self, room: Tsid, n: usize, k: u64, due: Instant) -> String {
        let due_us = self.began_us + i64::try_from((due - self.began).as_micros()).unwrap_or(0);
        let text = format!("{} {due_us} ", self.turn);
        // Another process may send to the same rooms: a tempId is never used again.
        let (process, turn) = (std::process::id(), self.turn);
        format!(
            "SEND\ndestination:/app/chat\nreceipt:{k}\n\n{{\"tempId\":\"{process}-{turn}-{n}-{k}\",\
             \"roomId\":\"{room}\",\"content\":{{\"text\":\"{text:x<TEXT_BYTES$}\",\"type\":\"TEXT\"}}}}\0"
        )
    }
}

/// Waits for the receipt of message `k`. Returns why it was refused instead.
async fn answer(stomp: &mut Stomp, k: u64) -> std::io::Result<Option<String>> {
    let mut answered = None;
    while answered.is_none() {
        stomp
            .read(|frame| match frame.command {
                "RECEIPT" if frame.header("receipt-id").parse() == Ok(k) => answered = Some(None),
                // A sender has no other subscription.
                "MESSAGE" => answered = Some(Some(frame.body.to_owned())),
                _ => (),
            })
            .await?;
    }
    Ok(answered.flatten())
}

/// Reads a listener's connection until it ends. `last`: the number of the last event of its room.
async fn listen(mut stomp: Stomp, mut last: i64, heard: Arc<Heard>) {
    let mut heart_beat = tokio::time::interval(HEART_BEAT);
    let mut waits = Vec::new();
    loop {
        let ended = tokio::select! {
            read = stomp.read(|frame| heard.note(frame, &mut last, &mut waits)) => read.is_err(),
            _ = heart_beat.tick() => stomp.write("\n").await.is_err(),
        };
        if !waits.is_empty() {
            heard.received.fetch_add(waits.len() as u64, Ordering::Relaxed);
            let mut all = locked(&heard.waits);
            waits.drain(..).for_each(|wait| all.saturating_record(wait));
        }
        if ended {
            heard.ended.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

impl Heard {
    /// Notes a delivery: its number, and how long it took if it belongs to the present turn.
    fn note(&self, frame: &Frame<'_>, last: &mut i64, waits: &mut Vec<u64>) {
        if frame.command != "MESSAGE" || frame.header("subscription") != "m" {
            return;
        }
        // Events without a number are stored nowhere.
        let Ok(seq) = frame.header("x-seq").parse::<i64>() else { return };
        if seq != *last + 1 {
            self.out_of_order.fetch_add(1, Ordering::Relaxed);
        }
        *last = seq;
        let text = frame.body.split_once("\"text\":\"").map_or("", |(_, text)| text);
        let mut words = text.split(' ').map(str::parse::<i64>);
        let turn = i64::try_from(self.turn.load(Ordering::Relaxed));
        if let (Some(Ok(of)), Some(Ok(due_us))) = (words.next(), words.next())
            && turn == Ok(of)
        {
            waits.push((self.clock.now().timestamp_micros() - due_us).max(1).unsigned_abs());
        }
    }
}

/// The process, as its parent sees it.
pub struct TalkProcess(Helper);

impl TalkProcess {
    /// Starts it, without a connection.
    ///
    /// # Errors
    /// `Error::Setup` if the process cannot start.
    pub fn start() -> Result<TalkProcess> {
        Ok(TalkProcess(Helper::start("talk", &[], "")?))
    }

    /// Opens connections that listen to rooms.
    ///
    /// # Errors
    /// `Error::Internal` if one cannot be opened; standard error has the reason.
    pub async fn listen(&mut self, open: Open) -> Result<Opened> {
        self.ask(&Command::Listen(open)).await
    }

    /// Opens connections that send.
    ///
    /// # Errors
    /// As `listen`.
    pub async fn join(&mut self, open: Open) -> Result<Opened> {
        self.ask(&Command::Join(open)).await
    }

    /// Sends messages, and waits until they have arrived.
    ///
    /// # Errors
    /// `Error::Internal` if a sender's connection breaks; standard error has the reason.
    pub async fn send(&mut self, sending: Sending) -> Result<Talked> {
        self.ask(&Command::Send(sending)).await
    }

    async fn ask<A: serde::de::DeserializeOwned>(&mut self, command: &Command) -> Result<A> {
        let line = serde_json::to_string(command).map_err(|e| Error::Internal(e.to_string()))?;
        self.0.ask(&line).await
    }
}
