//! Messages.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use data_encoding::BASE64;
use sqlx::PgPool;

use super::keys::{Messages, key};
use super::{Conn, Db, word};
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::{Lane, Priority};
use crate::model::message::{Detail, Message, NewMessage};
use crate::model::retry::WEBHOOK_ATTEMPTS;

/// A message to write, with what only the hub knows of it.
pub struct Insert {
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub shard: i16,
    pub fingerprint: [u8; 32],
    /// Of its key, if it has one: see `store::idempotency`.
    pub key_hash: Option<[u8; 32]>,
    pub created_at: DateTime<Utc>,
    /// Of each delivery.
    pub max_attempts: Vec<i16>,
    /// Of each delivery, in their order.
    pub lanes: Vec<Lane>,
    /// Id of the message that tells of its acceptance, if somebody wants to hear of it …
    pub notice_id: Tsid,
    /// … and where that waits.
    pub notice_lane: Lane,
    /// What `messages.detail` will hold: `write_detail` makes it.
    pub detail: String,
    pub message: NewMessage,
}

/// A message that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub message_id: Tsid,
    /// Endpoints are told of it.
    pub heard: bool,
}

/// Writes messages with their deliveries and keys, ready from `now` on, and what is told of it. Returns those written: what
/// is missing had its key taken.
pub async fn insert(db: impl Db<'_>, inserts: &[&Insert], now: DateTime<Utc>) -> Result<Vec<Written>> {
    let deliveries = || (1i64..).zip(inserts).flat_map(|(n, i)| i.message.deliveries.iter().map(move |d| (n, i, d)));
    let written = sqlx::query_file!(
        "sql/message/insert.sql",
        &inserts.iter().map(|i| i.shard).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message_id.0).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.partner_id.0).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.client_msg_id.clone()).collect::<Vec<_>>() as &[Option<String>],
        &inserts.iter().map(|i| i.fingerprint.to_vec()).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.kind.clone()).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.priority.as_str().to_owned()).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.detail.clone()).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.created_at).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.scheduled_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &inserts.iter().map(|i| i.message.expires_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &deliveries().map(|(n, ..)| n).collect::<Vec<_>>(),
        &inserts.iter().flat_map(|i| (1..).take(i.message.deliveries.len())).collect::<Vec<i16>>(),
        &inserts.iter().flat_map(|i| i.lanes.iter().map(|lane| lane.0)).collect::<Vec<_>>(),
        &deliveries().map(|(_, _, d)| d.content).collect::<Vec<_>>(),
        &inserts.iter().flat_map(|i| i.max_attempts.iter().copied()).collect::<Vec<_>>(),
        &deliveries().map(|(_, _, d)| d.to.clone()).collect::<Vec<_>>(),
        now,
        &deliveries().map(|(_, _, d)| d.recipient_as_given.clone()).collect::<Vec<_>>() as &[Option<String>],
        &inserts.iter().map(|i| i.notice_id.0).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.notice_lane.0).collect::<Vec<_>>(),
        WEBHOOK_ATTEMPTS,
        &deliveries().map(|(_, _, d)| d.has_fallback).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.key_hash.map(|hash| hash.to_vec())).collect::<Vec<_>>() as &[Option<Vec<u8>>],
    )
    .fetch_all(db)
    .await?;
    Ok(written.into_iter().map(|r| Written { message_id: Tsid(r.message_id), heard: r.heard }).collect())
}

/// A message that tells of another, or of none but itself.
pub struct Publish {
    pub shard: i16,
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub event: String,
    pub priority: Priority,
    pub lane: Lane,
    pub detail: String,
    pub about: Tsid,
    /// To this endpoint alone, whatever it asks for.
    pub only: Option<Tsid>,
}

/// Writes those that an endpoint wants to hear of; returns their deliveries, each with its lane.
pub async fn publish(db: impl Db<'_>, all: &[Publish], now: DateTime<Utc>) -> Result<Vec<(DeliveryKey, Lane)>> {
    let rows = sqlx::query_file!(
        "sql/message/publish.sql",
        &all.iter().map(|n| n.shard).collect::<Vec<_>>(),
        &all.iter().map(|n| n.message_id.0).collect::<Vec<_>>(),
        &all.iter().map(|n| n.partner_id.0).collect::<Vec<_>>(),
        &all.iter().map(|n| n.event.clone()).collect::<Vec<_>>(),
        &all.iter().map(|n| n.priority.as_str().to_owned()).collect::<Vec<_>>(),
        &all.iter().map(|n| n.lane.0).collect::<Vec<_>>(),
        &all.iter().map(|n| n.detail.clone()).collect::<Vec<_>>(),
        &all.iter().map(|n| n.about.0).collect::<Vec<_>>(),
        &all.iter().map(|n| n.only.map(|id| id.0)).collect::<Vec<_>>() as &[Option<i64>],
        now,
        WEBHOOK_ATTEMPTS,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (key(r.shard, r.message_id, r.no), Lane(r.lane))).collect())
}

