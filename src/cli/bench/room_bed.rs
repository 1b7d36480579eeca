//! The users, rooms and tokens of scenarios with rooms.

use super::report::{Goal, number};
use super::run::Run;
use super::talk::{Open, Rooms, Sending, TalkProcess, Talked};
use super::testbed::{Cost, Testbed};
use crate::config::Settings;
use crate::error::Result;
use crate::flow::user::{make, session};
use crate::id::Tsid;
use crate::model::chat_message::ChatContent;
use crate::store::bench::{self, ChatFill, RoomFill};
use crate::store::user::WantedUser;
use crate::store::{self, chat_message};
use crate::worker::{self, Role};

/// Users that are made in one statement.
const USERS_AT_ONCE: usize = 1_000;
/// More than a sender writes in a second, and more than is written in a room.
pub const SENDS: u32 = 100_000;

/// A testbed with users in rooms.
pub struct RoomBed {
    pub bed: Testbed,
    pub people: People,
    /// Messages from here on are counted.
    from: Tsid,
    /// Messages that had a receipt.
    sent: u64,
    /// Deliveries that are missing or came out of order.
    wrong: u64,
    /// Connections of listeners that ended: their clients would resume.
    ended: u64,
}

/// Users in rooms, with a token each.
pub struct People {
    pub rooms: Rooms,
    /// Members of every room.
    pub senders: Vec<String>,
    /// The n-th is a member of room n, and of the first room again after the last.
    pub listeners: Vec<String>,
    sender_ids: Vec<Tsid>,
}

impl People {
    /// Makes users in rooms. Their tokens are valid for an hour.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached.
    pub async fn make(bed: &Testbed, senders: usize, listeners: usize, rooms: usize) -> Result<People> {
        let (hub, partner) = (&bed.hub, &bed.partner);
        let (shard, partner_id) = (partner.shard, partner.partner_id);
        let name = |n: usize| WantedUser { shard, partner_id, name: format!("talker-{n}") };
        let wanted: Vec<WantedUser> = (0..senders + listeners).map(name).collect();
        for some in wanted.chunks(USERS_AT_ONCE) {
            make::find_or_create(hub, some).await?;
        }
        // The newest users of the partner.
        let most = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        let users = store::user::list(hub.store.api(), shard, partner_id, Tsid(i64::MAX), None, most).await?;
        let (mut ids, mut tokens) = (Vec::new(), Vec::new());
        for user in &users {
            ids.push(user.user_id);
            tokens.push(session::access_token(hub, user, None).await?);
        }
        let (everywhere, in_turn) = ids.split_at(senders);
        let (first, count) = (hub.next_id(), i64::try_from(rooms).unwrap_or(i64::MAX));
        let mut conn = hub.store.connect_without_timeout().await?;
        let fill = RoomFill { first, rooms: count, everywhere, in_turn };
        bench::fill_rooms(&mut conn, partner, &fill, hub.clock.now()).await?;
        bench::vacuum_tables(&hub.store).await?;
        let listeners = tokens.split_off(senders);
        let rooms = Rooms { first: first.0, count: rooms };
        Ok(People { rooms, senders: tokens, listeners, sender_ids: everywhere.to_vec() })
    }
}

/// The settings of a run with limits that no sender reaches.
pub fn settings(run: &Run<'_>) -> Settings {
    let mut settings = run.settings.clone();
    (settings.rooms.user_sends, settings.rooms.room_sends) = (SENDS, SENDS);
    settings
}

impl RoomBed {
    /// Makes a testbed with so many senders in every room, and so many listeners in turn.
    ///
    /// # Errors
    /// Any error of the database or the hub; the database may stay.
    pub async fn start(run: &Run<'_>, senders: usize, listeners: usize, rooms: usize) -> Result<RoomBed> {
        let bed = Testbed::start(&settings(run), run.ground).await?;
        let people = People::make(&bed, senders, listeners, rooms).await?;
        worker::start(&bed.hub, Role::Both);
        let from = bed.hub.next_id();
        Ok(RoomBed { bed, people, from, sent: 0, wrong: 0, ended: 0 })
    }

