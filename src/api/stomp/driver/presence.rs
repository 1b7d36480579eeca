//! What happens now in rooms, and is stored nowhere: who types, who looks at a room, and who has read a message; and
//! the numbers of streams, for clients that compare them with their own.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::super::destination::Topic;
use super::Driver;
use super::live::{Live, RoomRules};
use crate::error::{Error, Result};
use crate::flow;
use crate::hub::connections::LeftRooms;
use crate::id::Tsid;
use crate::limits;
use crate::model::live::{LiveNote, LiveWhat};
use crate::model::user::Presence;
use crate::store;

impl Driver {
    /// Listens to the notes of the rooms that a subscription shows, and shows others which room the user looks at.
    pub(super) async fn listen_as_needed(&mut self) {
        let needed: HashSet<Tsid> = self
            .session
            .subscriptions()
            .filter(|s| matches!(s.topic, Topic::Messages(_) | Topic::Typing(_) | Topic::Active(_)))
            .filter_map(|s| s.topic.room_id())
            .collect();
        let Live { listening, sender, .. } = &mut self.live;
        listening.retain(|room_id, _| needed.contains(room_id));
        let new: Vec<Tsid> = needed.into_iter().filter(|room_id| !listening.contains_key(room_id)).collect();
        for room_id in &new {
            listening.insert(*room_id, self.hub.live_notes.listen(*room_id, sender.clone()));
        }
        self.show_active(&new).await;
    }

    /// Shows the others in a room that the user is there, and whether it looks at the room. `asks`: they show
    /// themselves, too.
    async fn announce(&mut self, room_id: Tsid, asks: bool) {
        if !self.is_invisible() && self.rules(room_id, None).await.is_ok_and(|rules| rules.presence) {
            let (on, status) = (self.live.shown.contains(&room_id), self.status());
            self.note(room_id, LiveWhat::Active { on, status, asks });
        }
    }

    /// Answers those who came lately.
    pub(super) async fn answer_asked(&mut self) {
        self.live.answer_at = None;
        for room_id in std::mem::take(&mut self.live.asked) {
            self.announce(room_id, false).await;
        }
    }

    /// What others see of the user while it is connected.
    fn status(&self) -> Presence {
        self.caller.as_ref().and_then(|caller| caller.user.shown_as).unwrap_or(Presence::Online)
    }

    /// Whether the user looks at a room on this connection.
    pub(super) fn looks_at(&self, room_id: Tsid) -> bool {
        let is_open = |topic| matches!(topic, Topic::Messages(of) | Topic::Room(of) if of == room_id);
        self.live.shown.contains(&room_id) || self.session.subscriptions().any(|s| is_open(s.topic))
    }

    fn is_invisible(&self) -> bool {
        self.caller.as_ref().is_none_or(|caller| caller.user.shown_as == Some(Presence::Offline))
    }

    /// Shows others which rooms the user looks at: those that it named, and the one whose messages alone it subscribes
    /// to. A user that chose OFFLINE is not shown.
    /// `new`: rooms that the connection has just come to, where others show themselves in turn.
    pub(super) async fn show_active(&mut self, new: &[Tsid]) {
        let opened: HashSet<Tsid> = self
            .session
            .subscriptions()
            .filter(|s| matches!(s.topic, Topic::Messages(_)))
            .filter_map(|s| s.topic.room_id())
            .collect();
        let mut wanted: HashSet<Tsid> =
            self.live.said.iter().filter(|(_, on)| **on).map(|(room_id, _)| *room_id).collect();
        wanted.extend(opened.iter().filter(|_| opened.len() == 1).filter(|of| !self.live.said.contains_key(of)));
        if self.is_invisible() {
            wanted.clear();
        }
        for room_id in wanted.clone() {
            if !self.rules(room_id, None).await.is_ok_and(|rules| rules.presence) {
                wanted.remove(&room_id);
            }
        }
        let before = std::mem::replace(&mut self.live.shown, wanted.clone());
        let status = self.status();
        let has_changed = self.live.status.replace(status).is_some_and(|before| before != status);
        let changed: Vec<Tsid> = match has_changed {
            true => self.live.listening.keys().copied().collect(),
            false => before.symmetric_difference(&wanted).copied().collect(),
        };
        for room_id in changed.into_iter().filter(|room_id| !new.contains(room_id)) {
            match status {
                Presence::Offline if has_changed => self.note(room_id, LiveWhat::Offline),
                _ => self.announce(room_id, false).await,
            }
        }
        for room_id in new {
            self.announce(*room_id, true).await;
        }
    }

