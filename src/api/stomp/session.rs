//! The STOMP session of one connection, as a state machine without I/O, clock or hub. Bytes, times and answers go in;
//! actions come out.
//!
//! The driver, which has the connection, executes actions in their order and stops at `Close`. It answers
//! * `Authenticate` with `connected` or `refuse_sign_in`; until then frames wait in the decoder;
//! * each `Subscribe` with `subscribed` or `refuse_subscription`;
//! * each `Call` that has a receipt with `done`.
//!
//! An answer returns actions, too. They are executed before those that are left. A driver may answer at once, or
//! execute the next actions first and answer later, in any order. `AwaitAnswers` then keeps the end from losing
//! receipts.
//!
//! A session refuses a frame, or ends, with an ERROR whose `message` header is a stable word, and whose body names the
//! fault and the remedy; `Close` has the same word as its reason. A dead connection is closed without an ERROR.
//!
//! Where the specifications leave room:
//! * The `receipt` of CONNECT is not answered; CONNECTED is the answer. A refusal has its `receipt-id`.
//! * `heart-beat` and `version` are in CONNECTED of 1.0, too, which ignores headers that it does not know.
//! * In 1.0 SUBSCRIBE may lack `id`: its destination stands for it, also in UNSUBSCRIBE and in MESSAGE.
//! * In 1.2 a MESSAGE has an `ack` header if its subscription has `ack:client` or `ack:client-individual`. Its value is
//!   the `message-id`: so an ACK names a message in the same way in every version.
//! * UNSUBSCRIBE, ACK and NACK of something unknown are not refused: the server may have ended that subscription.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::codec::{
    Command, Decoder, Fault, Frame, HEART_BEAT, HeartBeats, Input, Limits, ServerCommand, SharedFrame, VERSIONS,
    Version, encode, parse_heart_beat,
};
use super::destination::{APP_CALLS, AppCall, TOPICS, Topic};

/// The close code after DISCONNECT.
pub const CLOSE_NORMAL: u16 = 1000;
/// The close code when the protocol was broken, a subscription was refused or heart-beats stopped.
pub const CLOSE_PROTOCOL: u16 = 4400;
/// The close code when the client has to sign in again.
pub const CLOSE_SIGN_IN: u16 = 4401;

/// Bytes of a subscription's id. With the most subscriptions, ids then take little memory.
const ID_BYTES: usize = 256;
/// Bytes of the reason in a close frame of WebSocket (RFC 6455, 5.5: 125 with the code).
const REASON_BYTES: usize = 123;

/// Settings that all sessions share.
#[derive(Debug, Clone)]
pub struct Options {
    /// Limits of a frame.
    pub limits: Limits,
    /// How often the server can send, and how often it wants to receive, in milliseconds; 0 is never.
    pub heart_beat: (u32, u32),
    /// Time from the connection to the end of CONNECT.
    pub connect_within: Duration,
    /// A client that negotiated heart-beats is dead after this time without a byte, or twice the negotiated interval if
    /// that is longer. Browsers throttle hidden tabs to one timer a minute.
    pub silence: Duration,
    /// Most subscriptions of a session.
    pub max_subscriptions: usize,
    /// The `server` header of CONNECTED, as `notihub/1.0.0`.
    pub server: String,
}

impl Options {
    /// The usual settings.
    pub fn new(server: impl Into<String>) -> Options {
        Options {
            limits: Limits::default(),
            heart_beat: (10_000, 10_000),
            connect_within: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            max_subscriptions: 200,
            server: server.into(),
        }
    }
}

/// An action that the driver executes. Has no `Debug`: it contains tokens and texts of users.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub enum Action {
    /// Sends this text, one frame or one heart-beat.
    Write(String),
    /// Signs the client in.
    Authenticate {
        /// The token in CONNECT, if there is one. Its form is not checked.
        bearer: Option<String>,
    },
    /// Begins a subscription.
    Subscribe(Subscribe),
    /// Ends a subscription: the one that an earlier `Subscribe` contains.
    Unsubscribe(Arc<Subscription>),
    /// Executes a call.
    Call(Call),
    /// Notes that the client has received a message.
    Ack {
        /// The `message-id` as the client wrote it.
        message_id: String,
    },
    /// Waits for the answers to each `Subscribe` and `Call` before it, and executes their actions. Comes before the end
    /// that a frame leads to. Does nothing in a driver that answers each action before it executes the next.
    AwaitAnswers,
    /// Closes the connection. No action comes after it.
    Close {
        /// The code in the close frame of WebSocket.
        code: u16,
        /// A word for people, of at most 123 bytes.
        reason: String,
    },
}

/// A subscription that the client wants.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Subscribe {
    /// Is among `Session::subscriptions` already.
    pub subscription: Arc<Subscription>,
    /// The last event that the client has: `x-epoch` and `x-from-seq`.
    pub from: Option<Position>,
    /// The `receipt` header, for the answer.
    pub receipt: Option<String>,
}

/// A subscription of a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The client's name for it. The client may use it again after the end of the subscription.
    pub id: String,
    /// The subject.
    pub topic: Topic,
    /// The destination as the client wrote it.
    pub destination: String,
    /// The version of the event envelope, 1 or 2.
    pub event_version: u8,
    /// The version of the protocol.
    version: Version,
    /// Whether the client acknowledges messages.
    acknowledges: bool,
}

/// A place in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The history of the database to which the number belongs.
    pub epoch: String,
    /// The number of an event; 0 is before the first.
    pub seq: i64,
}

/// A call that the client makes with SEND.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Call {
    /// What to do.
    pub call: AppCall,
    /// The destination as the client wrote it.
    pub destination: String,
    /// Any bytes.
    pub body: Vec<u8>,
    /// The `receipt` header, for `Session::done`.
    pub receipt: Option<String>,
}

/// Why the session itself refuses a frame, or the connection.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    ConnectExpected(Command),
    ConnectRepeated,
    /// CONNECT did not come within this time.
    ConnectTimeout(Duration),
    /// More than this number of bytes came before CONNECTED was sent.
    ConnectedExpected(usize),
    Version,
    Frame(Fault),
    HeaderMissing(Command, &'static str),
    UnknownTopic,
    UnknownCall,
    IdInUse,
    IdTooLong,
    TooManySubscriptions(usize),
    /// `x-from-seq` is not a number.
    PositionNumber,
    /// `x-from-seq` came without `x-epoch`.
    PositionEpoch,
    EventVersion,
    Transactions,
    TokenExpired,
}

impl Refusal {
    /// The stable word in the `message` header.
    fn as_str(&self) -> &'static str {
        match self {
            Refusal::ConnectExpected(_) => "connect_expected",
            Refusal::ConnectRepeated => "connect_repeated",
            Refusal::ConnectTimeout(_) => "connect_timeout",
            Refusal::ConnectedExpected(_) => "connected_expected",
            Refusal::Version => "version_unsupported",
            Refusal::Frame(_) => "frame_invalid",
            Refusal::HeaderMissing(..) => "header_missing",
            Refusal::UnknownTopic | Refusal::UnknownCall => "destination_unknown",
            Refusal::IdInUse => "id_in_use",
            Refusal::IdTooLong => "id_too_long",
            Refusal::TooManySubscriptions(_) => "too_many_subscriptions",
            Refusal::PositionNumber | Refusal::PositionEpoch => "position_invalid",
            Refusal::EventVersion => "event_version_unsupported",
            Refusal::Transactions => "transactions_unsupported",
            Refusal::TokenExpired => "token_expired",
        }
    }

    fn close_code(&self) -> u16 {
        if *self == Refusal::TokenExpired { CLOSE_SIGN_IN } else { CLOSE_PROTOCOL }
    }
}

/// The fault and the remedy, for the body of an ERROR frame.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::ConnectExpected(command) => write!(
                f,
                "{} came before CONNECT; send CONNECT or STOMP as the first frame, and wait for CONNECTED",
                command.as_str()
            ),
            Refusal::ConnectRepeated => f.write_str(
                "the session has begun already; send CONNECT once, and open another connection for another one",
            ),
            Refusal::ConnectTimeout(within) => write!(
                f,
                "CONNECT did not come within {} ms; send it at once when the connection is open",
                within.as_millis()
            ),
            Refusal::ConnectedExpected(most) => {
                write!(f, "more than {most} bytes came before CONNECTED was sent; wait for it after CONNECT")
            }
            Refusal::Version => write!(f, "no version in accept-version is supported; offer one of {VERSIONS}"),
            Refusal::Frame(fault) => fault.fmt(f),
            Refusal::HeaderMissing(command, name) => {
                write!(f, "{} has no header {name}; send it with a value", command.as_str())
            }
            Refusal::UnknownTopic => {
                write!(f, "the destination cannot be subscribed to, or its id is none; SUBSCRIBE to one of {TOPICS}")
            }
            Refusal::UnknownCall => {
                write!(f, "the destination takes no messages, or its id is none; SEND to one of {APP_CALLS}")
            }
            Refusal::IdInUse => f.write_str(
                "a subscription of this session has the same id; choose another id, or send UNSUBSCRIBE first",
            ),
            Refusal::IdTooLong => {
                write!(f, "the id of the subscription takes more than {ID_BYTES} bytes; choose a shorter one")
            }
            Refusal::TooManySubscriptions(most) => write!(
                f,
                "the session has {most} subscriptions, the most that are allowed; send UNSUBSCRIBE for those that are \
                no longer needed"
            ),
            Refusal::PositionNumber => f.write_str(
                "x-from-seq is not a number from 0; send the x-seq of the last message received, or leave it out",
            ),
            Refusal::PositionEpoch => f.write_str(
                "x-from-seq came without x-epoch; send the x-epoch that came with the number, or leave both out",
            ),
            Refusal::EventVersion => {
                f.write_str("accept-event-v is not a version of the event envelope; send 1 or 2, or leave it out")
            }
            Refusal::Transactions => f.write_str(
                "transactions are not supported; SEND each message by itself, with a tempId to make a retry safe",
            ),
            Refusal::TokenExpired => f.write_str(
                "the token has expired; sign in again and connect with the new token, or send it to /app/auth before \
                the old one expires",
            ),
        }
    }
}

