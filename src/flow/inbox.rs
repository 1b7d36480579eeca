//! Inbox: puts items into users' inboxes, reads them, and changes them. Each change that changes something takes the
//! next number of the user's stream; after the commit the number is noted, so that live connections get it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::{Code, Error, Refusal, Result, Unavailable, UnavailableKind};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::OperatorPermit;
use crate::model::delivery::{DeliveryKey, Outcome};
use crate::model::inbox::{COUNTED, InboxCounts, InboxItem, ItemChange, ItemText, SNOOZE_MOST};
use crate::model::retry::ErrorClass;
use crate::model::stream::{EventBody, STORED_EVENTS, StoredEvent, StreamEvent, StreamKey, StreamTail};
use crate::model::user::{User, UserState};
use crate::shutdown::may_die_at;
use crate::store::audit::AuditEntry;
use crate::store::inbox::{ItemQuery, ItemRow, NewItem, UserSeq};
use crate::store::message::StoredMessage;
use crate::store::stream::UserEvent;
use crate::store::user::WantedUser;
use crate::store::{self, Db, inbox};

use super::user;

/// A user, by shard and id.
pub type UserKey = (i16, Tsid);

/// A claimed delivery over INAPP.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub key: DeliveryKey,
    pub partner_id: Tsid,
    /// The partner's own id of the user, or the hub's.
    pub recipient: String,
    pub content: i16,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Puts items into inboxes. Users that are not known yet are made. Returns one outcome for each arrival, in their
/// order. Repeating it is safe: an item that is there stays as it is.
pub async fn put(hub: &Hub, arrivals: &[Arrival]) -> Vec<Outcome> {
    match try_put(hub, arrivals).await {
        Ok(outcomes) => outcomes,
        Err(Error::Unavailable(Unavailable { kind: UnavailableKind::Locked, .. })) => {
            // Nothing was written.
            vec![Outcome::Postponed; arrivals.len()]
        }
        Err(e) => {
            let items = arrivals.len();
            tracing::warn!(error = %e, items, "items could not be put into inboxes; they are tried again");
            let detail = "the database did not confirm the item".to_owned();
            vec![Outcome::Unknown { code: "inbox_unanswered", detail }; arrivals.len()]
        }
    }
}

async fn try_put(hub: &Hub, arrivals: &[Arrival]) -> Result<Vec<Outcome>> {
    let now = hub.clock.now();
    let db = hub.store.engine();
    let wanted = |a: &Arrival| WantedUser { shard: a.key.shard, partner_id: a.partner_id, name: a.recipient.clone() };
    let wanted: Vec<WantedUser> = arrivals.iter().map(wanted).collect();
    let users: Vec<Option<Tsid>> = user::make::find_or_create(hub, &wanted)
        .await?
        .into_iter()
        .map(|found| found.filter(|found| found.state != UserState::Deleted).map(|found| found.user_id))
        .collect();
    let items: Vec<NewItem> = arrivals
        .iter()
        .zip(&users)
        .filter_map(|(a, user)| {
            Some(NewItem { key: a.key, user_id: (*user)?, content: a.content, expires_at: a.expires_at })
        })
        .collect();
    let mut put = inbox::put(db, &items, now).await?;
    for _ in 0..limits::PUT_AGAIN {
        if put.is_some() {
            break;
        }
        put = inbox::put(db, &items, now).await?;
    }
    let Some(put) = put else { return Ok(vec![Outcome::Postponed; arrivals.len()]) };
    may_die_at("put.after_commit");
    note(hub, &put);
    let no_user = || Outcome::Rejected {
        class: ErrorClass::Address,
        code: "user_gone".into(),
        detail: "there is no such user, or it has withdrawn".into(),
        retry_after: None,
    };
    Ok(users.iter().map(|user| if user.is_some() { Outcome::Arrived } else { no_user() }).collect())
}

fn note(hub: &Hub, heads: &[UserSeq]) {
    hub.streams.note(heads.iter().map(|head| (StreamKey::user(head.shard, head.user_id), head.seq)));
}