/// What is said of a message by those that tell of it.
pub struct ToldOf {
    /// Its type.
    pub kind: String,
    pub client_msg_id: Option<String>,
    /// A partner posted it.
    pub is_message: bool,
}

pub async fn told_of(db: impl Db<'_>, messages: &[(i16, Tsid)]) -> Result<HashMap<Tsid, ToldOf>> {
    let Some(Messages { shards, ids, low, high }) = Messages::of(messages.iter().copied()) else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query_file!("sql/message/told_of.sql", &shards, &ids, low, high).fetch_all(db).await?;
    let told = |kind, client_msg_id, is_message| ToldOf { kind, client_msg_id, is_message };
    Ok(rows.into_iter().map(|r| (Tsid(r.message_id), told(r.kind, r.client_msg_id, r.is_message))).collect())
}

/// What is to be sent for a message.
pub struct Contents {
    pub partner_id: Tsid,
    /// The message it tells of, if it tells of one; its own id if it tells of none.
    pub about: Option<Tsid>,
    pub kind: String,
    pub detail: Detail,
    pub created_at: DateTime<Utc>,
}

/// Contents by message; none for one that cannot be understood, so that it does not spoil the others. One that is sealed
/// under a key that is not here is left out: another worker may have it.
pub async fn contents(
    db: impl Db<'_>,
    keyring: &Keyring,
    messages: &[(i16, Tsid)],
) -> Result<Vec<(Tsid, Option<Contents>)>> {
    let Some(Messages { shards, ids, low, high }) = Messages::of(messages.iter().copied()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query_file!("sql/message/contents.sql", &shards, &ids, low, high).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .filter_map(|r| {
            let detail = match read_detail(keyring, Tsid(r.message_id), &r.detail) {
                Err(Error::Setup(why)) => {
                    tracing::error!(why, "a message cannot be sent from here");
                    return None;
                }
                read => read.ok(),
            };
            let contents = detail.map(|detail| Contents {
                partner_id: Tsid(r.partner_id),
                about: r.about.map(Tsid),
                kind: r.kind,
                detail,
                created_at: r.created_at,
            });
            Some((Tsid(r.message_id), contents))
        })
        .collect())
}

/// What a message that tells of another tells.
#[derive(Debug, Clone)]
pub struct Telling {
    pub event: String,
    /// None: what it told is erased.
    pub event_id: Option<String>,
    /// The message it tells of; none: of no message.
    pub about: Option<Tsid>,
}

impl Telling {
    /// From its row; `content` is what the delivery in question carries.
    pub(super) fn read(
        keyring: &Keyring,
        message_id: Tsid,
        about: Tsid,
        kind: String,
        detail: &str,
        content: i16,
    ) -> Telling {
        let detail = read_detail(keyring, message_id, detail).ok();
        let contents = detail.as_ref().map(|detail| detail.contents.as_slice()).unwrap_or_default();
        let told = usize::try_from(content).ok().and_then(|n| contents.get(n)).and_then(|c| c.event.as_ref());
        Telling {
            event: kind,
            event_id: told.map(|told| told.event_id(about)),
            about: (about != message_id).then_some(about),
        }
    }
}

/// What these messages tell, those that tell something.
pub async fn told(db: impl Db<'_>, keyring: &Keyring, messages: &[(i16, Tsid)]) -> Result<HashMap<Tsid, Telling>> {
    let Some(Messages { shards, ids, low, high }) = Messages::of(messages.iter().copied()) else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query_file!("sql/message/told.sql", &shards, &ids, low, high).fetch_all(db).await?;
    let telling = rows.into_iter().map(|r| {
        let id = Tsid(r.message_id);
        (id, Telling::read(keyring, id, Tsid(r.about), r.kind, &r.detail, 0))
    });
    Ok(telling.collect())
}

