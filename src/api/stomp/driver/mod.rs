//! A connection of a user: joins its session with the flows. One task does all of it, so frames are handled in their
//! order, and a client that takes nothing costs its own connection alone. `topic` has subscriptions and what they get,
//! `presence` what happens now and is stored nowhere, `call` what the client sends.

mod call;
mod live;
mod presence;
mod topic;

use std::collections::{HashMap, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::destination::Topic;
use super::frame;
use super::session::{Action, Options, Session, SharedMessage, Subscription};
use super::socket::{Received, Socket};
use crate::api::user_rooms::UserRooms;
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::user::access;
use crate::http::problem::Problem;
use crate::hub::Hub;
use crate::hub::connections::OpenConnection;
use crate::hub::streams::Listener;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::principal::Origin;
use crate::model::access::user::UserCaller;
use crate::model::live::LiveNote;
use crate::model::stream::StreamNews;

use live::Live;

/// The close codes besides the session's own.
const CLOSE_TOO_LARGE: u16 = 1009;
const CLOSE_AGAIN: u16 = 1012;
const CLOSE_SLOW: u16 = 4408;
const CLOSE_TOO_MANY: u16 = 4409;
const CLOSE_FLOOD: u16 = 4429;
/// Refused frames within ten seconds that close a connection.
const REFUSED_MOST: u32 = 100;
/// How often a connection proves anew that its user may use the hub: a notice of a change may be lost.
const PROVE_EVERY: Duration = Duration::from_secs(45);
/// How often a SockJS client expects a sign of life.
const SOCKJS_EVERY: Duration = Duration::from_secs(25);

static OPTIONS: LazyLock<Arc<Options>> =
    LazyLock::new(|| Arc::new(Options::new(concat!("notihub/", env!("CARGO_PKG_VERSION")))));

/// A connection.
pub struct Driver {
    hub: Hub,
    origin: Origin,
    /// The user, once it is known.
    caller: Option<UserCaller>,
    session: Session,
    feeds: Vec<Feed>,
    /// The feed that is asked first, so that a busy room does not keep others waiting.
    first_feed: usize,
    /// The user's own stream.
    own: Option<Listener>,
    /// The user's rooms, while something is subscribed that tells of them.
    rooms: Option<Box<UserRooms>>,
    epoch: Arc<str>,
    live: Live,
    /// Own messages whose statuses were written at once: room and number of each, and how many subscriptions have to
    /// pass over its event.
    told: HashMap<(Tsid, i64), usize>,
    /// The client takes nothing, or has gone.
    is_gone: bool,
    /// Frames that were not sent yet.
    out: String,
    passing: u64,
    refused: (u32, Instant),
    open: Option<OpenConnection>,
    /// Answers when the user has opened too many others.
    displaced: Option<oneshot::Receiver<()>>,
    /// When the connection ends, because the process stops.
    ends_at: Option<Instant>,
    /// When the numbers of the streams are written again.
    heads_at: Option<Instant>,
}

/// A subscription to a room's stream.
struct Feed {
    subscription: Arc<Subscription>,
    room_id: Tsid,
    epoch: Arc<str>,
    /// The member sees messages whose number is above.
    from_no: i64,
    /// Members see to whom a message was handed.
    shows_handed: bool,
    /// The number of the last event on this topic.
    last: i64,
    listener: Listener,
}

/// How a connection ends.
struct End {
    code: u16,
    reason: String,
}

/// Whether a call was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Executed,
    /// It was refused, and the client knows.
    Refused,
    /// It was refused, and the client does not need to know.
    Ignored,
}

enum Event {
    Received(Received),
    Feed(usize, Option<StreamNews>),
    Own(Option<StreamNews>),
    /// The user's rooms are to be read anew; false: they were given up.
    Rooms(bool),
    Note(LiveNote),
    TypingOver,
    Answer,
    Heads,
    Tick,
    SockJs,
    Prove,
    Expired,
    Displaced,
    Stopping,
    Stop,
}