/// The state of a session.
enum Phase {
    /// CONNECT has not come; it must by this time.
    New {
        connect_by: Option<Instant>,
    },
    /// The driver authenticates the client.
    SigningIn,
    Connected,
    /// `AwaitAnswers` and `Close` were returned: only answers lead to actions.
    Ending,
    /// `Close` was returned, and no action follows.
    Closed,
}

/// A session. Has no `Debug`: its decoder holds tokens and texts of users.
pub struct Session {
    options: Arc<Options>,
    decoder: Decoder,
    phase: Phase,
    /// 1.0 before CONNECT.
    version: Version,
    heart_beats: HeartBeats,
    last_read: Instant,
    last_written: Instant,
    subscriptions: Vec<Arc<Subscription>>,
}

impl Session {
    /// Begins a session on a connection that was opened at `now`.
    pub fn new(now: Instant, options: Arc<Options>) -> Session {
        Session {
            decoder: Decoder::new(options.limits),
            phase: Phase::New { connect_by: now.checked_add(options.connect_within) },
            version: Version::V10,
            heart_beats: HeartBeats { send_every: None, expect_every: None },
            last_read: now,
            last_written: now,
            subscriptions: Vec::new(),
            options,
        }
    }

    /// Reads bytes that the client sent, cut anywhere. Between `Authenticate` and its answer bytes are kept, and more
    /// than `Limits::frame_bytes` of them end the session. A driver that does not read the connection meanwhile never
    /// reaches that limit.
    pub fn read(&mut self, now: Instant, bytes: &[u8]) -> Vec<Action> {
        let mut actions = Vec::new();
        if bytes.is_empty() || matches!(self.phase, Phase::Ending | Phase::Closed) {
            return actions;
        }
        self.last_read = now;
        let most = self.options.limits.frame_bytes;
        if matches!(self.phase, Phase::SigningIn) && self.decoder.buffered() + bytes.len() > most {
            self.refuse(&Refusal::ConnectedExpected(most), None, &mut actions);
            return actions;
        }
        self.decoder.push(bytes);
        self.read_frames(&mut actions);
        actions
    }

    /// Answers `Authenticate`: the client is this user. Frames that waited are read. `session_id`: any text. `epoch`:
    /// the history of the database to which numbers of streams belong.
    pub fn connected(&mut self, now: Instant, user_id: &str, session_id: &str, epoch: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        if !matches!(self.phase, Phase::SigningIn) {
            return actions;
        }
        self.phase = Phase::Connected;
        (self.last_read, self.last_written) = (now, now);
        let (can_send, wants) = self.options.heart_beat;
        let heart_beat = format!("{can_send},{wants}");
        let headers = [
            ("version", self.version.as_str()),
            ("heart-beat", &heart_beat),
            ("session", session_id),
            ("server", &self.options.server),
            ("user-name", user_id),
            ("x-epoch", epoch),
        ];
        actions.push(Action::Write(encode(self.version, ServerCommand::Connected, headers, "")));
        self.read_frames(&mut actions);
        actions
    }

    /// Answers `Authenticate`: the client is not signed in. `message`: a stable word. `remedy`: a sentence for people.
    pub fn refuse_sign_in(&mut self, message: &str, remedy: &str) -> Vec<Action> {
        self.error_and_close(CLOSE_SIGN_IN, message, remedy)
    }

    /// Answers `Subscribe`, once no later event of the topic can be missed. `head`: the last event of the topic's
    /// stream; `None` if the topic has no stream.
    pub fn subscribed(&self, subscribe: &Subscribe, head: Option<&Position>) -> Vec<Action> {
        let Some(receipt) = &subscribe.receipt else { return Vec::new() };
        let seq = head.map(|head| head.seq.to_string());
        let position = head.zip(seq.as_deref()).map(|(head, seq)| [("x-head", seq), ("x-epoch", head.epoch.as_str())]);
        self.answer(receipt, position.into_iter().flatten())
    }

    /// Answers `Subscribe`: the client may not have it, and the session ends at once. `message`: a stable word, also
    /// the reason of the close. `detail_json`: the body of the ERROR frame, as of a refused HTTP request.
    pub fn refuse_subscription(&mut self, subscribe: &Subscribe, message: &str, detail_json: &str) -> Vec<Action> {
        let receipt = subscribe.receipt.as_deref().map(|receipt| ("receipt-id", receipt));
        let headers = receipt.into_iter().chain([("subscription", subscribe.subscription.id.as_str())]);
        let error = self.error(message, headers, "application/json", detail_json);
        self.close(CLOSE_PROTOCOL, message, Some(error))
    }

    /// Answers a `Call` that has this receipt: it was executed.
    pub fn done(&self, receipt: &str) -> Vec<Action> {
        self.answer(receipt, [])
    }

    /// Ends the session at once: the token of the client has expired, and no new one came.
    pub fn token_expired(&mut self) -> Vec<Action> {
        self.refuse_now(&Refusal::TokenExpired)
    }

    /// Ends the session at once. `code`: of the close. `message`: a stable word, also the reason of the close.
    /// `remedy`: a sentence for people.
    pub fn error_and_close(&mut self, code: u16, message: &str, remedy: &str) -> Vec<Action> {
        self.close(code, message, Some(self.error(message, [], "text/plain", remedy)))
    }