/// What a message says as it stands in the books: as JSON, or sealed.
pub fn write_detail(keyring: &Keyring, message_id: Tsid, detail: &Detail, sealed: bool) -> Result<String> {
    let text =
        serde_json::to_string(detail).map_err(|e| Error::Internal(format!("a message does not serialise: {e}")))?;
    if !sealed && detail.has_noncanonical_numbers() {
        return Ok(serde_json::json!({ AS_POSTED: text }).to_string());
    }
    if !sealed {
        return Ok(text);
    }
    let sealed = BASE64.encode(&keyring.seal(&place(message_id), text.as_bytes())?);
    Ok(format!("{SEALED}\"{sealed}\"}}"))
}

pub fn read_detail(keyring: &Keyring, message_id: Tsid, text: &str) -> Result<Detail> {
    let unreadable = |e: serde_json::Error| Error::Internal(format!("message {message_id} cannot be understood: {e}"));
    if text.starts_with(AS_POSTED_HEAD) {
        let kept: HashMap<String, String> = serde_json::from_str(text).map_err(unreadable)?;
        return serde_json::from_str(kept.get(AS_POSTED).map_or("", String::as_str)).map_err(unreadable);
    }
    if !is_sealed(text) {
        return serde_json::from_str(text).map_err(unreadable);
    }
    let opened = keyring.open(&place(message_id), &sealed_bytes(text))?;
    serde_json::from_slice(&opened).map_err(unreadable)
}

/// The one field of a detail that is kept as a text, because `jsonb` writes some numbers in its own way (100 for 1e2).
const AS_POSTED: &str = "as_posted";
const AS_POSTED_HEAD: &str = "{\"as_posted\": ";

/// How PostgreSQL writes an object of this one field.
const SEALED: &str = "{\"sealed\": ";

pub fn is_sealed(text: &str) -> bool {
    text.starts_with(SEALED)
}

/// Whether it is sealed under the key that seals now.
pub fn is_fresh(keyring: &Keyring, text: &str) -> bool {
    keyring.is_fresh(&sealed_bytes(text))
}

fn sealed_bytes(text: &str) -> Vec<u8> {
    let sealed = text.strip_prefix(SEALED).unwrap_or_default().trim_matches(['"', '}']);
    BASE64.decode(sealed.as_bytes()).unwrap_or_default()
}

fn place(message_id: Tsid) -> String {
    format!("messages|detail|{message_id}")
}

/// Whether sealed contents open: of each partner that has them sealed, among its newest messages, one for each master key
/// that sealed any. Where no partner has them sealed, messages are not read.
pub async fn seals(db: &PgPool, keyring: &Keyring, newest: i64) -> Result<Vec<bool>> {
    if !sqlx::query_file_scalar!("sql/message/any_sealed.sql").fetch_one(db).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!("sql/message/seals.sql", newest).fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| keyring.open(&place(Tsid(r.message_id)), &sealed_bytes(&r.detail)).is_ok()).collect())
}

/// A message held still.
pub struct Locked {
    pub partner_id: Tsid,
    pub client_msg_id: Option<String>,
    pub detail: String,
}

/// Until the transaction ends.
pub async fn lock(tx: &mut Conn, shard: i16, message_id: Tsid) -> Result<Option<Locked>> {
    let row = sqlx::query_file!("sql/message/lock.sql", shard, message_id.0).fetch_optional(tx).await?;
    Ok(row.map(|r| Locked { partner_id: Tsid(r.partner_id), client_msg_id: r.client_msg_id, detail: r.detail }))
}

/// Writes what a message says anew.
pub async fn rewrite(db: impl Db<'_>, shard: i16, message_id: Tsid, detail: &str) -> Result<()> {
    sqlx::query_file!("sql/message/rewrite.sql", shard, message_id.0, detail).execute(db).await?;
    Ok(())
}

pub struct Sealed {
    pub shard: i16,
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub detail: String,
}

/// Messages of a shard with sealed content, after one in the order of their ids.
pub async fn sealed(conn: &mut Conn, shard: i16, after: Tsid, rows: i64) -> Result<Vec<Sealed>> {
    let found = sqlx::query_file!("sql/message/sealed.sql", shard, after.0, rows);
    let found = found.fetch_all(conn).await?;
    let row = found.into_iter().map(|r| Sealed {
        shard: r.shard,
        message_id: Tsid(r.message_id),
        partner_id: Tsid(r.partner_id),
        detail: r.detail,
    });
    Ok(row.collect())
}