    /// Inserts so many messages into all rooms together, two days old.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached.
    pub async fn fill(&self, run: &Run<'_>, messages: i64) -> Result<()> {
        const STEP: i64 = 100_000;
        let (hub, rooms) = (&self.bed.hub, i64::try_from(self.people.rooms.count).unwrap_or(i64::MAX).max(1));
        let mut conn = hub.store.connect_without_timeout().await?;
        let text = format!("{:x<100}", "Shall we meet at noon? ");
        let content = ChatContent { text, ..ChatContent::default() };
        let content = chat_message::encode(&hub.keyring, Tsid(0), Tsid(0), &content, false)?;
        let first = Tsid::floor(hub.clock.now() - chrono::TimeDelta::days(2));
        let (of_each, mut before) = ((messages / rooms).max(1), 0);
        while before < of_each {
            let fill = ChatFill {
                first_room: Tsid(self.people.rooms.first),
                rooms,
                before,
                of_each: (STEP / rooms).clamp(1, of_each - before),
                first: Tsid(first.0 + before * rooms),
                senders: &self.people.sender_ids,
                content: &content,
            };
            bench::fill_chat_messages(&mut conn, self.bed.partner.shard, &fill).await?;
            let made = (before + fill.of_each) * rooms;
            if made / 1_000_000 > before * rooms / 1_000_000 {
                run.say(&format!("{} messages made", number(made as f64)));
            }
            before += fill.of_each;
        }
        bench::vacuum_tables(&hub.store).await
    }

    /// The senders' connections to this hub, in a process of their own.
    ///
    /// # Errors
    /// As `TalkProcess::join`.
    pub async fn talkers(&self) -> Result<TalkProcess> {
        let mut talkers = TalkProcess::start()?;
        let (address, tokens, rooms) = (self.bed.api.clone(), self.people.senders.clone(), self.people.rooms);
        talkers.join(Open { address, tokens, rooms }).await?;
        Ok(talkers)
    }

    /// Opens the listeners' connections to a hub.
    ///
    /// # Errors
    /// As `TalkProcess::listen`.
    pub async fn listen(&self, talkers: &mut TalkProcess, address: &str) -> Result<()> {
        let (address, tokens, rooms) = (address.to_owned(), self.people.listeners.clone(), self.people.rooms);
        talkers.listen(Open { address, tokens, rooms }).await?;
        Ok(())
    }

    /// Sends messages and notes them for the account at the end.
    ///
    /// # Errors
    /// As `TalkProcess::send`.
    pub async fn send(&mut self, run: &Run<'_>, talkers: &mut TalkProcess, sending: Sending) -> Result<Talked> {
        let talked = talkers.send(sending).await?;
        self.sent += talked.sent;
        self.wrong += talked.out_of_order + if talked.ended == 0 { talked.missing } else { 0 };
        self.ended += talked.ended;
        if let Some(refusal) = &talked.refusal {
            run.say(&format!("{} messages were refused, the first one: {refusal}", talked.refused));
        }
        Ok(talked)
    }

    /// Ends the bed: compares receipts with rows, stops the hub, runs fsck, drops the database. The processes that talk
    /// have ended.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached.
    pub async fn clear(self, run: &mut Run<'_>) -> Result<()> {
        let (rows, temp_ids) = bench::count_chat_messages(&self.bed.hub.store, self.from).await?;
        // Each message has a tempId of its own.
        let (lost, doubled) = (self.sent.saturating_sub(temp_ids), rows - self.sent.min(temp_ids));
        if self.ended > 0 {
            run.figure("listeners whose connection ended", self.ended as f64, "");
        }
        run.goal("messages lost or doubled", (lost + doubled + self.wrong) as f64, "", Goal::AtMost(0.0));
        run.clear(self.bed).await
    }
}

/// What was spent between two moments, per message. `what`: the figures' names end with it.
pub fn cost(run: &mut Run<'_>, from: &Cost, to: &Cost, messages: u64, what: &str) {
    let (wall, messages) = ((to.at - from.at).as_secs_f64(), messages.max(1) as f64);
    run.figure(format!("CPU of the hub, {what}"), (to.ours_cpu_s - from.ours_cpu_s) / wall * 100.0, "% of one");
    if let (Some(before), Some(after)) = (from.pg_cpu_s, to.pg_cpu_s) {
        run.figure(format!("CPU of PostgreSQL, {what}"), (after - before) / wall * 100.0, "% of one");
    }
    run.figure(format!("WAL per message, {what}"), (to.wal_bytes - from.wal_bytes) / messages, "bytes");
    let statements = (to.transactions - from.transactions) / messages;
    run.goal(format!("statements per message, {what}"), statements, "", Goal::AtMost(0.2));
}