/// The counts of a user's inbox.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn counts(hub: &Hub, user: UserKey) -> Result<InboxCounts> {
    let all = counts_of(hub, hub.store.api(), &[user]).await?;
    Ok(all.into_values().next().unwrap_or(InboxCounts { unseen: 0, unread: 0, seq: 0 }))
}

/// The counts of several users' inboxes.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn counts_of(hub: &Hub, db: impl Db<'_>, users: &[UserKey]) -> Result<HashMap<UserKey, InboxCounts>> {
    Ok(inbox::counts(db, users, hub.clock.now(), COUNTED + 1).await?.into_iter().collect())
}

/// A page of a user's inbox, the newest arrivals first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn list(hub: &Hub, user: UserKey, query: &ItemQuery) -> Result<Vec<InboxItem>> {
    let rows = inbox::list(hub.store.api(), user, query, hub.clock.now()).await?;
    let texts = texts(hub, hub.store.api(), rows.iter().map(|row| (user.0, row.message_id))).await?;
    Ok(rows.into_iter().map(|row| item(row, &texts)).collect())
}

/// A page of a user's inbox, for those who support it. An entry in the audit log says who read it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn list_for_support(
    hub: &Hub,
    permit: OperatorPermit<'_>,
    user: &User,
    query: &ItemQuery,
) -> Result<Vec<InboxItem>> {
    let entry = AuditEntry { action: "inbox.read".into(), ..user::session::audit_entry(user) };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &entry).await?;
    list(hub, (user.shard, user.user_id), query).await
}

/// Changes one item of a user, or leaves it if it is so already. Returns it as it is now.
///
/// # Errors
/// `Error::NotFound` if the user has no such item. `Error::Refused` (`snooze_invalid`) for a time that is past or too
/// far. `Error::Unavailable` if the database cannot be reached; the change may have been made.
pub async fn change(hub: &Hub, user: UserKey, id: (Tsid, i16), change: ItemChange) -> Result<InboxItem> {
    let (db, now) = (hub.store.api(), hub.clock.now());
    if let ItemChange::Snooze(until) = change
        && !(until > now && until <= now + SNOOZE_MOST)
    {
        let detail = format!("must be a time to come, at most {} days ahead", SNOOZE_MOST.num_days());
        return Err(Refusal::new(422, "snooze_invalid", detail).with_code(Code::E001).into());
    }
    let number = inbox::change(db, user, id, change, now, hub.next_id()).await?;
    note_change(hub, user, number);
    let row = inbox::get(db, user, id).await?.ok_or(Error::NotFound)?;
    let texts = texts(hub, db, [(user.0, row.message_id)].into_iter()).await?;
    Ok(item(row, &texts))
}

/// Marks all items of a user's list as read; those of one type, if `kind` names it. Returns the counts afterwards.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the change may have been made.
pub async fn read_all(hub: &Hub, user: UserKey, kind: Option<&str>) -> Result<InboxCounts> {
    let number = inbox::read_all(hub.store.api(), user, kind, hub.clock.now(), hub.next_id()).await?;
    note_change(hub, user, number);
    counts(hub, user).await
}

/// Records that a user has seen its inbox up to an arrival; up to the newest if None. Never goes backwards. Returns the
/// counts afterwards.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the change may have been made.
pub async fn see(hub: &Hub, user: UserKey, up_to: Option<i64>) -> Result<InboxCounts> {
    let number = inbox::see(hub.store.api(), user, up_to, hub.next_id()).await?;
    note_change(hub, user, number);
    counts(hub, user).await
}

fn note_change(hub: &Hub, user: UserKey, number: Option<i64>) {
    if let Some(seq) = number {
        hub.streams.note([(StreamKey::user(user.0, user.1), seq)]);
    }
}