/// A message whose content may be erased.
pub struct Wipeable {
    pub message_id: Tsid,
    pub deliveries: i64,
    /// Something of it is not settled yet.
    pub open: bool,
}

/// A partner's messages in a range of ids that name recipients yet.
pub async fn wipeable(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    from: Tsid,
    below: Tsid,
    rows: i64,
) -> Result<Vec<Wipeable>> {
    let found = sqlx::query_file!("sql/message/wipeable.sql", partner_id.0, shard, from.0, below.0, rows).fetch_all(db);
    let row = found.await?.into_iter();
    Ok(row.map(|r| Wipeable { message_id: Tsid(r.message_id), deliveries: r.deliveries, open: r.open }).collect())
}

/// Erases what settled messages say and to whom; says how many.
pub async fn wipe(db: impl Db<'_>, shard: i16, ids: &[Tsid]) -> Result<i64> {
    let messages = Messages::of(ids.iter().map(|id| (shard, *id)));
    let Some(Messages { shards, ids, low, high }) = messages else { return Ok(0) };
    Ok(sqlx::query_file_scalar!("sql/message/wipe.sql", &shards, &ids, low, high).fetch_one(db).await?)
}

pub async fn get(
    db: impl Db<'_>,
    keyring: &Keyring,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
) -> Result<Option<Message>> {
    let row = sqlx::query_file!("sql/message/get.sql", partner_id.0, shard, message_id.0).fetch_optional(db).await?;
    row.map(|r| {
        Ok(Message {
            message_id: Tsid(r.message_id),
            partner_id: Tsid(r.partner_id),
            client_msg_id: r.client_msg_id,
            kind: r.kind,
            priority: word(&r.priority, "priority")?,
            detail: read_detail(keyring, message_id, &r.detail)?,
            created_at: r.created_at,
            scheduled_at: r.scheduled_at,
            expires_at: r.expires_at,
        })
    })
    .transpose()
}

/// Which messages to list. `below` and `from` bound the ids and so the time.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub kind: Option<String>,
    pub client_msg_id: Option<String>,
    /// First and last lane of a channel.
    pub lanes: Option<(i16, i16)>,
    /// A recipient as it is kept, or as the partner wrote it …
    pub to: Option<String>,
    /// … as E.164, if it is a phone number …
    pub phone: Option<String>,
    /// … and in small letters, if it is an e-mail address.
    pub mailbox: Option<String>,
}

pub struct Listed {
    pub message: Message,
    /// (lane, status, attempts spent) of each delivery.
    pub deliveries: Vec<(Option<i16>, Lane, Status, i16)>,
}

/// Messages of these partners (each with its shard) with ids below one and from another on.
pub async fn list(
    db: impl Db<'_>,
    keyring: &Keyring,
    owners: &[(Tsid, i16)],
    filter: &Filter,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<Listed>> {
    let found = sqlx::query_file!(
        "sql/message/list.sql",
        &owners.iter().map(|o| o.0.0).collect::<Vec<_>>(),
        &owners.iter().map(|o| o.1).collect::<Vec<_>>(),
        below.0,
        from.0,
        filter.kind.as_deref(),
        filter.client_msg_id.as_deref(),
        filter.lanes.map(|l| l.0),
        filter.lanes.map(|l| l.1),
        filter.to.as_deref(),
        rows,
        filter.phone.as_deref(),
        filter.mailbox.as_deref(),
    )
    .fetch_all(db)
    .await?;
    found
        .into_iter()
        .map(|r| {
            let statuses = r.statuses.iter().map(|s| word(s, "status")).collect::<Result<Vec<Status>>>()?;
            let deliveries = r.chains.into_iter().zip(r.lanes).zip(statuses).zip(r.attempts);
            Ok(Listed {
                message: Message {
                    message_id: Tsid(r.message_id),
                    partner_id: Tsid(r.partner_id),
                    client_msg_id: r.client_msg_id,
                    kind: r.kind,
                    priority: word(&r.priority, "priority")?,
                    detail: read_detail(keyring, Tsid(r.message_id), &r.detail)?,
                    created_at: r.created_at,
                    scheduled_at: r.scheduled_at,
                    expires_at: r.expires_at,
                },
                deliveries: deliveries.map(|(((chain, lane), status), n)| (chain, Lane(lane), status, n)).collect(),
            })
        })
        .collect()
}