    /// What a room allows, as far as the user is in it. `within`: the greatest age of what is remembered.
    async fn rules(&mut self, room_id: Tsid, within: Option<Duration>) -> Result<RoomRules> {
        if let Some((rules, read)) = self.live.rules.get(&room_id)
            && within.is_none_or(|within| read.elapsed() < within)
        {
            return Ok(*rules);
        }
        let found = flow::room::access::as_member(&self.hub, self.caller()?, room_id).await?;
        Ok(self.live.note_rules(&found.room))
    }

    /// The user types, or no longer.
    pub(super) async fn type_in(&mut self, room_id: Tsid, on: bool) -> Result<()> {
        let user_id = self.caller()?.user_id();
        let rules = self.rules(room_id, Some(limits::ROOM_RULES_KEPT)).await?;
        if rules.typing && self.hub.chat_limits.typing(user_id, room_id, on, self.hub.clock.now()) {
            self.note(room_id, LiveWhat::Typing(on));
        }
        Ok(())
    }

    /// The user says whether it looks at a room.
    pub(super) async fn look_at(&mut self, room_id: Tsid, on: bool) -> Result<()> {
        self.rules(room_id, Some(limits::ROOM_RULES_KEPT)).await?;
        self.live.said.insert(room_id, on);
        self.show_active(&[]).await;
        Ok(())
    }

    /// Shows others that the user looks at no room any more, and later that it is OFFLINE, unless it comes back.
    pub(super) fn leave_rooms(&mut self) {
        let Some(caller) = &self.caller else { return };
        let (user, status) = (caller.key(), self.status());
        for room_id in std::mem::take(&mut self.live.shown) {
            self.note(room_id, LiveWhat::Active { on: false, status, asks: false });
        }
        let shows_presence = |room_id: &Tsid| self.live.rules.get(room_id).is_some_and(|(rules, _)| rules.presence);
        let rooms: HashSet<Tsid> = self.session.subscriptions().filter_map(|s| s.topic.room_id()).collect();
        let room_ids: Vec<Tsid> = rooms.into_iter().filter(shows_presence).collect();
        if !self.is_invisible() && !room_ids.is_empty() {
            self.hub.connections.left(LeftRooms { user, room_ids, at: Instant::now() });
        }
    }

    /// Something that happens now in a room.
    pub(super) async fn live_note(&mut self, note: LiveNote) {
        let LiveNote { room_id, user_id, what } = note;
        let (room, user) = (room_id.to_string(), user_id.to_string());
        let now = self.now();
        let is_own = self.caller.as_ref().is_none_or(|caller| caller.user_id() == user_id);
        match what {
            LiveWhat::Typing(_) | LiveWhat::Active { .. } | LiveWhat::Offline if is_own => (),
            // Of two who blocked each other neither sees the other come, go or write.
            LiveWhat::Typing(_) | LiveWhat::Active { .. } | LiveWhat::Offline if self.hides(user_id) => (),
            LiveWhat::Typing(on) => {
                if self.session.subscriptions().all(|s| s.topic != Topic::Typing(room_id)) {
                    return;
                }
                match on {
                    true => self.live.typing.insert((room_id, user_id), Instant::now() + limits::TYPING_OVER),
                    false => self.live.typing.remove(&(room_id, user_id)),
                };
                self.write_typing(room_id, user_id, on).await;
            }
            LiveWhat::Active { on, status, asks } => {
                if asks {
                    self.live.asked.insert(room_id);
                    self.live.answer_at.get_or_insert_with(|| Instant::now() + limits::PRESENCE_ANSWER);
                }
                let status = status.as_str();
                let body = json!({"roomId": room, "userId": user, "status": status, "active": on, "timestamp": now});
                self.write_to(|topic| topic == Topic::Active(room_id), &body);
            }
            LiveWhat::Offline => {
                let body = json!({"roomId": room, "userId": user, "status": "OFFLINE", "active": false,
                    "lastSeenAt": now, "timestamp": now});
                self.write_to(|topic| topic == Topic::Active(room_id), &body);
            }
            LiveWhat::Read(seq) => {
                let body = json!({"eventType": "MESSAGE_READ", "roomId": room, "userId": user, "readBy": {&user: true},
                    "messageId": format!("{room}-{seq}"), "timestamp": now});
                self.write_to(|topic| topic == Topic::Messages(room_id), &body);
            }
        }
    }

