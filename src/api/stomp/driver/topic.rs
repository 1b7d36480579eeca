//! Subscriptions, and what they get from streams.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::destination::Topic;
use super::super::frame;
use super::super::session::{Action, Position, Subscribe, Subscription};
use super::super::socket::Socket;
use super::{CLOSE_AGAIN, CLOSE_SLOW, Driver, End, Feed, is_away};
use crate::api::inbox::{counts_text, item_text};
use crate::api::user_rooms::UserRooms;
use crate::error::Result;
use crate::flow;
use crate::flow::room::access::{InRoom, forbidden_for_another, is_visible};
use crate::flow::stream::OpenRoom;
use crate::http::problem::Problem;
use crate::id::Tsid;
use crate::limits;
use crate::model::stream::{EventBody, RoomEventKind, StreamEvent, StreamKey, StreamNews};
use crate::model::user::{Presence, presence_of};
use crate::store;

impl Driver {
    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Vec<Action> {
        match self.try_subscribe(subscribe).await {
            Ok(actions) => actions,
            Err(e) if is_away(&e) => {
                let problem = Problem::from(e);
                self.session.error_and_close(CLOSE_AGAIN, problem.reason(), problem.detail())
            }
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
            let actions = self.session.subscribed(subscribe, Some(&head).filter(|_| topic == Topic::Inbox));
            match topic {
                Topic::Notifications(_) if self.rooms.is_none() => {
                    let own = flow::stream::open(&self.hub, caller.key(), None).await?.listener;
                    self.rooms = Some(Box::new(UserRooms::open(&self.hub, caller.key(), own).await?));
                }
                Topic::Sync => self.heads_at = Some(Instant::now()),
                _ => (),
            }
            return Ok(actions);
        };
        let InRoom { room, .. } = flow::room::access::as_member(&self.hub, &caller, room_id).await?;
        self.live.note_rules(&room);
        let mut actions = Vec::new();
        if matches!(topic, Topic::Messages(_) | Topic::Room(_) | Topic::Status(_)) {
            let from = subscribe.from.as_ref().map(|from| (from.epoch.as_str(), from.seq));
            let opened = flow::stream::open_room(&self.hub, StreamKey::room(room.shard, room_id), from).await?;
            let OpenRoom { epoch, seq, missed, listener } = opened;
            let head = Position { epoch: epoch.to_string(), seq };
            let head = Some(&head).filter(|_| topic != Topic::Status(room_id));
            actions.extend(self.session.subscribed(subscribe, head));
            let last = subscribe.from.as_ref().map_or(seq, |from| from.seq);
            let shows_handed = topic != Topic::Status(room_id)
                && room.settings.receipts
                && i64::from(room.head.members) <= limits::PARTICIPANTS_SHOWN;
            // A member that was removed before the stream was opened gets no event of that.
            let InRoom { member, .. } = flow::room::access::as_member(&self.hub, &caller, room_id).await?;
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
                // The user may have left and come back meanwhile: it is a member now.
                Some(Ok(events)) => events.iter().for_each(|event| {
                    let _left = self.write_events(n, std::slice::from_ref(event));
                }),
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
            self.read_blocks().await?;
            if topic == Topic::Active(room_id) {
                // What changes from here on comes after it.
                self.listen_as_needed().await;
                let snapshot = self.who_is_there(room.shard, room_id).await?;
                actions.drain(..).for_each(|action| {
                    if let Action::Write(text) = action {
                        self.out.push_str(&text);
                    }
                });
                self.write_passing(&subscription, &snapshot);
            }
        }
        self.listen_as_needed().await;
        Ok(actions)
    }

    /// Who of a room is there now.
    async fn who_is_there(&self, shard: i16, room_id: Tsid) -> Result<Value> {
        let db = self.hub.store.api();
        let members = store::member::list(db, shard, room_id, Tsid(0), limits::PARTICIPANTS_SHOWN).await?;
        let keys: Vec<(i16, Tsid)> = members.iter().map(|profile| (shard, profile.member.user_id)).collect();
        let connected = flow::presence::connected(&self.hub, &keys).await?;
        let now = self.hub.clock.now();
        let users: Vec<Value> = members
            .iter()
            .filter(|profile| {
                let user_id = profile.member.user_id;
                // A connection is recorded a little after it was opened.
                (connected.contains_key(&user_id) || self.hub.connections.has_socket(user_id)) && !self.hides(user_id)
            })
            .filter(|profile| profile.shown_as != Some(Presence::Offline))
            .map(|profile| {
                let user_id = profile.member.user_id;
                let active_at = connected.get(&user_id).copied().unwrap_or(now);
                let status = presence_of(profile.shown_as, Some(active_at), now);
                json!({"userId": user_id.to_string(), "status": status.as_str(), "active": status == Presence::Online})
            })
            .collect();
        Ok(json!({"roomId": room_id.to_string(), "activeUsers": users}))
    }

