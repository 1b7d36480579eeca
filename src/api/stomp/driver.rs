//! A connection of a user: joins its session with the flows. One task does all of it, so frames are handled in their
//! order, and a client that takes nothing costs its own connection alone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use chrono::SecondsFormat;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::call::{self, Refused};
use super::destination::{AppCall, Topic};
use super::frame;
use super::session::{Action, Call, Options, Position, Session, SharedMessage, Subscribe, Subscription};
use super::socket::{Received, Socket};
use crate::api::inbox::{counts_text, item_text};
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::room::access::{InRoom, forbidden_for_another, is_visible};
use crate::flow::stream::OpenRoom;
use crate::flow::user::access;
use crate::http::problem::Problem;
use crate::hub::Hub;
use crate::hub::connections::OpenConnection;
use crate::hub::live_notes::NoteListener;
use crate::hub::streams::Listener;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::principal::Origin;
use crate::model::access::user::UserCaller;
use crate::model::live::{LiveNote, LiveWhat};
use crate::model::stream::{EventBody, RoomEventKind, StreamEvent, StreamKey, StreamNews};
use crate::store;

/// The close codes besides the session's own.
const CLOSE_AGAIN: u16 = 1012;
const CLOSE_SIGN_IN: u16 = 4401;
const CLOSE_SLOW: u16 = 4408;
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
    /// The user's own stream.
    own: Option<Listener>,
    epoch: Arc<str>,
    notes: mpsc::Receiver<LiveNote>,
    note_sender: mpsc::Sender<LiveNote>,
    listening: HashMap<Tsid, NoteListener>,
    /// Rooms that the user looks at, as it said.
    active: HashSet<Tsid>,
    nicknames: HashMap<Tsid, String>,
    /// Frames that were not sent yet.
    out: String,
    passing: u64,
    refused: (u32, Instant),
    open: Option<OpenConnection>,
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
}