/// Lets snoozed items arrive again whose time has come. Returns whether more may be due.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the items stay hidden until the next run.
pub async fn wake_snoozed(hub: &Hub, shards: &[i16]) -> Result<bool> {
    let now = hub.clock.now();
    let items = inbox::snoozed_due(hub.store.engine(), shards, now, limits::HOUSEKEEPING_BATCH).await?;
    if items.is_empty() {
        return Ok(false);
    }
    let mut users: Vec<UserKey> = items.iter().map(|item| (item.key.shard, item.user_id)).collect();
    users.dedup();
    let mut tx = hub.store.begin_engine().await?;
    // Locked before the statement that numbers: it sees what other transactions changed meanwhile.
    inbox::lock_heads(&mut tx, &users).await?;
    let arrived = inbox::arrive_again(&mut tx, &items, now, hub.next_id()).await?;
    tx.commit().await?;
    note(hub, &arrived);
    Ok(true)
}

/// What these users' streams hold after a number, at most `most` events of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn tails(hub: &Hub, after: &[(StreamKey, i64)], most: usize) -> Result<HashMap<StreamKey, StreamTail>> {
    let db = hub.store.engine();
    let asked: Vec<(i16, Tsid, i64)> = after.iter().map(|(key, seq)| (key.shard, key.id, *seq)).collect();
    let rows = store::stream::user_tails(db, &asked, i64::try_from(most).unwrap_or(i64::MAX)).await?;
    let with_item = rows.iter().filter_map(|row| Some((row.shard, row.event.as_ref()?.item.as_ref()?.message_id)));
    let texts = texts(hub, db, with_item).await?;
    let mut tails: HashMap<StreamKey, StreamTail> = HashMap::new();
    for row in rows {
        let tail = tails.entry(StreamKey::user(row.shard, row.user_id)).or_default();
        tail.head = row.head;
        tail.events.extend(row.event.map(|event| stream_event(event, &texts)));
    }
    Ok(tails)
}

fn stream_event(event: UserEvent, texts: &Texts) -> StreamEvent {
    let UserEvent { seq, event, detail, about, item: row } = event;
    let shown = |made: fn(Box<InboxItem>) -> EventBody| row.map(|row| made(Box::new(item(row, texts))));
    let body = if event == store::stream::ARRIVED {
        shown(EventBody::ItemArrived)
    } else {
        match STORED_EVENTS.into_iter().find(|stored| stored.as_str() == event) {
            Some(StoredEvent::ItemChanged) => shown(EventBody::ItemChanged),
            Some(StoredEvent::Seen) => Some(EventBody::Seen),
            Some(StoredEvent::AllRead) => {
                let kind = detail.as_ref().and_then(|detail| detail.get("type")?.as_str());
                Some(EventBody::AllRead { kind: kind.map(str::to_owned) })
            }
            Some(StoredEvent::RoomEntered) => about.map(EventBody::RoomEntered),
            Some(StoredEvent::RoomLeft) => about.map(EventBody::RoomLeft),
            Some(StoredEvent::ItemMoved) | None => None,
        }
    };
    StreamEvent::new(seq, body.unwrap_or(EventBody::Nothing))
}

type Texts = HashMap<Tsid, Arc<StoredMessage>>;

/// The messages of items. One that cannot be read is left out: its items are shown without a text.
async fn texts(hub: &Hub, db: impl Db<'_>, messages: impl Iterator<Item = (i16, Tsid)>) -> Result<Texts> {
    let messages: BTreeSet<(i16, Tsid)> = messages.collect();
    let messages: Vec<(i16, Tsid)> = messages.into_iter().collect();
    let found = store::message::contents(db, &hub.keyring, &messages).await?;
    Ok(found.into_iter().filter_map(|(id, message)| Some((id, Arc::new(message?)))).collect())
}

fn item(row: ItemRow, texts: &Texts) -> InboxItem {
    let text = match texts.get(&row.message_id) {
        Some(message) => ItemText::of(&message.kind, &message.detail, row.content, message.created_at),
        None => ItemText::unreadable(row.arrived_at),
    };
    InboxItem {
        message_id: row.message_id,
        no: row.no,
        seq: row.seq,
        arrived_at: row.arrived_at,
        read_at: row.read_at,
        archived_at: row.archived_at,
        snoozed_until: row.snoozed_until,
        expires_at: row.expires_at,
        is_seen: row.is_seen,
        text,
    }
}