    /// News of a room.
    pub(super) async fn feed(&mut self, n: usize, news: Option<StreamNews>) -> Option<End> {
        match news {
            Some(StreamNews::Events { events, .. }) => {
                if let Some((room_id, kind)) = self.write_events(n, &events) {
                    self.leave(room_id, kind).await;
                }
                None
            }
            Some(StreamNews::Reset { reason, head, .. }) => {
                let feed = &mut self.feeds[n];
                feed.last = head;
                let reset = frame::reset(&feed.epoch, feed.room_id, reason.as_str(), head);
                let (to, room_id) = (feed.subscription.clone(), feed.room_id);
                match to.topic {
                    // Statuses have no numbers that a client could miss.
                    Topic::Status(_) => self.told.retain(|(of, _), _| *of != room_id),
                    _ => self.write(&to, &reset),
                }
                None
            }
            None => Some(End { code: CLOSE_SLOW, reason: "too much waited for this connection; resume".to_owned() }),
        }
    }

    /// Statuses of an own message that another connection of the user sent.
    fn status_of_event(&mut self, to: &Arc<Subscription>, event: &StreamEvent) {
        let EventBody::Room(happened) = &event.body else { return };
        let (RoomEventKind::MessageCreated, Some(message)) = (happened.kind, &happened.message) else { return };
        let is_own = self.caller.as_ref().is_some_and(|caller| caller.user_id() == message.sender_id);
        let Some(temp_id) = message.temp_id.as_deref().filter(|_| is_own) else { return };
        let key = (message.id.room_id, message.id.seq);
        if let Some(left) = self.told.get_mut(&key) {
            *left -= 1;
            if *left == 0 {
                self.told.remove(&key);
            }
            return;
        }
        for status in frame::statuses_saved(temp_id, message.id) {
            self.write_passing(to, &status);
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
            let shows_handed = feed.shows_handed;
            let message = match subscription.topic {
                Topic::Status(_) => None,
                Topic::Messages(_) => frame::message_event(&feed.epoch, viewer, event, feed.last),
                _ => frame::room_event(&feed.epoch, room_id, viewer, event, subscription.event_version),
            };
            if let Some(message) = message {
                feed.last = event.seq;
                self.out.extend(self.session.message(&subscription, &message));
            }
            if matches!(subscription.topic, Topic::Status(_)) {
                self.status_of_event(&subscription, event);
            }
            let EventBody::Room(happened) = &event.body else { continue };
            if let (RoomEventKind::MessageCreated, Some(message)) = (happened.kind, &happened.message)
                && shows_handed
                && message.sender_id != viewer
            {
                self.hub.marks.note(shard, room_id, viewer, 0, message.no);
            }
            if happened.kind == RoomEventKind::RoomClosed && matches!(subscription.topic, Topic::Messages(_)) {
                let body = json!({"eventType": happened.kind.as_str(), "roomId": room_id.to_string()});
                self.write_passing(&subscription, &body);
            }
            if happened.kind == RoomEventKind::RoomChanged {
                self.live.forget_rules(room_id);
            }
            let leaves = matches!(happened.kind, RoomEventKind::MemberLeft | RoomEventKind::MemberRemoved);
            if leaves && happened.about == Some(viewer.0) {
                return Some((room_id, happened.kind));
            }
        }
        None
    }

    /// Ends what the connection has of a room that the user has left.
    async fn leave(&mut self, room_id: Tsid, kind: RoomEventKind) {
        let body = json!({"eventType": kind.as_str(), "roomId": room_id.to_string()});
        self.write_to(|topic| matches!(topic, Topic::Notifications(_)) || topic == Topic::Messages(room_id), &body);
        self.end_room(room_id).await;
    }

    /// Ends all subscriptions to a room.
    async fn end_room(&mut self, room_id: Tsid) {
        let of_room: Vec<Arc<Subscription>> =
            self.session.subscriptions().filter(|s| s.topic.room_id() == Some(room_id)).cloned().collect();
        of_room.iter().for_each(|subscription| self.session.end_subscription(subscription));
        self.feeds.retain(|feed| feed.room_id != room_id);
        self.live.forget(room_id);
        self.listen_as_needed().await;
    }

    fn write_inbox(&mut self, body: &Value) {
        self.write_to(|topic| topic == Topic::Inbox, body);
    }

    /// News of the user's own stream.
    pub(super) async fn own_news(&mut self, news: Option<StreamNews>, socket: &mut Socket) -> Option<End> {
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
                            // A feed ends at the event's place in the room's stream.
                            if self.feeds.iter().all(|feed| feed.room_id != *room_id) {
                                self.end_room(*room_id).await;
                            }
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

    /// Rooms of the user that have changed, and that it does not look at here. `goes_on`: false if a stream was given
    /// up.
    pub(super) async fn room_news(&mut self, goes_on: bool) -> Option<End> {
        let again = || End { code: CLOSE_AGAIN, reason: "the rooms cannot be read now; connect again".to_owned() };
        let user = self.caller.as_ref()?.key();
        let rooms = self.rooms.as_mut()?;
        if !goes_on {
            match flow::stream::open(&self.hub, user, None).await {
                Ok(opened) => rooms.join_again(opened.listener),
                Err(_) => return Some(again()),
            }
            return None;
        }
        let Ok(changed) = rooms.changes().await else { return Some(again()) };
        for room in changed.into_iter().filter(|room| !room.is_gone) {
            if !self.looks_at(room.room_id) {
                let body = json!({"eventType": "ROOM_UPDATED", "roomId": room.room_id.to_string(),
                    "unreadCount": room.unread, "unreadMentions": 0, "lastMessage": room.last_message});
                self.write_to(|topic| matches!(topic, Topic::Notifications(_)), &body);
            }
        }
        None
    }
}