/// Whether the database is away or busy: the client is right, and comes again.
fn is_away(e: &Error) -> bool {
    matches!(e, Error::Unavailable(_) | Error::Busy(_))
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

fn poll_feeds(feeds: &mut [Feed], first: usize, cx: &mut Context<'_>) -> Poll<(usize, Option<StreamNews>)> {
    let all = feeds.len();
    for n in (0..all).map(|n| (first + n) % all) {
        if let Poll::Ready(news) = feeds[n].listener.poll_next(cx) {
            return Poll::Ready((n, news));
        }
    }
    Poll::Pending
}

async fn changed(rooms: &mut Option<Box<UserRooms>>) -> bool {
    match rooms {
        Some(rooms) => rooms.wait().await,
        None => pending().await,
    }
}

async fn displacement(displaced: &mut Option<oneshot::Receiver<()>>) {
    if let Some(told) = displaced
        && told.await.is_ok()
    {
        return;
    }
    pending().await
}

async fn next_of(own: &mut Option<Listener>) -> Option<StreamNews> {
    match own {
        Some(own) => own.next().await,
        None => pending().await,
    }
}

impl Driver {
    /// A connection that is open. `caller`: from the handshake, if that named the user.
    pub fn new(hub: Hub, origin: Origin, caller: Option<UserCaller>) -> Driver {
        let now = Instant::now();
        Driver {
            hub,
            origin,
            caller,
            session: Session::new(now, OPTIONS.clone()),
            feeds: Vec::new(),
            first_feed: 0,
            own: None,
            rooms: None,
            epoch: Arc::from(""),
            live: Live::default(),
            told: HashMap::new(),
            is_gone: false,
            out: String::new(),
            passing: 0,
            refused: (0, now),
            open: None,
            displaced: None,
            ends_at: None,
            heads_at: None,
        }
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self, mut socket: Socket) {
        let end = self.serve(&mut socket).await;
        self.leave_rooms();
        if let Some(End { code, reason }) = end {
            self.hub.metrics.connections_closed.with_label_values(&[&code.to_string()]).inc();
            let _sent = self.out.is_empty() || socket.send(std::mem::take(&mut self.out)).await;
            drop(self);
            socket.close(code, &reason).await;
        }
    }

    /// Returns how to close; None: the client has gone, or takes nothing.
    async fn serve(&mut self, socket: &mut Socket) -> Option<End> {
        let mut sockjs_at = Instant::now() + SOCKJS_EVERY;
        let mut prove_at = Instant::now() + PROVE_EVERY;
        loop {
            if !self.out.is_empty() {
                if !socket.send(std::mem::take(&mut self.out)).await {
                    return None;
                }
                self.session.wrote(Instant::now());
            }
            let (until, typing_over, answer_at) = (self.until(), self.live.typing_over(), self.live.answer_at);
            let Driver { hub, session, feeds, first_feed, own, rooms, live, displaced, ends_at, heads_at, .. } = self;
            let event = tokio::select! {
                received = socket.receive() => Event::Received(received),
                (n, news) = poll_fn(|cx| poll_feeds(feeds, *first_feed, cx)) => Event::Feed(n, news),
                news = next_of(own) => Event::Own(news),
                goes_on = changed(rooms) => Event::Rooms(goes_on),
                note = live.note() => Event::Note(note),
                () = at(typing_over) => Event::TypingOver,
                () = at(answer_at) => Event::Answer,
                () = at(*heads_at) => Event::Heads,
                () = at(session.next_deadline()) => Event::Tick,
                () = at(Some(sockjs_at)) => Event::SockJs,
                () = at(Some(prove_at)) => Event::Prove,
                () = at(until) => Event::Expired,
                () = displacement(displaced) => Event::Displaced,
                () = hub.shutdown.stopping(), if ends_at.is_none() => Event::Stopping,
                () = at(*ends_at) => Event::Stop,
            };
            let ended = match event {
                Event::Received(Received::Bytes(bytes)) => {
                    let actions = self.session.read(Instant::now(), &bytes);
                    let ended = self.act(actions, socket).await;
                    // Frames that came while these were handled wait in the socket.
                    self.session.reading_paused(Instant::now());
                    ended
                }
                Event::Received(Received::Nothing) => None,
                Event::Received(Received::End) => return None,
                Event::Received(Received::Broken) => {
                    Some(End { code: 4400, reason: "not a frame of SockJS".to_owned() })
                }
                Event::Received(Received::TooLarge) => {
                    let most = limits::SOCKET_MESSAGE_BYTES >> 10;
                    Some(End { code: CLOSE_TOO_LARGE, reason: format!("a message of more than {most} KiB") })
                }
                Event::Feed(n, news) => {
                    self.first_feed = n + 1;
                    self.feed(n, news).await
                }
                Event::Own(news) => self.own_news(news, socket).await,
                Event::Rooms(goes_on) => self.room_news(goes_on).await,
                Event::Note(note) => {
                    self.live_note(note).await;
                    None
                }
                Event::TypingOver => {
                    self.end_typing().await;
                    None
                }
                Event::Answer => {
                    self.answer_asked().await;
                    None
                }
                Event::Heads => {
                    self.write_heads().await;
                    None
                }
                Event::Tick => {
                    let actions = self.session.tick(Instant::now());
                    self.act(actions, socket).await
                }
                Event::SockJs => {
                    sockjs_at = Instant::now() + SOCKJS_EVERY;
                    if !socket.heart_beat().await {
                        return None;
                    }
                    None
                }
                Event::Prove => {
                    prove_at = Instant::now() + PROVE_EVERY;
                    if self.caller.is_some() { self.prove(socket).await } else { None }
                }
                Event::Expired => {
                    let actions = self.session.token_expired();
                    self.act(actions, socket).await
                }
                Event::Displaced => {
                    let n = limits::SOCKETS_OF_USER;
                    Some(End { code: CLOSE_TOO_MANY, reason: format!("the user has {n} newer connections") })
                }
                Event::Stopping => {
                    // Clients come back one after another. Until then the connection is served.
                    let grace = self.hub.settings.timing.shutdown_grace();
                    let within = limits::SOCKETS_END_OVER.min(grace / 5);
                    self.ends_at = Some(Instant::now() + within.mul_f64(rand::random()));
                    None
                }
                Event::Stop => {
                    Some(End { code: CLOSE_AGAIN, reason: "the process is stopping; connect again".to_owned() })
                }
            };
            if self.is_gone {
                return None;
            }
            if ended.is_some() {
                return ended;
            }
        }
    }

    /// When the user's token ends.
    fn until(&self) -> Option<Instant> {
        let until = self.caller.as_ref()?.until?;
        Some(Instant::now() + (until - self.hub.clock.now()).to_std().unwrap_or_default())
    }

    /// Executes actions of the session, and those that their answers lead to.
    async fn act(&mut self, actions: Vec<Action>, socket: &mut Socket) -> Option<End> {
        let mut waiting = VecDeque::from(actions);
        while let Some(action) = waiting.pop_front() {
            let more = match action {
                Action::Write(text) => {
                    self.out.push_str(&text);
                    Vec::new()
                }
                Action::Authenticate { bearer } => self.sign_in(bearer).await,
                Action::Subscribe(subscribe) => self.subscribe(&subscribe).await,
                Action::Unsubscribe(subscription) => {
                    self.feeds.retain(|feed| !Arc::ptr_eq(&feed.subscription, &subscription));
                    let shows_rooms = |topic| matches!(topic, Topic::Notifications(_));
                    if self.session.subscriptions().all(|s| !shows_rooms(s.topic)) {
                        self.rooms = None;
                    }
                    self.listen_as_needed().await;
                    Vec::new()
                }
                Action::Call(call) => match self.call(&call, socket).await {
                    Ok(done @ (Done::Executed | Done::Ignored)) => {
                        let receipt = call.receipt.as_deref();
                        let mut more = receipt.map(|receipt| self.session.done(receipt)).unwrap_or_default();
                        if done == Done::Ignored {
                            more.extend(self.count_refused());
                        }
                        more
                    }
                    // The client knows.
                    Ok(Done::Refused) => self.count_refused(),
                    Err(e) => self.refuse_call(&call, e),
                },
                // What was handed to an open connection counts as delivered without it.
                Action::Ack { .. } | Action::AwaitAnswers => Vec::new(),
                Action::Close { code, reason } => return Some(End { code, reason }),
            };
            more.into_iter().rev().for_each(|action| waiting.push_front(action));
            // One message of the client may lead to many answers: memory holds no more than one of them.
            if self.out.len() > limits::SOCKET_MESSAGE_BYTES {
                self.is_gone |= !socket.send(std::mem::take(&mut self.out)).await;
                self.session.wrote(Instant::now());
            }
            if self.is_gone {
                return None;
            }
        }
        None
    }

    async fn sign_in(&mut self, bearer: Option<String>) -> Vec<Action> {
        match self.begin(bearer).await {
            Ok((user_id, session_id)) => {
                let epoch = self.epoch.clone();
                self.session.connected(Instant::now(), &user_id, &session_id, &epoch)
            }
            Err(e) => self.end_sign_in(e),
        }
    }

    /// Ends the session of a user that may not use the hub, or of whom that cannot be read now: the client then comes
    /// again with the same token.
    fn end_sign_in(&mut self, e: Error) -> Vec<Action> {
        let (is_away, problem) = (is_away(&e), Problem::from(e));
        match is_away {
            true => self.session.error_and_close(CLOSE_AGAIN, problem.reason(), problem.detail()),
            false => self.session.refuse_sign_in(problem.reason(), problem.detail()),
        }
    }

    /// Finds the user, and opens its stream. Returns the user's id and the session's.
    async fn begin(&mut self, bearer: Option<String>) -> Result<(String, String)> {
        if let (None, Some(token)) = (&self.caller, bearer) {
            self.caller = Some(access::by_token(&self.hub, &token, self.origin.clone()).await?);
        }
        let missing = || {
            flow::sign_in::unauthenticated(
                "send Authorization: Bearer with a user's token in CONNECT, or ?token= before",
            )
        };
        let key = self.caller.as_ref().ok_or_else(missing)?.key();
        self.open_and_check().await?;
        let (open, displaced) = flow::presence::connect_socket(&self.hub, key);
        (self.open, self.displaced) = (Some(open), Some(displaced));
        Ok((key.1.to_string(), self.hub.next_id().to_string()))
    }

    fn caller(&self) -> Result<&UserCaller> {
        self.caller.as_ref().ok_or(Error::NotFound)
    }

    fn write(&mut self, to: &Arc<Subscription>, message: &SharedMessage) {
        self.out.extend(self.session.message(to, message));
    }

    fn write_passing(&mut self, to: &Arc<Subscription>, body: &Value) {
        self.passing += 1;
        let message = frame::passing(self.passing, body);
        self.write(to, &message);
    }

    /// Writes to every subscription to a topic.
    fn write_to(&mut self, is_topic: impl Fn(Topic) -> bool, body: &Value) {
        let to: Vec<Arc<Subscription>> = self.session.subscriptions().filter(|s| is_topic(s.topic)).cloned().collect();
        for subscription in to {
            self.write_passing(&subscription, body);
        }
    }

    /// Checks anew that the user may use the hub, and opens its stream if that has ended. The stream is opened first: a
    /// change that comes before it is seen by the check, and one that comes after ends the stream.
    async fn prove(&mut self, socket: &mut Socket) -> Option<End> {
        let was_open = self.own.is_some();
        match self.open_and_check().await {
            Ok(()) => {
                // What was read before goes on to hold if it cannot be read now.
                let _unavailable = self.read_blocks().await;
                self.show_active(&[]).await;
                None
            }
            // Whether it may is not known: the next time it is.
            Err(e) if was_open && is_away(&e) => None,
            Err(e) => {
                let actions = self.end_sign_in(e);
                Box::pin(self.act(actions, socket)).await
            }
        }
    }

    async fn open_and_check(&mut self) -> Result<()> {
        if self.own.is_none() {
            let key = self.caller()?.key();
            let opened = flow::stream::open(&self.hub, key, None).await?;
            (self.own, self.epoch) = (Some(opened.listener), opened.epoch);
        }
        self.caller = Some(access::again(&self.hub, self.caller()?).await?);
        Ok(())
    }
}