    /// The subscriptions, also those that the driver has not answered, in the order in which they began. After `Close`
    /// those that the client did not end.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.subscriptions.iter()
    }

    /// A MESSAGE frame, as `SharedMessage::encode`. `None` after the end of the subscription, even if another one has
    /// its id, and after the end of the session.
    pub fn message(&self, subscription: &Arc<Subscription>, message: &SharedMessage) -> Option<String> {
        let is_open = !matches!(self.phase, Phase::Closed)
            && self.subscriptions.iter().any(|here| Arc::ptr_eq(here, subscription));
        is_open.then(|| message.encode(subscription))
    }

    /// Ends a subscription without the client, which may not have the topic any longer. An UNSUBSCRIBE that the client
    /// sends for it has no effect.
    pub fn end_subscription(&mut self, subscription: &Arc<Subscription>) {
        self.subscriptions.retain(|here| !Arc::ptr_eq(here, subscription));
    }

    /// Notes that bytes were sent to the client, of this session's actions or others.
    pub fn wrote(&mut self, now: Instant) {
        self.last_written = now;
    }

    /// Notes that the driver does not read the connection at the moment. Bytes that wait in the socket would otherwise
    /// count as silence: to be called before `tick`, as long as reading is paused.
    pub fn reading_paused(&mut self, now: Instant) {
        self.last_read = now;
    }

    /// When `tick` has something to do, if nothing is read or written until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        [self.connect_by(), self.dead_at(), self.heart_beat_at()].into_iter().flatten().min()
    }

    /// Does what is due: writes a heart-beat, or closes a connection on which CONNECT or heart-beats did not come.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.connect_by()) {
            return self.refuse_now(&Refusal::ConnectTimeout(self.options.connect_within));
        }
        if is_due(self.dead_at()) {
            return self.close(CLOSE_PROTOCOL, "no heart-beat", None);
        }
        if is_due(self.heart_beat_at()) {
            // The driver may write it later. Until then it is not due again.
            self.last_written = now;
            return vec![Action::Write(HEART_BEAT.to_owned())];
        }
        Vec::new()
    }

    fn connect_by(&self) -> Option<Instant> {
        match self.phase {
            Phase::New { connect_by } => connect_by,
            _ => None,
        }
    }

    fn dead_at(&self) -> Option<Instant> {
        let every = self.heart_beats.expect_every.filter(|_| matches!(self.phase, Phase::Connected))?;
        self.last_read.checked_add(self.options.silence.max(every.saturating_mul(2)))
    }

    fn heart_beat_at(&self) -> Option<Instant> {
        let every = self.heart_beats.send_every.filter(|_| matches!(self.phase, Phase::Connected))?;
        self.last_written.checked_add(every)
    }

    /// Reads the frames that are in the decoder, while frames are read in this phase.
    fn read_frames(&mut self, actions: &mut Vec<Action>) {
        while matches!(self.phase, Phase::New { .. } | Phase::Connected) {
            match self.decoder.next_input() {
                Ok(Some(Input::Frame(frame))) => {
                    let receipt = frame.header("receipt").map(str::to_owned);
                    if let Err(refusal) = self.handle(frame, receipt.as_deref(), actions) {
                        self.refuse(&refusal, receipt.as_deref(), actions);
                    }
                }
                Ok(Some(Input::HeartBeat)) => {}
                Ok(None) => break,
                Err(fault) => self.refuse(&Refusal::Frame(fault), None, actions),
            }
        }
    }

    fn handle(&mut self, frame: Frame, receipt: Option<&str>, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        if matches!(self.phase, Phase::New { .. }) {
            actions.push(self.connect(&frame)?);
            return Ok(());
        }
        match frame.command {
            Command::Connect | Command::Stomp => return Err(Refusal::ConnectRepeated),
            Command::Begin | Command::Commit | Command::Abort => return Err(Refusal::Transactions),
            Command::Send => {
                actions.push(Action::Call(call(frame, receipt)?));
                return Ok(());
            }
            Command::Subscribe => {
                let subscribe = self.subscribe(&frame, receipt)?;
                self.subscriptions.push(Arc::clone(&subscribe.subscription));
                actions.push(Action::Subscribe(subscribe));
                return Ok(());
            }
            Command::Disconnect => {
                let last = receipt.map(|receipt| self.receipt(receipt, []));
                self.end(last, close(CLOSE_NORMAL, ""), actions);
                return Ok(());
            }
            Command::Unsubscribe => {
                let id = self.subscription_id(&frame)?;
                if let Some(at) = self.subscriptions.iter().position(|here| here.id == id) {
                    actions.push(Action::Unsubscribe(self.subscriptions.remove(at)));
                }
            }
            Command::Ack => actions.push(Action::Ack { message_id: self.acknowledged(&frame)?.to_owned() }),
            Command::Nack => {
                self.acknowledged(&frame)?;
            }
        }
        actions.extend(receipt.map(|receipt| self.receipt(receipt, [])));
        Ok(())
    }

    /// Reads the first frame.
    fn connect(&mut self, frame: &Frame) -> Result<Action, Refusal> {
        if !frame.command.is_connect() {
            return Err(Refusal::ConnectExpected(frame.command));
        }
        let version = Version::negotiate(frame.header("accept-version")).ok_or(Refusal::Version)?;
        let heart_beat = parse_heart_beat(frame.header("heart-beat")).map_err(Refusal::Frame)?;
        self.version = version;
        self.decoder.set_version(version);
        self.heart_beats = HeartBeats::negotiate(heart_beat, self.options.heart_beat);
        self.phase = Phase::SigningIn;
        Ok(Action::Authenticate { bearer: bearer(frame) })
    }

    fn subscribe(&self, frame: &Frame, receipt: Option<&str>) -> Result<Subscribe, Refusal> {
        let destination = required(frame, "destination")?;
        let id = self.subscription_id(frame)?;
        let topic = Topic::parse(destination).ok_or(Refusal::UnknownTopic)?;
        let event_version = match frame.header("accept-event-v").map(str::trim) {
            None | Some("1") => 1,
            Some("2") => 2,
            Some(_) => return Err(Refusal::EventVersion),
        };
        let from = position(frame)?;
        if id.len() > ID_BYTES {
            return Err(Refusal::IdTooLong);
        }
        if self.subscriptions.iter().any(|here| here.id == id) {
            return Err(Refusal::IdInUse);
        }
        if self.subscriptions.len() >= self.options.max_subscriptions {
            return Err(Refusal::TooManySubscriptions(self.options.max_subscriptions));
        }
        let subscription = Arc::new(Subscription {
            id: id.to_owned(),
            topic,
            destination: destination.to_owned(),
            event_version,
            version: self.version,
            acknowledges: matches!(frame.header("ack"), Some("client" | "client-individual")),
        });
        Ok(Subscribe { subscription, from, receipt: receipt.map(str::to_owned) })
    }

    /// The id in SUBSCRIBE and UNSUBSCRIBE.
    fn subscription_id<'a>(&self, frame: &'a Frame) -> Result<&'a str, Refusal> {
        match required(frame, "id") {
            Err(_) if self.version == Version::V10 => required(frame, "destination"),
            id => id,
        }
    }

    /// The message that ACK and NACK are about.
    fn acknowledged<'a>(&self, frame: &'a Frame) -> Result<&'a str, Refusal> {
        match self.version {
            Version::V10 => required(frame, "message-id"),
            Version::V11 => required(frame, "subscription").and_then(|_| required(frame, "message-id")),
            Version::V12 => required(frame, "id"),
        }
    }

    fn receipt<'a>(&self, receipt: &'a str, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Action {
        let headers = [("receipt-id", receipt)].into_iter().chain(headers);
        Action::Write(encode(self.version, ServerCommand::Receipt, headers, ""))
    }

    fn error<'a>(
        &self,
        message: &'a str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        content_type: &'a str,
        body: &str,
    ) -> Action {
        let headers = [("message", message)].into_iter().chain(headers).chain([("content-type", content_type)]);
        Action::Write(encode(self.version, ServerCommand::Error, headers, body))
    }

    /// Ends the session with an ERROR after what came before the refused frame. `receipt`: of that frame.
    fn refuse(&mut self, refusal: &Refusal, receipt: Option<&str>, actions: &mut Vec<Action>) {
        let receipt = receipt.map(|receipt| ("receipt-id", receipt));
        // A client without a common version needs to know ours (1.2, "Protocol Negotiation").
        let versions = (*refusal == Refusal::Version).then_some(("version", VERSIONS));
        let headers = receipt.into_iter().chain(versions);
        let error = self.error(refusal.as_str(), headers, "text/plain", &refusal.to_string());
        self.end(Some(error), close(refusal.close_code(), refusal.as_str()), actions);
    }

    /// Ends the session with an ERROR at once.
    fn refuse_now(&mut self, refusal: &Refusal) -> Vec<Action> {
        self.error_and_close(refusal.close_code(), refusal.as_str(), &refusal.to_string())
    }

    /// Ends the session at once, with the last frame, if there is one.
    fn close(&mut self, code: u16, reason: &str, last: Option<Action>) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => Vec::new(),
            _ => last.into_iter().chain([close(code, reason)]).collect(),
        }
    }

    /// Ends the session after what came before, with the last frame, if there is one.
    fn end(&mut self, last: Option<Action>, close: Action, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Connected) {
            self.phase = Phase::Ending;
            actions.push(Action::AwaitAnswers);
        } else {
            self.phase = Phase::Closed;
        }
        actions.extend(last.into_iter().chain([close]));
    }

    /// Writes the receipt that an answer of the driver leads to.
    fn answer<'a>(&self, receipt: &'a str, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Action> {
        match self.phase {
            Phase::Connected | Phase::Ending => vec![self.receipt(receipt, headers)],
            Phase::New { .. } | Phase::SigningIn | Phase::Closed => Vec::new(),
        }
    }
}

/// The token of CONNECT: `Authorization: Bearer x`, or `Authorization: x`, else `passcode: x`. An `Authorization` with
/// another scheme is returned whole: so it is refused, not overlooked.
fn bearer(frame: &Frame) -> Option<String> {
    let value = |name| frame.header(name).map(str::trim);
    let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("bearer");
    let authorization = value("Authorization").or_else(|| value("authorization"));
    let token = authorization.map(|text| match text.split_once([' ', '\t']) {
        Some((scheme, token)) if is_bearer(scheme) => token.trim_start(),
        None if is_bearer(text) => "",
        _ => text,
    });
    let given = |token: &&str| !token.is_empty();
    token.filter(given).or_else(|| value("passcode").filter(given)).map(str::to_owned)
}

fn call(frame: Frame, receipt: Option<&str>) -> Result<Call, Refusal> {
    let destination = required(&frame, "destination")?;
    let call = AppCall::parse(destination).ok_or(Refusal::UnknownCall)?;
    let destination = destination.to_owned();
    Ok(Call { call, destination, body: frame.body, receipt: receipt.map(str::to_owned) })
}

/// The last event that a client has.
fn position(frame: &Frame) -> Result<Option<Position>, Refusal> {
    let Some(seq) = frame.header("x-from-seq").map(str::trim) else { return Ok(None) };
    let is_number = seq.bytes().all(|byte| byte.is_ascii_digit());
    let seq = seq.parse().ok().filter(|_| is_number).ok_or(Refusal::PositionNumber)?;
    let epoch = frame.header("x-epoch").filter(|epoch| !epoch.is_empty()).ok_or(Refusal::PositionEpoch)?;
    Ok(Some(Position { epoch: epoch.to_owned(), seq }))
}

/// A header that is not empty.
fn required<'a>(frame: &'a Frame, name: &'static str) -> Result<&'a str, Refusal> {
    let value = frame.header(name).filter(|value| !value.is_empty());
    value.ok_or(Refusal::HeaderMissing(frame.command, name))
}