    /// Whether one of the two has blocked the other.
    pub(super) fn hides(&self, user_id: Tsid) -> bool {
        self.live.blocks.as_ref().is_some_and(|blocks| blocks.contains(&user_id))
    }

    /// Reads who has blocked the user and whom it has blocked, once something is subscribed that would show them. Read
    /// again with each proof of the user.
    pub(super) async fn read_blocks(&mut self) -> Result<()> {
        let shows = |topic| matches!(topic, Topic::Typing(_) | Topic::Active(_));
        if let Some(caller) = &self.caller
            && self.session.subscriptions().any(|s| shows(s.topic))
        {
            let blocks = store::user_block::around(self.hub.store.api(), caller.shard(), caller.user_id()).await?;
            self.live.blocks = Some(blocks.into_iter().collect());
        }
        Ok(())
    }

    fn now(&self) -> String {
        self.hub.clock.now().to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    async fn write_typing(&mut self, room_id: Tsid, user_id: Tsid, on: bool) {
        let name = self.nickname(user_id).await;
        let body = json!({"roomId": room_id.to_string(), "userId": user_id.to_string(), "username": name,
            "isTyping": on, "timestamp": self.now()});
        self.write_to(|topic| topic == Topic::Typing(room_id), &body);
    }

    /// Ends the typing of users who gave no other sign of it.
    pub(super) async fn end_typing(&mut self) {
        let now = Instant::now();
        let over: Vec<(Tsid, Tsid)> =
            self.live.typing.extract_if(|_, until| *until <= now).map(|(who, _)| who).collect();
        for (room_id, user_id) in over {
            self.write_typing(room_id, user_id, false).await;
        }
    }

    async fn nickname(&mut self, user_id: Tsid) -> Option<String> {
        if let Some(known) = self.live.nicknames.get(&user_id) {
            return Some(known.clone());
        }
        let caller = self.caller.as_ref()?;
        let (shard, partner_id) = (caller.shard(), caller.partner_id());
        let found = store::user::get(self.hub.store.api(), shard, partner_id, user_id, None).await.ok()??;
        self.live.nicknames.insert(user_id, found.0.nickname.clone());
        Some(found.0.nickname)
    }

    fn note(&self, room_id: Tsid, what: LiveWhat) {
        if let Some(caller) = &self.caller {
            self.hub.live_notes.note(LiveNote { room_id, user_id: caller.user_id(), what });
        }
    }

    /// The numbers of the streams that this connection gets, as the database has them. A client that has less, and gets
    /// nothing, resumes.
    pub(super) async fn write_heads(&mut self) {
        self.heads_at = None;
        if self.session.subscriptions().all(|s| s.topic != Topic::Sync) {
            return;
        }
        self.heads_at = Some(Instant::now() + limits::STREAM_HEADS_EVERY);
        let Some(user) = self.caller.as_ref().map(|caller| caller.key()) else { return };
        let rooms: HashSet<Tsid> = self.feeds.iter().map(|feed| feed.room_id).collect();
        let rooms: Vec<(i16, Tsid)> = rooms.into_iter().map(|room_id| (user.0, room_id)).collect();
        let db = self.hub.store.api();
        let read = async {
            let of_user = store::stream::user_heads(db, &[user]).await?;
            Ok::<_, Error>((of_user, store::stream::room_heads(db, &rooms).await?))
        };
        // The next time it can be read.
        let Ok((of_user, of_rooms)) = read.await else { return };
        let head = |stream: String, seq: i64| json!({"stream": stream, "seq": seq});
        let of_user = of_user.into_iter().map(|of| head(format!("user:{}", of.user_id), of.seq));
        let of_rooms = of_rooms.into_iter().map(|(_, room_id, seq)| head(format!("room:{room_id}"), seq));
        let heads: Vec<Value> = of_user.chain(of_rooms).collect();
        let body = json!({"epoch": *self.epoch, "heads": heads});
        self.write_to(|topic| topic == Topic::Sync, &body);
    }
}