enum Event {
    Received(Received),
    Feed(usize, Option<StreamNews>),
    Own(Option<StreamNews>),
    Note(LiveNote),
    Tick,
    SockJs,
    Prove,
    Expired,
    Stopping,
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

fn poll_feeds(feeds: &mut [Feed], cx: &mut Context<'_>) -> Poll<(usize, Option<StreamNews>)> {
    for (n, feed) in feeds.iter_mut().enumerate() {
        if let Poll::Ready(news) = feed.listener.poll_next(cx) {
            return Poll::Ready((n, news));
        }
    }
    Poll::Pending
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
        let (note_sender, notes) = mpsc::channel(limits::LIVE_NOTES);
        let now = Instant::now();
        Driver {
            hub,
            origin,
            caller,
            session: Session::new(now, OPTIONS.clone()),
            feeds: Vec::new(),
            own: None,
            epoch: Arc::from(""),
            notes,
            note_sender,
            listening: HashMap::new(),
            active: HashSet::new(),
            nicknames: HashMap::new(),
            out: String::new(),
            passing: 0,
            refused: (0, now),
            open: None,
        }
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self, mut socket: Socket) {
        let end = self.serve(&mut socket).await;
        let rooms: Vec<Tsid> = self.active.iter().copied().collect();
        rooms.into_iter().for_each(|room_id| self.note(room_id, LiveWhat::Active(false)));
        if let Some(End { code, reason }) = end {
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
            let until = self.until();
            let Driver { hub, session, feeds, own, notes, .. } = self;
            let event = tokio::select! {
                received = socket.receive() => Event::Received(received),
                (n, news) = poll_fn(|cx| poll_feeds(feeds, cx)) => Event::Feed(n, news),
                news = next_of(own) => Event::Own(news),
                Some(note) = notes.recv() => Event::Note(note),
                () = at(session.next_deadline()) => Event::Tick,
                () = at(Some(sockjs_at)) => Event::SockJs,
                () = at(Some(prove_at)) => Event::Prove,
                () = at(until) => Event::Expired,
                () = hub.shutdown.stopping() => Event::Stopping,
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
                Event::Feed(n, news) => self.feed(n, news),
                Event::Own(news) => self.own_news(news, socket).await,
                Event::Note(note) => {
                    self.live(note).await;
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
                Event::Stopping => {
                    // Clients come back one after another, within the time that a stopping server gives connections.
                    let within = limits::LINGER_STOPPING / 2;
                    tokio::time::sleep(within.mul_f64(rand::random())).await;
                    Some(End { code: CLOSE_AGAIN, reason: "the process is stopping; connect again".to_owned() })
                }
            };
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
                    self.listen_as_needed();
                    Vec::new()
                }
                Action::Call(call) => match self.call(&call, socket).await {
                    Ok(Done::Executed) => {
                        call.receipt.as_deref().map(|receipt| self.session.done(receipt)).unwrap_or_default()
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
        }
        None
    }

    async fn sign_in(&mut self, bearer: Option<String>) -> Vec<Action> {
        match self.begin(bearer).await {
            Ok((user_id, session_id)) => {
                let epoch = self.epoch.clone();
                self.session.connected(Instant::now(), &user_id, &session_id, &epoch)
            }
            Err(e) => {
                let problem = Problem::from(e);
                self.session.refuse_sign_in(problem.reason(), problem.detail())
            }
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
        self.open = Some(flow::presence::connect(&self.hub, key));
        Ok((key.1.to_string(), self.hub.next_id().to_string()))
    }

    fn caller(&self) -> Result<&UserCaller> {
        self.caller.as_ref().ok_or(Error::NotFound)
    }

    async fn subscribe(&mut self, subscribe: &Subscribe) -> Vec<Action> {
        match self.try_subscribe(subscribe).await {
            Ok(actions) => actions,
            Err(e) => {
                let problem = Problem::from(e);
                let detail = json!({"code": problem.code(), "reason": problem.reason(), "message": problem.detail(),
                    "destination": subscribe.subscription.destination});
                self.session.refuse_subscription(subscribe, problem.reason(), &detail.to_string())
            }
        }
    }

    async fn try_subscribe(&mut self, subscribe: &Subscribe) -> Result<Vec<Action>> {
        let subscription = subscribe.subscription.clone();
        let caller = self.caller()?.clone();
        let topic = subscription.topic;
        let Some(room_id) = topic.room_id() else {
            if let Topic::Notifications(Some(user_id)) = topic
                && user_id != caller.user_id()
            {
                return Err(forbidden_for_another());
            }
            let head = Position { epoch: self.epoch.to_string(), seq: 0 };
            return Ok(self.session.subscribed(subscribe, Some(&head).filter(|_| topic == Topic::Inbox)));
        };
        let InRoom { room, member } = flow::room::access::as_member(&self.hub, &caller, room_id).await?;
        let mut actions = Vec::new();
        if matches!(topic, Topic::Messages(_) | Topic::Room(_)) {
            let from = subscribe.from.as_ref().map(|from| (from.epoch.as_str(), from.seq));
            let opened = flow::stream::open_room(&self.hub, StreamKey::room(room.shard, room_id), from).await?;
            let OpenRoom { epoch, seq, missed, listener } = opened;
            let head = Position { epoch: epoch.to_string(), seq };
            actions.extend(self.session.subscribed(subscribe, Some(&head)));
            let last = subscribe.from.as_ref().map_or(seq, |from| from.seq);
            let shows_handed = room.settings.receipts && i64::from(room.head.members) <= limits::PARTICIPANTS_SHOWN;
            let from_no = member.from_no;
            self.feeds.push(Feed { subscription, room_id, epoch, from_no, shows_handed, last, listener });
            // The answer comes before what was missed.
            actions.drain(..).for_each(|action| {
                if let Action::Write(text) = action {
                    self.out.push_str(&text);
                }
            });
            let n = self.feeds.len() - 1;
            match missed {
                Some(Ok(events)) => {
                    let _removed = self.write_events(n, &events);
                }
                Some(Err(reason)) => {
                    let feed = &self.feeds[n];
                    let reset = frame::reset(&feed.epoch, room_id, reason.as_str(), seq);
                    let to = feed.subscription.clone();
                    self.write(&to, &reset);
                }
                None => (),
            }
        } else {
            actions.extend(self.session.subscribed(subscribe, None));
            if topic == Topic::Active(room_id) {
                let snapshot = self.who_is_there(room.shard, room_id).await?;
                actions.drain(..).for_each(|action| {
                    if let Action::Write(text) = action {
                        self.out.push_str(&text);
                    }
                });
                self.write_passing(&subscription, &snapshot);
            }
        }
        self.listen_as_needed();
        Ok(actions)
    }

    /// Who of a room is there now.
    async fn who_is_there(&self, shard: i16, room_id: Tsid) -> Result<Value> {
        let db = self.hub.store.api();
        let members = store::member::list(db, shard, room_id, Tsid(0), limits::PARTICIPANTS_SHOWN).await?;
        let keys: Vec<(i16, Tsid)> = members.iter().map(|profile| (shard, profile.member.user_id)).collect();
        let connected = flow::presence::connected(&self.hub, &keys).await?;
        let users: Vec<Value> = members
            .iter()
            .filter(|profile| connected.contains_key(&profile.member.user_id))
            .map(|profile| {
                let status = profile.shown_as.map_or("ONLINE", crate::model::user::Presence::as_str);
                json!({"userId": profile.member.user_id.to_string(), "status": status, "active": status != "OFFLINE"})
            })
            .collect();
        Ok(json!({"roomId": room_id.to_string(), "activeUsers": users}))
    }

    /// Listens to the notes of the rooms that a subscription shows.
    fn listen_as_needed(&mut self) {
        let needed: HashSet<Tsid> = self
            .session
            .subscriptions()
            .filter(|s| matches!(s.topic, Topic::Messages(_) | Topic::Typing(_) | Topic::Active(_)))
            .filter_map(|s| s.topic.room_id())
            .collect();
        self.listening.retain(|room_id, _| needed.contains(room_id));
        for room_id in needed {
            let (notes, to) = (&self.hub.live_notes, &self.note_sender);
            self.listening.entry(room_id).or_insert_with(|| notes.listen(room_id, to.clone()));
        }
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

    /// News of a room.
    fn feed(&mut self, n: usize, news: Option<StreamNews>) -> Option<End> {
        match news {
            Some(StreamNews::Events { events, .. }) => {
                if let Some((room_id, kind)) = self.write_events(n, &events) {
                    self.leave(room_id, kind);
                }
                None
            }
            Some(StreamNews::Reset { reason, head, .. }) => {
                let feed = &mut self.feeds[n];
                feed.last = head;
                let reset = frame::reset(&feed.epoch, feed.room_id, reason.as_str(), head);
                let to = feed.subscription.clone();
                self.write(&to, &reset);
                None
            }
            None => Some(End { code: CLOSE_SLOW, reason: "too much waited for this connection; resume".to_owned() }),
        }
    }

    /// Writes events of a room to one subscription. Returns the room if the user has left it with one of them.
    fn write_events(&mut self, n: usize, events: &[Arc<StreamEvent>]) -> Option<(Tsid, RoomEventKind)> {
        let Some(caller) = &self.caller else { return None };
        let (viewer, shard) = (caller.user_id(), caller.shard());
        for event in events {
            let feed = &mut self.feeds[n];
            let (room_id, subscription) = (feed.room_id, feed.subscription.clone());
            if !is_visible(event, feed.from_no) {
                continue;
            }
            let message = match subscription.topic {
                Topic::Messages(_) => frame::message_event(&feed.epoch, viewer, event, feed.last),
                _ => frame::room_event(&feed.epoch, room_id, viewer, event, subscription.event_version),
            };
            if let Some(message) = message {
                feed.last = event.seq;
                self.out.extend(self.session.message(&subscription, &message));
            }
            let EventBody::Room(happened) = &event.body else { continue };
            if let (RoomEventKind::MessageCreated, Some(message)) = (happened.kind, &happened.message)
                && feed.shows_handed
                && message.sender_id != viewer
            {
                self.hub.marks.note(shard, room_id, viewer, 0, message.no);
            }
            let leaves = matches!(happened.kind, RoomEventKind::MemberLeft | RoomEventKind::MemberRemoved);
            if leaves && happened.about == Some(viewer.0) {
                return Some((room_id, happened.kind));
            }
        }
        None
    }

    /// Ends what the connection has of a room that the user has left.
    fn leave(&mut self, room_id: Tsid, kind: RoomEventKind) {
        let of_room: Vec<Arc<Subscription>> =
            self.session.subscriptions().filter(|s| s.topic.room_id() == Some(room_id)).cloned().collect();
        of_room.iter().for_each(|subscription| self.session.end_subscription(subscription));
        self.feeds.retain(|feed| feed.room_id != room_id);
        self.active.remove(&room_id);
        self.listen_as_needed();
        let body = json!({"eventType": kind.as_str(), "roomId": room_id.to_string()});
        self.write_to(|topic| matches!(topic, Topic::Notifications(_)), &body);
    }

    /// News of the user's own stream.
    async fn own_news(&mut self, news: Option<StreamNews>, socket: &mut Socket) -> Option<End> {
        match news {
            Some(StreamNews::Events { events, counts }) => {
                for event in &events {
                    let entered =
                        |word: &str, room_id: &Tsid| json!({"eventType": word, "roomId": room_id.to_string()});
                    match &event.body {
                        EventBody::ItemArrived(item) => self.write_inbox(&item_text("ITEM_ARRIVED", item)),
                        EventBody::ItemChanged(item) => self.write_inbox(&item_text("ITEM_CHANGED", item)),
                        EventBody::RoomEntered(room_id) => {
                            let body = entered("ROOM_ENTERED", room_id);
                            self.write_to(|topic| matches!(topic, Topic::Notifications(_)), &body);
                        }
                        EventBody::RoomLeft(room_id) => {
                            let body = entered("ROOM_LEFT", room_id);
                            self.write_to(|topic| matches!(topic, Topic::Notifications(_)), &body);
                        }
                        EventBody::Seen | EventBody::AllRead { .. } | EventBody::Room(_) | EventBody::Nothing => (),
                    }
                }
                if let Some(counts) = counts {
                    let epoch = self.epoch.clone();
                    self.write_inbox(&counts_text(counts, &epoch));
                }
                None
            }
            Some(StreamNews::Reset { reason, .. }) => {
                self.write_inbox(&json!({"eventType": "RESET", "reason": reason.as_str()}));
                None
            }
            // The user's tokens may be void: it proves itself anew.
            None => {
                self.own = None;
                self.prove(socket).await
            }
        }
    }

    /// Checks anew that the user may use the hub, and opens its stream if that has ended. The stream is opened first: a
    /// change that comes before it is seen by the check, and one that comes after ends the stream.
    async fn prove(&mut self, socket: &mut Socket) -> Option<End> {
        let was_open = self.own.is_some();
        match self.open_and_check().await {
            Ok(()) => None,
            // Whether it may is not known: the next time it is.
            Err(Error::Unavailable(_)) if was_open => None,
            Err(e) => {
                let problem = Problem::from(e);
                let actions = self.session.error_and_close(CLOSE_SIGN_IN, problem.reason(), problem.detail());
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

    fn write_inbox(&mut self, body: &Value) {
        self.write_to(|topic| topic == Topic::Inbox, body);
    }

    /// Something that happens now in a room.
    async fn live(&mut self, note: LiveNote) {
        let LiveNote { room_id, user_id, what } = note;
        let (room, user) = (room_id.to_string(), user_id.to_string());
        let now = self.hub.clock.now().to_rfc3339_opts(SecondsFormat::Micros, true);
        match what {
            LiveWhat::Typing(on) if self.caller.as_ref().is_some_and(|caller| caller.user_id() != user_id) => {
                let name = self.nickname(user_id).await;
                let body = json!({"roomId": room, "userId": user, "username": name, "isTyping": on, "timestamp": now});
                self.write_to(|topic| topic == Topic::Typing(room_id), &body);
            }
            LiveWhat::Typing(_) => (),
            LiveWhat::Active(on) => {
                let status = if on { "ONLINE" } else { "AWAY" };
                let body = json!({"roomId": room, "userId": user, "status": status, "active": on, "timestamp": now});
                self.write_to(|topic| topic == Topic::Active(room_id), &body);
            }
            LiveWhat::Read(seq) => {
                let body = json!({"eventType": "MESSAGE_READ", "roomId": room, "userId": user, "readBy": {&user: true},
                    "messageId": format!("{room}-{seq}"), "timestamp": now});
                self.write_to(|topic| topic == Topic::Messages(room_id), &body);
            }
        }
    }

    async fn nickname(&mut self, user_id: Tsid) -> Option<String> {
        if let Some(known) = self.nicknames.get(&user_id) {
            return Some(known.clone());
        }
        let caller = self.caller.as_ref()?;
        let (shard, partner_id) = (caller.shard(), caller.partner_id());
        let found = store::user::get(self.hub.store.api(), shard, partner_id, user_id, None).await.ok()??;
        self.nicknames.insert(user_id, found.0.nickname.clone());
        Some(found.0.nickname)
    }

    fn note(&self, room_id: Tsid, what: LiveWhat) {
        if let Some(caller) = &self.caller {
            self.hub.live_notes.note(LiveNote { room_id, user_id: caller.user_id(), what });
        }
    }

    /// Whether the user may tell others in a room something: it has a subscription there, or is a member.
    async fn check_member(&self, room_id: Tsid) -> Result<()> {
        if self.session.subscriptions().any(|s| s.topic.room_id() == Some(room_id)) {
            return Ok(());
        }
        flow::room::access::as_member(&self.hub, self.caller()?, room_id).await.map(drop)
    }

    async fn call(&mut self, call: &Call, socket: &mut Socket) -> Result<Done> {
        let caller = self.caller()?.clone();
        match call.call {
            AppCall::Chat => self.send(None, call, &caller, socket).await,
            AppCall::RoomSend(room_id) => self.send(Some(room_id), call, &caller, socket).await,
            AppCall::Read => {
                let id = call::read_mark(&call.body)?;
                flow::room::mark::read_up_to(&self.hub, &caller, id.room_id, Some(id.seq)).await?;
                Ok(Done::Executed)
            }
            AppCall::ReadAll => {
                let room_id = call::room(&call.body)?;
                flow::room::mark::read_up_to(&self.hub, &caller, room_id, None).await?;
                Ok(Done::Executed)
            }
            // Never an error, not even over the limit.
            AppCall::Typing => {
                if let Ok((room_id, on)) = call::flag(&call.body, "isTyping")
                    && self.check_member(room_id).await.is_ok()
                    && self.hub.chat_limits.typing(caller.user_id(), room_id, on, self.hub.clock.now())
                {
                    self.note(room_id, LiveWhat::Typing(on));
                }
                Ok(Done::Executed)
            }
            AppCall::Active => {
                if let Ok((room_id, on)) = call::flag(&call.body, "active")
                    && self.check_member(room_id).await.is_ok()
                {
                    let changed = if on { self.active.insert(room_id) } else { self.active.remove(&room_id) };
                    if changed {
                        self.note(room_id, LiveWhat::Active(on));
                    }
                }
                Ok(Done::Executed)
            }
            AppCall::Auth => {
                let token = call::token(&call.body)?;
                let proven = access::by_token(&self.hub, &token, self.origin.clone()).await?;
                if proven.user_id() != caller.user_id() {
                    return Err(forbidden_for_another());
                }
                self.caller = Some(proven);
                Ok(Done::Executed)
            }
        }
    }

    async fn send(
        &mut self,
        room_id: Option<Tsid>,
        call: &Call,
        caller: &UserCaller,
        socket: &mut Socket,
    ) -> Result<Done> {
        let (room_id, sent) = match call::message(room_id, &call.body) {
            Ok(read) => read,
            Err(e) => {
                let (named, temp_id) = call::whose(&call.body);
                let refused = Refused::of(e);
                if let (Some(room_id), Some(temp_id)) = (room_id.or(named), temp_id.as_deref()) {
                    self.status_failed(room_id, Some(temp_id), &refused);
                }
                self.report_refused(call, &refused, temp_id.as_deref());
                return Ok(Done::Refused);
            }
        };
        let temp_id = sent.draft.temp_id.clone();
        if sent.sender_id.as_ref().is_some_and(|id| *id != caller.user_id().to_string()) {
            let refused = Refused::of(forbidden_for_another());
            self.status_failed(room_id, temp_id.as_deref(), &refused);
            self.report_refused(call, &refused, temp_id.as_deref());
            return Ok(Done::Refused);
        }
        self.status(room_id, temp_id.as_deref(), "SENDING", None);
        // The client sees at once that its frame was right.
        if !self.out.is_empty() {
            let _gone = socket.send(std::mem::take(&mut self.out)).await;
        }
        match flow::room::send::send(&self.hub, caller, room_id, sent.draft).await {
            Ok((message, _)) => {
                let id = message.id.to_string();
                self.status(room_id, temp_id.as_deref(), "SENT_TO_KAFKA", None);
                self.status(room_id, temp_id.as_deref(), "PROCESSING", None);
                self.status(room_id, temp_id.as_deref(), "SAVED", Some(&id));
                Ok(Done::Executed)
            }
            Err(e) => {
                let refused = Refused::of(e);
                self.status_failed(room_id, temp_id.as_deref(), &refused);
                self.report_refused(call, &refused, temp_id.as_deref());
                Ok(Done::Refused)
            }
        }
    }

    /// Tells the sender how far its message is.
    fn status(&mut self, room_id: Tsid, temp_id: Option<&str>, status: &str, persisted: Option<&str>) {
        let Some(temp_id) = temp_id else { return };
        let mut body = json!({"tempId": temp_id, "status": status});
        if let Some(id) = persisted {
            body["persistedId"] = json!(id);
        }
        self.write_to(|topic| topic == Topic::Status(room_id), &body);
    }

    fn status_failed(&mut self, room_id: Tsid, temp_id: Option<&str>, refused: &Refused) {
        let body = json!({"tempId": temp_id, "status": "FAILED", "errorMessage": refused.message, "code": refused.code,
            "reason": refused.reason, "retryable": refused.retryable});
        self.write_to(|topic| topic == Topic::Status(room_id), &body);
    }

    fn report_refused(&mut self, call: &Call, refused: &Refused, temp_id: Option<&str>) {
        let body = refused.body(&call.destination, call.receipt.as_deref(), temp_id);
        self.write_to(|topic| topic == Topic::Errors, &body);
    }

    /// Tells the client that a frame was refused.
    fn refuse_call(&mut self, call: &Call, e: Error) -> Vec<Action> {
        let refused = Refused::of(e);
        self.report_refused(call, &refused, None);
        self.count_refused()
    }

    /// Counts a refused frame; ends the connection after many.
    fn count_refused(&mut self) -> Vec<Action> {
        let now = Instant::now();
        if now.duration_since(self.refused.1) > Duration::from_secs(10) {
            self.refused = (0, now);
        }
        self.refused.0 += 1;
        if self.refused.0 < REFUSED_MOST {
            return Vec::new();
        }
        self.session.error_and_close(CLOSE_FLOOD, "too_many_refused", "too many frames were refused; mend the client")
    }
}