fn close(code: u16, reason: &str) -> Action {
    Action::Close { code, reason: reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned() }
}

/// A MESSAGE that goes to many subscriptions, of one session or many: it is formatted once for each version of the
/// protocol that occurs.
pub struct SharedMessage {
    message_id: String,
    headers: Vec<(String, String)>,
    body: String,
    /// By version.
    frames: [OnceLock<SharedFrame>; 3],
}

impl SharedMessage {
    /// Prepares a message. `message_id`: unique in a session, but for subscriptions that get the same event. `headers`:
    /// those beside `subscription`, `destination`, `message-id`, `ack` and `content-type`. `body`: JSON.
    pub fn new<'a>(
        message_id: impl Into<String>,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: impl Into<String>,
    ) -> SharedMessage {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        SharedMessage { message_id: message_id.into(), headers, body: body.into(), frames: Default::default() }
    }

    /// The frame for one subscription.
    pub fn encode(&self, subscription: &Subscription) -> String {
        let mut out = String::new();
        self.encode_into(&mut out, subscription);
        out
    }

    /// Appends the frame for one subscription to `out`. Several frames in one WebSocket message are several calls.
    pub fn encode_into(&self, out: &mut String, subscription: &Subscription) {
        let Subscription { id, destination, version, acknowledges, .. } = subscription;
        let own = [("subscription", id.as_str()), ("destination", destination)];
        let ack = (*acknowledges && *version == Version::V12).then_some(("ack", self.message_id.as_str()));
        self.frame(*version).encode_into(out, own.into_iter().chain(ack));
    }

    fn frame(&self, version: Version) -> &SharedFrame {
        let [v10, v11, v12] = &self.frames;
        let frame = match version {
            Version::V10 => v10,
            Version::V11 => v11,
            Version::V12 => v12,
        };
        frame.get_or_init(|| {
            let known = [("message-id", self.message_id.as_str()), ("content-type", "application/json")];
            let more = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            SharedFrame::new(version, ServerCommand::Message, known.into_iter().chain(more), &self.body)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::id::Tsid;

    const ROOM: &str = "0000000000001";
    const ROOM_ID: Tsid = Tsid(1);
    /// No test driver lets anyone subscribe to this room.
    const CLOSED_ROOM: &str = "0000000000002";
    const CONNECTED: &str = "CONNECTED\nversion:1.2\nheart-beat:10000,10000\nsession:s1\nserver:notihub/1\n\
        user-name:0000000000009\nx-epoch:e1\n\n\0";

    fn options() -> Arc<Options> {
        Arc::new(Options::new("notihub/1"))
    }

    fn session(now: Instant) -> Session {
        Session::new(now, options())
    }

    /// A session whose client has connected with this `accept-version` and these headers, one a line.
    fn connected(now: Instant, version: &str, headers: &str) -> Session {
        let mut session = session(now);
        let actions = session.read(now, format!("CONNECT\naccept-version:{version}\n{headers}\n\0").as_bytes());
        assert!(matches!(actions.as_slice(), [Action::Authenticate { .. }]), "{actions:?}");
        let actions = session.connected(now, "0000000000009", "s1", "e1");
        assert_eq!(lines(&actions), [CONNECTED.replace("1.2", version)]);
        session
    }

    /// An action as a text. Of an ERROR, whose shape is checked, its message and what is in its headers beside.
    fn line(action: &Action) -> String {
        match action {
            Action::Write(frame) if frame.starts_with("ERROR\n") => {
                let (head, body) = frame.split_once("\n\n").unwrap();
                let mut headers: Vec<_> = head.lines().skip(1).collect();
                let length = format!("content-length:{}", body.strip_suffix('\0').unwrap().len());
                assert_eq!(headers.pop(), Some(length.as_str()), "{frame}");
                let json = headers.pop() == Some("content-type:application/json");
                assert!(json || body.contains("; ") || body.contains("remedy"), "no remedy: {frame}");
                format!("ERROR {}", headers.join(" ").strip_prefix("message:").unwrap())
            }
            Action::Write(frame) => frame.clone(),
            Action::Authenticate { bearer } => format!("authenticate {bearer:?}"),
            Action::Subscribe(Subscribe { subscription: s, from, receipt }) => {
                let from = from.as_ref().map(|from| format!("{}:{}", from.epoch, from.seq));
                let Subscription { id, topic, destination, event_version, .. } = s.as_ref();
                format!("subscribe {id} {topic:?} {destination} v{event_version} from {from:?} {receipt:?}")
            }
            Action::Unsubscribe(subscription) => format!("unsubscribe {}", subscription.id),
            Action::Call(Call { call, destination, body, receipt }) => {
                format!("call {call:?} {destination} {} {receipt:?}", body.escape_ascii())
            }
            Action::Ack { message_id } => format!("ack {message_id}"),
            Action::AwaitAnswers => "await answers".to_owned(),
            Action::Close { code, reason } => format!("close {code} {reason}"),
        }
    }

    fn lines(actions: &[Action]) -> Vec<String> {
        actions.iter().map(line).collect()
    }

    fn receipt(id: &str) -> String {
        format!("RECEIPT\nreceipt-id:{id}\n\n\0")
    }

    /// The lines of a refusal before CONNECTED: its word, and headers of the ERROR.
    fn refused_first(word: &str, headers: &str) -> Vec<String> {
        vec![format!("ERROR {word}{headers}"), format!("close 4400 {word}")]
    }

    /// The lines of a refusal after CONNECTED.
    fn refused(word: &str, headers: &str) -> Vec<String> {
        [vec!["await answers".to_owned()], refused_first(word, headers)].concat()
    }

    /// The answers of a driver.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Answers {
        /// Each action is answered before the next is executed.
        AtOnce,
        /// Subscriptions and calls are answered after all that was executed meanwhile.
        Later,
    }

    /// Executes actions as a driver does, up to Close.
    struct Driver {
        session: Session,
        now: Instant,
        answers: Answers,
        executed: Vec<String>,
        waiting: Vec<Action>,
        is_closed: bool,
    }

    impl Driver {
        fn new(session: Session, now: Instant, answers: Answers) -> Driver {
            Driver { session, now, answers, executed: Vec::new(), waiting: Vec::new(), is_closed: false }
        }

        fn read(&mut self, bytes: &[u8]) {
            let actions = self.session.read(self.now, bytes);
            self.execute(actions);
        }

        fn execute(&mut self, actions: Vec<Action>) {
            let mut actions = VecDeque::from(actions);
            while let Some(action) = actions.pop_front().filter(|_| !self.is_closed) {
                self.executed.push(line(&action));
                let answer = match &action {
                    Action::Close { .. } => {
                        self.is_closed = true;
                        Vec::new()
                    }
                    Action::AwaitAnswers => {
                        let waiting = std::mem::take(&mut self.waiting);
                        waiting.iter().flat_map(|action| self.answer(action)).collect()
                    }
                    Action::Subscribe(_) | Action::Call(_) if self.answers == Answers::Later => {
                        self.waiting.push(action);
                        Vec::new()
                    }
                    _ => self.answer(&action),
                };
                for action in answer.into_iter().rev() {
                    actions.push_front(action);
                }
            }
        }

        fn answer_all(&mut self) {
            for action in std::mem::take(&mut self.waiting) {
                let answer = self.answer(&action);
                self.execute(answer);
            }
        }

        fn answer(&mut self, action: &Action) -> Vec<Action> {
            match action {
                Action::Authenticate { bearer: Some(bearer) } if bearer == "bad" => {
                    self.session.refuse_sign_in("token_invalid", "remedy")
                }
                Action::Authenticate { .. } => self.session.connected(self.now, "0000000000009", "s1", "e1"),
                Action::Subscribe(subscribe) if subscribe.subscription.destination.ends_with(CLOSED_ROOM) => {
                    self.session.refuse_subscription(subscribe, "not_found", "{}")
                }
                Action::Subscribe(subscribe) => self.session.subscribed(subscribe, None),
                Action::Call(Call { receipt: Some(receipt), .. }) => self.session.done(receipt),
                _ => Vec::new(),
            }
        }
    }

    /// What a driver executes for these frames in a connected session of this version.
    fn run(version: &str, frames: &str) -> Vec<String> {
        let now = Instant::now();
        let mut driver = Driver::new(connected(now, version, ""), now, Answers::AtOnce);
        driver.read(frames.as_bytes());
        driver.executed
    }

    #[track_caller]
    fn check(version: &str, frames: &str, expected: &[&str]) {
        assert_eq!(run(version, frames), expected, "{version} {frames}");
    }

    #[track_caller]
    fn check_refused(version: &str, frames: &str, word: &str) {
        assert_eq!(run(version, frames), refused(word, ""), "{version} {frames}");
        let with_receipt = frames.replacen("\n\n", "\nreceipt:7\n\n", 1);
        assert_eq!(run(version, &with_receipt), refused(word, " receipt-id:7"), "{version} {frames}");
    }

    /// What a new session does for a first frame, before an answer.
    fn first(frame: &str) -> Vec<String> {
        let now = Instant::now();
        lines(&session(now).read(now, frame.as_bytes()))
    }

    /// ST-1..4: CONNECT or STOMP comes first.
    #[test]
    fn first_frame_begins_the_session() {
        assert_eq!(first("CONNECT\naccept-version:1.2\n\n\0"), ["authenticate None"]);
        assert_eq!(first("\n\r\nSTOMP\r\naccept-version:1.2\r\nhost:h\r\n\r\n\0"), ["authenticate None"]);
        for frame in ["SEND\ndestination:/app/chat\n\n\0", "DISCONNECT\n\n\0", "SUBSCRIBE\nid:1\n\n\0", "BEGIN\n\n\0"] {
            assert_eq!(first(frame), refused_first("connect_expected", ""), "{frame}");
            let frame = frame.replacen("\n\n", "\nreceipt:7\n\n", 1);
            assert_eq!(first(&frame), refused_first("connect_expected", " receipt-id:7"), "{frame}");
        }
        assert_eq!(first("GET / HTTP/1.1\r\n"), refused_first("frame_invalid", ""));
        check_refused("1.2", "CONNECT\naccept-version:1.2\n\n\0", "connect_repeated");
        check_refused("1.1", "STOMP\naccept-version:1.2\n\n\0", "connect_repeated");
    }

    /// ST-1..4: the highest common version counts, and CONNECTED says it.
    #[test]
    fn version_is_negotiated() {
        let now = Instant::now();
        for (accept, version) in [("accept-version:1.0,1.1\n", "1.1"), ("accept-version:1.2,9.9\n", "1.2"), ("", "1.0")]
        {
            let mut session = session(now);
            session.read(now, format!("CONNECT\n{accept}\n\0").as_bytes());
            let actions = session.connected(now, "0000000000009", "s1", "e1");
            assert_eq!(lines(&actions), [CONNECTED.replace("1.2", version)]);
        }
        let none = "CONNECT\naccept-version:2.0\nreceipt:7\n\n\0";
        assert_eq!(first(none), refused_first("version_unsupported", " receipt-id:7 version:1.0,1.1,1.2"));
    }

    /// ST-1..4: the token of CONNECT, if there is one, is handed to the driver.
    #[test]
    fn token_is_found() {
        for (headers, token) in [
            ("Authorization:Bearer a.b", Some("a.b")),
            ("Authorization: bEARER \t a.b ", Some("a.b")),
            ("authorization:a.b", Some("a.b")),
            ("Authorization:Bearer a:b\npasscode:c", Some("a:b")),
            ("login:a\npasscode:c", Some("c")),
            ("Authorization:Bearer\npasscode:c", Some("c")),
            ("Authorization: Bearer \npasscode: c", Some("c")),
            ("Authorization:\npasscode:", None),
            ("Authorization:Basic YTpi\npasscode:c", Some("Basic YTpi")),
            ("login:a", None),
        ] {
            let frame = format!("CONNECT\naccept-version:1.2\n{headers}\n\n\0");
            assert_eq!(first(&frame), [format!("authenticate {token:?}")], "{headers}");
        }
    }

    /// ST-1..4: a client that cannot sign in gets an ERROR and 4401, and frames behind CONNECT are not read.
    #[test]
    fn refused_sign_in_ends_the_session() {
        let now = Instant::now();
        let mut driver = Driver::new(session(now), now, Answers::AtOnce);
        driver.read(b"CONNECT\naccept-version:1.2\npasscode:bad\n\n\0DISCONNECT\nreceipt:1\n\n\0");
        let expected = ["authenticate Some(\"bad\")", "ERROR token_invalid", "close 4401 token_invalid"];
        assert_eq!(driver.executed, expected);
        assert_eq!(driver.session.connected(now, "0000000000009", "s1", "e1"), []);
    }

    /// Frames behind CONNECT wait for the sign-in, up to the size of one frame.
    #[test]
    fn frames_wait_for_the_sign_in() {
        let now = Instant::now();
        let mut session = session(now);
        let read = session.read(now, b"CONNECT\naccept-version:1.2\n\n\0SEND\ndestination:/app/chat\n\na\0SEND\n");
        assert_eq!(lines(&read), ["authenticate None"]);
        assert_eq!(session.read(now, b"destination:/app/chat\n\nb\0\xff"), []);
        assert_eq!((session.next_deadline(), session.tick(now + Duration::from_secs(3600))), (None, Vec::new()));
        let waited = session.connected(now, "0000000000009", "s1", "e1");
        let chat = |body| format!("call Chat /app/chat {body} None");
        assert_eq!(lines(&waited), [CONNECTED.to_owned(), chat("a"), chat("b")]);
        assert_eq!(session.connected(now, "0000000000009", "s1", "e1"), [], "a second answer");
        assert_eq!(lines(&session.read(now, b"\n")), refused("frame_invalid", ""), "the byte that waited");

        let mut session = self::session(now);
        session.read(now, b"CONNECT\naccept-version:1.2\n\n\0\n");
        assert_eq!(session.read(now, &[b'\n'; (64 << 10) - 1]), []);
        assert_eq!(lines(&session.read(now, b"\n")), refused_first("connected_expected", ""));
        assert_eq!(session.connected(now, "0000000000009", "s1", "e1"), []);
    }

    /// ST-5..11: the codec's faults end the session; escapes of the negotiated version are read and written.
    #[test]
    fn faults_of_the_codec_end_the_session() {
        check("1.2", "\n\r\n\n", &[]);
        let unsubscribe = "UNSUBSCRIBE\nid:1\nreceipt:a\\c\\r\n\n\0";
        check("1.2", unsubscribe, &[&receipt("a\\c\\r")]);
        check("1.0", unsubscribe, &[&receipt("a\\c\\r")]);
        for (version, frames) in [
            ("1.1", unsubscribe),
            ("1.2", "SEND\na:\\t\n\n\0"),
            ("1.2", "HELLO\n\n\0"),
            ("1.2", "SEND\ndestination:/app/chat\ncontent-length:1\n\nab\0"),
        ] {
            assert_eq!(run(version, frames), refused("frame_invalid", ""), "{frames}");
        }
        assert_eq!(first("CONNECT\nheart-beat:soon\nreceipt:7\n\n\0"), refused_first("frame_invalid", " receipt-id:7"));
        check("1.2", "UNSUBSCRIBE\r\nid:1\r\nreceipt:1\r\nreceipt:2\r\n\r\n\0", &[&receipt("1")]);
    }

    /// ST-12..13: a heart-beat is sent after the negotiated time without another frame.
    #[test]
    fn heart_beats_are_sent() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut session = connected(now, "1.2", "heart-beat:0,15000\n");
        assert_eq!(session.next_deadline(), Some(at(15_000)));
        assert_eq!(session.tick(at(14_999)), []);
        session.wrote(at(1_000));
        assert_eq!((session.tick(at(15_999)), session.next_deadline()), (Vec::new(), Some(at(16_000))));
        assert_eq!(lines(&session.tick(at(16_500))), ["\n"]);
        assert_eq!((session.tick(at(16_500)), session.next_deadline()), (Vec::new(), Some(at(31_500))));
        assert_eq!(session.tick(at(31_499)), []);
        assert_eq!(lines(&session.tick(at(10_000_000))), ["\n"], "silence of this client is not death");

        for headers in ["", "heart-beat:0,0\n"] {
            let mut session = connected(now, "1.2", headers);
            assert_eq!((session.next_deadline(), session.tick(at(10_000_000))), (None, Vec::new()));
        }
    }

    /// ST-12..13: a client is dead after 60 s without a byte, or two of its intervals.
    #[test]
    fn silent_clients_are_closed() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        for (client_ms, dead_ms) in
            [(1, 60_000), (10_000, 60_000), (30_000, 60_000), (30_001, 60_002), (45_000, 90_000)]
        {
            let mut session = connected(now, "1.1", &format!("heart-beat:{client_ms},0\n"));
            assert_eq!(session.next_deadline(), Some(at(dead_ms)), "{client_ms}");
            assert_eq!(session.read(at(7_000), b"\n"), []);
            session.wrote(at(9_000));
            assert_eq!(session.tick(at(7_000 + dead_ms - 1)), []);
            session.reading_paused(at(8_000));
            assert_eq!(session.read(at(9_000), b""), []);
            assert_eq!(session.tick(at(8_000 + dead_ms - 1)), []);
            assert_eq!(lines(&session.tick(at(8_000 + dead_ms))), ["close 4400 no heart-beat"]);
            assert_eq!((session.next_deadline(), session.tick(at(1_000_000))), (None, Vec::new()));
        }
        let longest = format!("heart-beat:{0},{0}\n", u32::MAX);
        assert!(connected(now, "1.2", &longest).next_deadline().is_some());
        let forever = Options { connect_within: Duration::MAX, silence: Duration::MAX, ..Options::new("notihub/1") };
        let mut session = Session::new(now, Arc::new(forever));
        session.read(now, b"CONNECT\nheart-beat:1,0\n\n\0");
        session.connected(now, "0000000000009", "s1", "e1");
        assert_eq!((session.next_deadline(), session.tick(at(1_000_000))), (None, Vec::new()));
    }

    /// The interval of the sign-in does not count as silence.
    #[test]
    fn heart_beats_begin_with_connected() {
        let now = Instant::now();
        let mut session = session(now);
        session.read(now, b"CONNECT\nheart-beat:10000,10000\n\n\0");
        let later = now + Duration::from_secs(300);
        session.connected(later, "0000000000009", "s1", "e1");
        assert_eq!(session.next_deadline(), Some(later + Duration::from_secs(10)));
        assert_eq!(session.tick(later), []);
    }

    /// ST-1..4: CONNECT comes whole within 10 s.
    #[test]
    fn late_connect_ends_the_session() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut session = session(now);
        assert_eq!(session.read(at(9_000), b"\nCONN"), []);
        assert_eq!((session.next_deadline(), session.tick(at(9_999))), (Some(at(10_000)), Vec::new()));
        assert_eq!(lines(&session.tick(at(10_000))), refused_first("connect_timeout", ""));
        assert_eq!(session.read(at(10_001), b"ECT\n\n\0"), []);
        assert_eq!((session.next_deadline(), session.tick(at(99_999))), (None, Vec::new()));
    }

    /// ST-14..16: SEND goes to the calls under `/app`, with its body as it is.
    #[test]
    fn calls_are_made() {
        check(
            "1.2",
            "SEND\ndestination:/app/chat\ncontent-length:3\n\n{\0}\0SEND\ndestination:/app/typing\n\n\0",
            &["call Chat /app/chat {\\x00} None", "call Typing /app/typing  None"],
        );
        let send = format!("SEND\ndestination:/app/room/{ROOM}/send\nreceipt:r\\c1\n\n{{}}\0");
        let called = format!("call RoomSend({ROOM}) /app/room/{ROOM}/send {{}} Some(\"r:1\")");
        check("1.2", &send, &[&called, &receipt("r\\c1")]);
        for destination in ["/topic/messages/0000000000001", "/app", "/app/unknown", "/app/room/1/send", "/queue/a"] {
            check_refused("1.2", &format!("SEND\ndestination:{destination}\n\n\0"), "destination_unknown");
        }
        check_refused("1.2", "SEND\n\n{}\0", "header_missing");
        check_refused("1.2", "SEND\ndestination:\n\n{}\0", "header_missing");
    }

    /// ST-14..16: SUBSCRIBE has an id that no other subscription has; the same destination twice is two subscriptions.
    #[test]
    fn subscriptions_begin() {
        let subscribe =
            |id: &str, headers: &str| format!("SUBSCRIBE\nid:{id}\ndestination:/topic/messages/{ROOM}\n{headers}\n\0");
        let begun =
            |id: &str, rest: &str| format!("subscribe {id} Messages({ROOM}) /topic/messages/{ROOM} {rest} None");
        let (a, b) = (begun("a", "v1 from None"), begun("b", "v1 from None"));
        check("1.2", &(subscribe("a", "") + &subscribe("b", "ack:client\n")), &[&a, &b]);
        let twice = run("1.2", &(subscribe("a", "") + &subscribe("a", "receipt:2\n")));
        assert_eq!(twice, [&[a.clone()][..], &refused("id_in_use", " receipt-id:2")].concat());
        let unsubscribe = "UNSUBSCRIBE\nid:a\n\n\0";
        check("1.2", &(subscribe("a", "") + unsubscribe + &subscribe("a", "")), &[&a, "unsubscribe a", &a]);
        check_refused("1.2", &format!("SUBSCRIBE\ndestination:/topic/messages/{ROOM}\n\n\0"), "header_missing");
        check_refused("1.1", &format!("SUBSCRIBE\nid:\ndestination:/topic/messages/{ROOM}\n\n\0"), "header_missing");
        check_refused("1.2", "SUBSCRIBE\nid:a\n\n\0", "header_missing");
        check_refused("1.2", "SUBSCRIBE\nid:a\ndestination:/topic/messages/1\n\n\0", "destination_unknown");
        check_refused("1.2", "SUBSCRIBE\nid:a\ndestination:/app/chat\n\n\0", "destination_unknown");
        let longest = "i".repeat(ID_BYTES);
        check("1.2", &subscribe(&longest, ""), &[&begun(&longest, "v1 from None")]);
        check_refused("1.2", &subscribe(&(longest + "i"), ""), "id_too_long");

        check("1.2", &subscribe("a", "accept-event-v:2\n"), &[&begun("a", "v2 from None")]);
        check("1.2", &subscribe("a", "accept-event-v:1\nx-epoch:e\n"), &[&begun("a", "v1 from None")]);
        check("1.2", &subscribe("a", "x-from-seq:0\nx-epoch:e\n"), &[&begun("a", "v1 from Some(\"e:0\")")]);
        let most = format!("x-epoch:e\nx-from-seq: {}\n", i64::MAX);
        check("1.2", &subscribe("a", &most), &[&begun("a", &format!("v1 from Some(\"e:{}\")", i64::MAX))]);
        for version in ["0", "3", "", "1,2", "+1"] {
            check_refused("1.2", &subscribe("a", &format!("accept-event-v:{version}\n")), "event_version_unsupported");
        }
        for seq in ["", "-1", "+1", "1.5", "one", "9223372036854775808"] {
            check_refused("1.2", &subscribe("a", &format!("x-epoch:e\nx-from-seq:{seq}\n")), "position_invalid");
        }
        check_refused("1.2", &subscribe("a", "x-from-seq:1\n"), "position_invalid");
        check_refused("1.2", &subscribe("a", "x-from-seq:1\nx-epoch:\n"), "position_invalid");
    }

    /// ST-14..16: in 1.0 the destination stands for an id that is not given.
    #[test]
    fn ids_of_subscriptions_may_lack_in_1_0() {
        let destination = "destination:/user/queue/inbox";
        check(
            "1.0",
            &format!("SUBSCRIBE\n{destination}\n\n\0UNSUBSCRIBE\n{destination}\nreceipt:1\n\n\0"),
            &[
                "subscribe /user/queue/inbox Inbox /user/queue/inbox v1 from None None",
                "unsubscribe /user/queue/inbox",
                &receipt("1"),
            ],
        );
        check_refused("1.0", "SUBSCRIBE\nid:1\n\n\0", "header_missing");
        check_refused("1.0", "UNSUBSCRIBE\n\n\0", "header_missing");
        check_refused("1.1", &format!("UNSUBSCRIBE\n{destination}\n\n\0"), "header_missing");
    }

    /// ST-14..16, ST-22: there are 200 subscriptions, and room again after the end of one.
    #[test]
    fn subscriptions_are_limited() {
        let now = Instant::now();
        let mut session = connected(now, "1.2", "");
        let mut subscribe = |id: usize| {
            let frame = format!("SUBSCRIBE\nid:{id}\ndestination:/topic/typing/{ROOM}\n\n\0");
            let actions = session.read(now, frame.as_bytes());
            for action in &actions {
                if let Action::Subscribe(subscribe) = action {
                    assert_eq!(session.subscribed(subscribe, None), []);
                }
            }
            assert!(session.subscriptions().count() <= 200);
            lines(&actions)
        };
        for id in 0..200 {
            assert_eq!(
                subscribe(id),
                [format!("subscribe {id} Typing({ROOM}) /topic/typing/{ROOM} v1 from None None")]
            );
        }
        assert_eq!(subscribe(200), refused("too_many_subscriptions", ""));

        let mut frames = String::new();
        for id in 0..201 {
            frames += &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/typing/{ROOM}\n\n\0UNSUBSCRIBE\nid:{id}\n\n\0");
        }
        assert_eq!(run("1.2", &frames).len(), 402);
    }

    /// ST-14..16: ACK names a message as its version does; NACK does nothing.
    #[test]
    fn messages_are_acknowledged() {
        check("1.2", "ACK\nid:s\\c1\nreceipt:1\n\n\0", &["ack s:1", &receipt("1")]);
        check("1.1", "ACK\nmessage-id:s\\c1\nsubscription:a\n\n\0", &["ack s:1"]);
        check("1.0", "ACK\nmessage-id:s:1\n\n\0", &["ack s:1"]);
        check("1.2", "NACK\nid:s\\c1\nreceipt:1\n\n\0NACK\nid:2\n\n\0", &[&receipt("1")]);
        for command in ["ACK", "NACK"] {
            check_refused("1.2", &format!("{command}\nmessage-id:1\nsubscription:a\n\n\0"), "header_missing");
            check_refused("1.2", &format!("{command}\nid:\n\n\0"), "header_missing");
            check_refused("1.1", &format!("{command}\nmessage-id:1\n\n\0"), "header_missing");
            check_refused("1.1", &format!("{command}\nsubscription:a\nid:1\n\n\0"), "header_missing");
            check_refused("1.0", &format!("{command}\nid:1\n\n\0"), "header_missing");
        }
    }

    /// ST-17..18: a MESSAGE names its subscription and the destination as the client wrote it.
    #[test]
    fn messages_are_written() {
        let now = Instant::now();
        let headers = [("x-seq", "7"), ("x-epoch", "e:1")];
        let message = SharedMessage::new("room:1:7", headers, "{\"a\":\"안녕\"}");
        let lower = "/topic/rooms/000000000000a";
        for (version, ack, id, expected) in [
            ("1.2", "auto", "a\\c1", "subscription:a\\c1\nDESTINATION\nmessage-id:room\\c1\\c7"),
            ("1.2", "client", "a", "subscription:a\nDESTINATION\nack:room\\c1\\c7\nmessage-id:room\\c1\\c7"),
            ("1.2", "client-individual", "a", "subscription:a\nDESTINATION\nack:room\\c1\\c7\nmessage-id:room\\c1\\c7"),
            ("1.1", "client", "a", "subscription:a\nDESTINATION\nmessage-id:room\\c1\\c7"),
            ("1.0", "client", "a:b", "subscription:a:b\nDESTINATION\nmessage-id:room:1:7"),
        ] {
            let mut session = connected(now, version, "");
            let frame = format!("SUBSCRIBE\nid:{id}\nack:{ack}\ndestination:{lower}\n\n\0");
            session.read(now, frame.as_bytes());
            let subscription = Arc::clone(session.subscriptions().next().unwrap());
            assert_eq!(subscription.topic, Topic::Room(Tsid(10)));
            let epoch = if version == "1.0" { "e:1" } else { "e\\c1" };
            let expected = expected.replace("DESTINATION", &format!("destination:{lower}"));
            let expected = format!(
                "MESSAGE\n{expected}\ncontent-type:application/json\nx-seq:7\nx-epoch:{epoch}\ncontent-length:14\n\n\
                {{\"a\":\"안녕\"}}\0"
            );
            assert_eq!(session.message(&subscription, &message).as_deref(), Some(expected.as_str()));
            let mut twice = HEART_BEAT.to_owned();
            message.encode_into(&mut twice, &subscription);
            message.encode_into(&mut twice, &subscription);
            assert_eq!(twice, format!("\n{expected}{expected}"));
        }
        assert!(message.frames.iter().all(|frame| frame.get().is_some()));
        let of_one = SharedMessage::new("1", [], "{}");
        of_one.frame(Version::V12);
        assert_eq!(of_one.frames.iter().filter(|frame| frame.get().is_some()).count(), 1);
    }

    /// A subscription that ended gets nothing, even if its id is used again; it ends by the client or without it.
    #[test]
    fn ended_subscriptions_get_nothing() {
        let now = Instant::now();
        let message = SharedMessage::new("1", [], "{}");
        let mut session = connected(now, "1.2", "");
        let subscribe = |session: &mut Session, id: &str, before: &str| {
            let frames = format!("{before}SUBSCRIBE\nid:{id}\ndestination:/topic/active/{ROOM}\n\n\0");
            let mut actions = session.read(now, frames.as_bytes());
            let Some(Action::Subscribe(subscribe)) = actions.pop() else { panic!("{frames}") };
            assert_eq!(session.subscribed(&subscribe, None), []);
            subscribe.subscription
        };
        let first = subscribe(&mut session, "a", "");
        let second = subscribe(&mut session, "a", "UNSUBSCRIBE\nid:a\n\n\0");
        assert_eq!(first, second);
        assert_eq!(session.message(&first, &message), None);
        assert!(session.message(&second, &message).is_some());
        let other = subscribe(&mut session, "b", "");
        session.end_subscription(&second);
        session.end_subscription(&second);
        assert_eq!(session.message(&second, &message), None);
        let left: Vec<_> = session.subscriptions().map(|left| left.id.as_str()).collect();
        assert_eq!(left, ["b"]);
        assert_eq!(lines(&session.read(now, b"UNSUBSCRIBE\nid:a\nreceipt:1\n\n\0")), [receipt("1")]);
        subscribe(&mut session, "a", "");
        assert!(session.message(&other, &message).is_some());
        session.error_and_close(4403, "removed", "remedy");
        assert_eq!((session.message(&other, &message), session.subscriptions().count()), (None, 2));
    }

    /// ST-17..18: a receipt is written once its frame was executed; that of SUBSCRIBE has the head of the stream.
    #[test]
    fn receipts_follow_answers() {
        let now = Instant::now();
        let mut session = connected(now, "1.2", "");
        let frames = format!(
            "SUBSCRIBE\nid:a\ndestination:/topic/rooms/{ROOM}\nreceipt:1\n\n\0\
            SUBSCRIBE\nid:b\ndestination:/user/queue/errors\nreceipt:2\n\n\0\
            SEND\ndestination:/app/read\nreceipt:3\n\n{{}}\0\
            UNSUBSCRIBE\nid:b\nreceipt:4\n\n\0"
        );
        let actions = session.read(now, frames.as_bytes());
        let [Action::Subscribe(a), Action::Subscribe(b), call, Action::Unsubscribe(ended), written] =
            actions.as_slice()
        else {
            panic!("{actions:?}")
        };
        assert_eq!(line(written), receipt("4"));
        assert!(Arc::ptr_eq(ended, &b.subscription));
        assert_eq!(line(call), "call Read /app/read {} Some(\"3\")");
        assert_eq!(lines(&session.done("3")), [receipt("3")]);
        assert_eq!(lines(&session.subscribed(b, None)), [receipt("2")]);
        let head = Position { epoch: "e:1".to_owned(), seq: 42 };
        let expected = "RECEIPT\nreceipt-id:1\nx-head:42\nx-epoch:e\\c1\n\n\0";
        assert_eq!(lines(&session.subscribed(a, Some(&head))), [expected]);
    }

    /// ST-19..21: DISCONNECT is answered, then the connection is closed. Frames after it are not read.
    #[test]
    fn disconnect_ends_the_session() {
        check("1.2", "DISCONNECT\nreceipt:77\n\n\0", &["await answers", &receipt("77"), "close 1000 "]);
        check("1.0", "DISCONNECT\n\n\0SEND\n\n\0", &["await answers", "close 1000 "]);
    }

    /// ST-17..18, ST-19..21: the end that a frame leads to comes after the answers to earlier frames.
    #[test]
    fn end_waits_for_answers() {
        let now = Instant::now();
        let asked = format!(
            "SUBSCRIBE\nid:a\ndestination:/topic/rooms/{ROOM}\nreceipt:1\n\n\0\
            SEND\ndestination:/app/read\nreceipt:2\n\n\0"
        );
        for (frame, end) in [
            ("DISCONNECT\nreceipt:3\n\n\0", vec![receipt("3"), "close 1000 ".to_owned()]),
            ("HELLO\n\n\0", refused_first("frame_invalid", "")),
            ("BEGIN\nreceipt:3\n\n\0", refused_first("transactions_unsupported", " receipt-id:3")),
        ] {
            let mut session = connected(now, "1.2", "heart-beat:10000,10000\n");
            let mut actions = session.read(now, format!("{asked}{frame}DISCONNECT\n\n\0").as_bytes());
            assert_eq!(lines(&actions.split_off(3)), end);
            let [Action::Subscribe(subscribe), Action::Call(_), Action::AwaitAnswers] = actions.as_slice() else {
                panic!("{actions:?}")
            };
            let waiting = session.decoder.buffered();
            assert_eq!(session.read(now, b"DISCONNECT\nreceipt:3\n\n\0"), []);
            assert_eq!(session.decoder.buffered(), waiting, "no more bytes are kept");
            assert_eq!((session.next_deadline(), session.tick(now + Duration::from_secs(3600))), (None, Vec::new()));
            assert_eq!(lines(&session.subscribed(subscribe, None)), [receipt("1")]);
            assert_eq!(lines(&session.done("2")), [receipt("2")]);
            assert_eq!(lines(&session.token_expired()), ["ERROR token_expired", "close 4401 token_expired"]);
            assert_eq!((session.done("2"), session.subscribed(subscribe, None)), (Vec::new(), Vec::new()));
        }
    }

    /// ST-19..21: transactions are refused.
    #[test]
    fn transactions_are_refused() {
        for command in ["BEGIN", "COMMIT", "ABORT"] {
            check_refused("1.2", &format!("{command}\ntransaction:t\n\n\0"), "transactions_unsupported");
        }
    }

    /// ST-19..21: an ERROR of the driver closes, too, and nothing is done after it.
    #[test]
    fn errors_of_the_driver_end_the_session() {
        let now = Instant::now();
        let frame = format!("SUBSCRIBE\nid:a\ndestination:/topic/rooms/{CLOSED_ROOM}\nreceipt:1\n\n\0");
        let begun = format!("subscribe a Room({CLOSED_ROOM}) /topic/rooms/{CLOSED_ROOM} v1 from None Some(\"1\")");
        let mut driver = Driver::new(connected(now, "1.2", ""), now, Answers::AtOnce);
        driver.read((frame + "SEND\ndestination:/app/chat\n\n\0").as_bytes());
        driver.read(b"SEND\ndestination:/app/chat\n\n\0");
        let expected = [&begun, "ERROR not_found receipt-id:1 subscription:a", "close 4400 not_found"];
        assert_eq!(driver.executed, expected);

        let mut session = connected(now, "1.2", "");
        let long = "가".repeat(50);
        let actions = session.error_and_close(4429, &long, "remedy");
        assert_eq!(lines(&actions), [format!("ERROR {long}"), format!("close 4429 {}", "가".repeat(41))]);
        assert_eq!((session.token_expired(), session.error_and_close(4429, "a", "b")), (Vec::new(), Vec::new()));
        assert_eq!((session.read(now, b"\n\xff"), session.next_deadline()), (Vec::new(), None));
        let mut session = self::session(now);
        assert_eq!(session.error_and_close(1012, "restart", "remedy").len(), 2, "before CONNECT");
    }

    /// The bodies of refusals, in full.
    #[test]
    fn refusals_name_the_remedy() {
        let refusals = [
            Refusal::ConnectExpected(Command::Send),
            Refusal::ConnectRepeated,
            Refusal::ConnectTimeout(Duration::from_secs(10)),
            Refusal::ConnectedExpected(65_536),
            Refusal::Version,
            Refusal::Frame(Fault::NulInHeader),
            Refusal::HeaderMissing(Command::Subscribe, "id"),
            Refusal::UnknownTopic,
            Refusal::UnknownCall,
            Refusal::IdInUse,
            Refusal::IdTooLong,
            Refusal::TooManySubscriptions(200),
            Refusal::PositionNumber,
            Refusal::PositionEpoch,
            Refusal::EventVersion,
            Refusal::Transactions,
            Refusal::TokenExpired,
        ];
        for refusal in refusals {
            let text = refusal.to_string();
            assert_eq!(text.matches("; ").count(), 1, "{text}");
            assert!(!text.contains("  ") && refusal.as_str().len() <= REASON_BYTES, "{text}");
        }
        assert_eq!(
            Refusal::HeaderMissing(Command::Subscribe, "id").to_string(),
            "SUBSCRIBE has no header id; send it with a value"
        );
    }

    /// An idle session with two subscriptions takes less than 1 KiB besides the decoder.
    #[test]
    fn idle_sessions_are_small() {
        let now = Instant::now();
        let mut session = connected(now, "1.2", "heart-beat:10000,10000\n");
        for (id, topic) in [("sub-0", "messages"), ("sub-1", "message/status")] {
            let frame = format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{topic}/{ROOM}\n\n\0");
            session.read(now, frame.as_bytes());
        }
        let own = size_of::<Session>() - size_of::<Decoder>();
        let table = session.subscriptions.capacity() * size_of::<Arc<Subscription>>();
        let counts = 2 * size_of::<usize>();
        let each = session.subscriptions().map(|s| {
            assert_eq!(s.topic.room_id(), Some(ROOM_ID));
            counts + size_of::<Subscription>() + s.id.capacity() + s.destination.capacity()
        });
        let bytes = own + table + each.sum::<usize>();
        assert!(bytes < 640, "{bytes}");
    }

    /// Frames of a client, some of which end a session.
    fn frames() -> impl Strategy<Value = String> {
        let id = prop::sample::select(vec!["1", "2", "3", ""]);
        let destinations = [
            format!("/topic/messages/{ROOM}"),
            format!("/exchange/chat.exchange/chat.channel.{ROOM}.message"),
            "/user/queue/inbox".to_owned(),
        ];
        let room = prop_oneof![
            12 => prop::sample::select(destinations.to_vec()),
            1 => Just(format!("/topic/typing/{CLOSED_ROOM}")),
            1 => Just("/nowhere".to_owned())
        ];
        let call = prop_oneof![12 => prop::sample::select(vec!["/app/chat", "/app/read"]), 1 => Just("/queue/a")];
        let headers = prop_oneof![
            16 => Just(""),
            4 => Just("x-from-seq:3\nx-epoch:e\n"),
            4 => Just("ack:client\n"),
            1 => Just("accept-event-v:9\n")
        ];
        let body = prop_oneof![Just("{}"), Just("\n\nACK"), Just("안녕")];
        let rare = prop::sample::select(vec![
            "DISCONNECT\n",
            "BEGIN\ntransaction:1\n",
            "CONNECT\n",
            "HELLO\n",
            "ACK\n",
            "SEND\na:\\x\n",
        ]);
        let frame = prop_oneof![
            6 => (id.clone(), room, headers).prop_map(|(id, room, headers)| {
                (format!("SUBSCRIBE\nid:{id}\ndestination:{room}\n{headers}"), "")
            }),
            6 => (call, body).prop_map(|(call, body)| (format!("SEND\ndestination:{call}\n"), body)),
            4 => id.prop_map(|id| (format!("UNSUBSCRIBE\nid:{id}\n"), "")),
            2 => Just(("ACK\nid:s\\c1\nmessage-id:1\nsubscription:1\n".to_owned(), "")),
            1 => rare.prop_map(|head| (head.to_owned(), "")),
        ];
        let frame = (frame, any::<bool>(), "(\r?\n){0,2}");
        prop::collection::vec(frame, 0..16).prop_map(|frames| {
            let mut text = String::new();
            for (number, ((head, body), with_receipt, between)) in frames.into_iter().enumerate() {
                let receipt = if with_receipt { format!("receipt:r{number}\n") } else { String::new() };
                text += &format!("{head}{receipt}\n{body}\0{between}");
            }
            text
        })
    }

    fn connects() -> impl Strategy<Value = String> {
        let first = ["CONNECT", "STOMP"].map(|command| {
            [",1.1", "", ",9"].map(|more| format!("{command}\naccept-version:1.0{more},1.2\npasscode:t\n\n\0")).to_vec()
        });
        let rare = [
            "CONNECT\n\n\0",
            "CONNECT\naccept-version:1.1\n\n\0",
            "CONNECT\naccept-version:9\n\n\0",
            "CONNECT\npasscode:bad\n\n\0",
            "",
        ];
        prop_oneof![
            6 => prop::sample::select(first.concat()),
            3 => prop::sample::select(rare.to_vec()).prop_map(str::to_owned)
        ]
    }

    /// What a driver executes for bytes that arrive in pieces of these sizes, again and again. One that answers later
    /// does so after each piece for which `answers_after` has an entry that is true.
    fn executed(bytes: &[u8], sizes: &[usize], answers: Answers, answers_after: &[bool]) -> Driver {
        let now = Instant::now();
        let mut driver = Driver::new(session(now), now, answers);
        let (mut rest, mut answers_after) = (bytes, answers_after.iter().cycle());
        for &size in sizes.iter().cycle() {
            let (piece, later) = rest.split_at(size.min(rest.len()));
            driver.read(piece);
            if answers_after.next() == Some(&true) {
                driver.answer_all();
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        driver.answer_all();
        driver
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        /// A driver executes the same, wherever the client's bytes are cut.
        #[test]
        fn cuts_do_not_change_what_is_executed(
            connect in connects(), frames in frames(), sizes in prop::collection::vec(1..60usize, 1..8)
        ) {
            let bytes = connect + &frames;
            let whole = executed(bytes.as_bytes(), &[bytes.len().max(1)], Answers::AtOnce, &[]);
            for sizes in [&sizes[..], &[1]] {
                let pieces = executed(bytes.as_bytes(), sizes, Answers::AtOnce, &[]);
                prop_assert_eq!(&whole.executed, &pieces.executed, "{}", bytes);
                prop_assert_eq!(whole.is_closed, pieces.is_closed);
            }
        }

        /// Late answers change the order, but not what is executed, and no receipt is lost or written twice. A refused
        /// subscription is the exception: frames that were executed before its late answer would not have been.
        #[test]
        fn late_answers_lose_nothing(
            connect in connects(),
            frames in frames(),
            sizes in prop::collection::vec(1..200usize, 1..8),
            answers_after in prop::collection::vec(any::<bool>(), 1..8),
        ) {
            let bytes = connect + &frames.replace(CLOSED_ROOM, ROOM);
            let mut at_once = executed(bytes.as_bytes(), &[bytes.len().max(1)], Answers::AtOnce, &[]);
            let mut later = executed(bytes.as_bytes(), &sizes, Answers::Later, &answers_after);
            prop_assert_eq!(at_once.is_closed, later.is_closed);
            if later.is_closed {
                prop_assert_eq!(at_once.executed.last(), later.executed.last());
            }
            for (_, number) in later.executed.iter().filter_map(|line| line.split_once("Some(\"r")) {
                let receipt = receipt(&format!("r{}", number.trim_end_matches("\")")));
                prop_assert_eq!(later.executed.iter().filter(|&line| *line == receipt).count(), 1);
            }
            at_once.executed.sort();
            later.executed.sort();
            prop_assert_eq!(at_once.executed, later.executed, "{}", bytes);
        }

        /// No bytes cause a panic, and Close is last.
        #[test]
        fn bytes_are_survived(
            connect in connects(),
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            frames in frames(),
            at in any::<prop::sample::Index>(),
        ) {
            let mut script = (connect + &frames).into_bytes();
            let at = at.index(script.len() + 1);
            script.splice(at..at, bytes);
            let driver = executed(&script, &[17], Answers::AtOnce, &[]);
            let closes = driver.executed.iter().filter(|line| line.starts_with("close ")).count();
            prop_assert_eq!(closes, usize::from(driver.is_closed));
        }
    }
}
