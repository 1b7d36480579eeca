//! Messages: intake, contents, webhook messages, sealing and erasure.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use data_encoding::BASE64;
use sqlx::PgPool;

use super::keys::{MessageColumns, key};
use super::{Conn, Db, parse_word};
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::delivery::{DeliveryKey, Status};
use crate::model::lane::{Lane, Priority};
use crate::model::message::{Detail, Message, NewMessage};
use crate::model::retry::WEBHOOK_ATTEMPTS;

/// A message to insert, with everything that the request does not say.
pub struct NewMessageRow {
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub shard: i16,
    pub fingerprint: [u8; 32],
    /// Hash of its idempotency key, if it has one (see `store::idempotency`).
    pub key_hash: Option<[u8; 32]>,
    pub created_at: DateTime<Utc>,
    /// Of each delivery, in their order.
    pub max_attempts: Vec<i16>,
    /// Of each delivery, in their order.
    pub lanes: Vec<Lane>,
    /// Id of the webhook message of its acceptance; used if an endpoint subscribes to it.
    pub webhook_message_id: Tsid,
    /// Lane of that webhook.
    pub webhook_lane: Lane,
    /// The column `messages.detail`, from `encode_detail`.
    pub detail: String,
    pub message: NewMessage,
}

/// A message that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InsertedMessage {
    pub message_id: Tsid,
    /// An endpoint subscribes to 'message.accepted', so a webhook was written.
    pub has_subscribers: bool,
}

/// The columns of messages and deliveries to insert, as the statements take them: one array each.
struct Columns {
    shards: Vec<i16>,
    message_ids: Vec<i64>,
    partner_ids: Vec<i64>,
    client_msg_ids: Vec<Option<String>>,
    fingerprints: Vec<Vec<u8>>,
    kinds: Vec<String>,
    priorities: Vec<String>,
    details: Vec<String>,
    created_at: Vec<DateTime<Utc>>,
    scheduled_at: Vec<Option<DateTime<Utc>>>,
    expires_at: Vec<Option<DateTime<Utc>>>,
    /// From here on one each per delivery: the position of its message, from 1 on.
    positions: Vec<i64>,
    nos: Vec<i16>,
    lanes: Vec<i16>,
    contents: Vec<i16>,
    max_attempts: Vec<i16>,
    recipients: Vec<String>,
    recipients_as_given: Vec<Option<String>>,
    have_fallback: Vec<bool>,
}

/// Sorts messages by their keys, in which order the statements insert them: two groups then cannot deadlock.
fn sorted<'a>(inserts: &[&'a NewMessageRow]) -> Vec<&'a NewMessageRow> {
    let mut sorted = inserts.to_vec();
    sorted.sort_by_key(|i| (i.shard, i.partner_id, i.message.client_msg_id.as_deref()));
    sorted
}

impl Columns {
    fn of(inserts: &[&NewMessageRow]) -> Columns {
        let deliveries = || (1i64..).zip(inserts).flat_map(|(n, i)| i.message.deliveries.iter().map(move |d| (n, d)));
        Columns {
            shards: inserts.iter().map(|i| i.shard).collect(),
            message_ids: inserts.iter().map(|i| i.message_id.0).collect(),
            partner_ids: inserts.iter().map(|i| i.partner_id.0).collect(),
            client_msg_ids: inserts.iter().map(|i| i.message.client_msg_id.clone()).collect(),
            fingerprints: inserts.iter().map(|i| i.fingerprint.to_vec()).collect(),
            kinds: inserts.iter().map(|i| i.message.kind.clone()).collect(),
            priorities: inserts.iter().map(|i| i.message.priority.as_str().to_owned()).collect(),
            details: inserts.iter().map(|i| i.detail.clone()).collect(),
            created_at: inserts.iter().map(|i| i.created_at).collect(),
            scheduled_at: inserts.iter().map(|i| i.message.scheduled_at).collect(),
            expires_at: inserts.iter().map(|i| i.message.expires_at).collect(),
            positions: deliveries().map(|(n, _)| n).collect(),
            nos: inserts.iter().flat_map(|i| (1..).take(i.message.deliveries.len())).collect(),
            lanes: inserts.iter().flat_map(|i| i.lanes.iter().map(|lane| lane.0)).collect(),
            contents: deliveries().map(|(_, d)| d.content).collect(),
            max_attempts: inserts.iter().flat_map(|i| i.max_attempts.iter().copied()).collect(),
            recipients: deliveries().map(|(_, d)| d.to.clone()).collect(),
            recipients_as_given: deliveries().map(|(_, d)| d.recipient_as_given.clone()).collect(),
            have_fallback: deliveries().map(|(_, d)| d.has_fallback).collect(),
        }
    }
}

/// Inserts messages with their deliveries and idempotency keys, ready from `now` on, if no partner of theirs has
/// endpoints or erased keys: then nothing but that has to be written, which costs less than `insert`. Returns those
/// written; a message that is missing from the result had its key taken. If none was written, a partner may have
/// endpoints or erased keys, and `insert` has to be called.
///
/// # Errors
/// As `insert`.
pub async fn insert_plain(
    db: impl Db<'_>,
    inserts: &[&NewMessageRow],
    now: DateTime<Utc>,
) -> Result<Vec<InsertedMessage>> {
    let inserts = sorted(inserts);
    let c = Columns::of(&inserts);
    let written = sqlx::query_file_scalar!(
        "sql/message/insert_plain.sql",
        &c.shards,
        &c.message_ids,
        &c.partner_ids,
        &c.client_msg_ids as &[Option<String>],
        &c.fingerprints,
        &c.kinds,
        &c.priorities,
        &c.details,
        &c.created_at,
        &c.scheduled_at as &[Option<DateTime<Utc>>],
        &c.expires_at as &[Option<DateTime<Utc>>],
        &c.positions,
        &c.nos,
        &c.lanes,
        &c.contents,
        &c.max_attempts,
        &c.recipients,
        now,
        &c.recipients_as_given as &[Option<String>],
        &c.have_fallback,
    )
    .fetch_all(db)
    .await?;
    Ok(written.into_iter().map(|id| InsertedMessage { message_id: Tsid(id), has_subscribers: false }).collect())
}

/// Those of the messages' partners for which `insert_plain` writes nothing.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn full_insert_partners(db: impl Db<'_>, inserts: &[&NewMessageRow]) -> Result<Vec<Tsid>> {
    let mut partners: Vec<(i64, i16)> = inserts.iter().map(|i| (i.partner_id.0, i.shard)).collect();
    partners.sort_unstable();
    partners.dedup();
    let (ids, shards): (Vec<i64>, Vec<i16>) = partners.into_iter().unzip();
    let found = sqlx::query_file_scalar!("sql/message/full_insert_partners.sql", &ids, &shards).fetch_all(db).await?;
    Ok(found.into_iter().map(Tsid).collect())
}

/// Inserts messages with their deliveries, idempotency keys and webhooks, ready from `now` on. Returns those written; a
/// message that is missing from the result had its key taken.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. All were written, or none;
/// outside a transaction they may have been.
pub async fn insert(db: impl Db<'_>, inserts: &[&NewMessageRow], now: DateTime<Utc>) -> Result<Vec<InsertedMessage>> {
    let inserts = sorted(inserts);
    let c = Columns::of(&inserts);
    let written = sqlx::query_file!(
        "sql/message/insert.sql",
        &c.shards,
        &c.message_ids,
        &c.partner_ids,
        &c.client_msg_ids as &[Option<String>],
        &c.fingerprints,
        &c.kinds,
        &c.priorities,
        &c.details,
        &c.created_at,
        &c.scheduled_at as &[Option<DateTime<Utc>>],
        &c.expires_at as &[Option<DateTime<Utc>>],
        &c.positions,
        &c.nos,
        &c.lanes,
        &c.contents,
        &c.max_attempts,
        &c.recipients,
        now,
        &c.recipients_as_given as &[Option<String>],
        &inserts.iter().map(|i| i.webhook_message_id.0).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.webhook_lane.0).collect::<Vec<_>>(),
        WEBHOOK_ATTEMPTS,
        &c.have_fallback,
        &inserts.iter().map(|i| i.key_hash.map(|hash| hash.to_vec())).collect::<Vec<_>>() as &[Option<Vec<u8>>],
    )
    .fetch_all(db)
    .await?;
    Ok(written
        .into_iter()
        .map(|r| InsertedMessage { message_id: Tsid(r.message_id), has_subscribers: r.has_subscribers })
        .collect())
}

/// A message that reports an event to endpoints.
pub struct NewWebhookMessage {
    pub shard: i16,
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub event: String,
    pub priority: Priority,
    pub lane: Lane,
    /// The column `messages.detail`, from `encode_detail`.
    pub detail: String,
    /// The message reported on; its own id if the event is about no message.
    pub about: Tsid,
    /// To this endpoint alone, whether it subscribes to the event or not.
    pub only_endpoint: Option<Tsid>,
}

/// Writes webhook messages, each with a delivery per endpoint that subscribes to the event. A message without such an
/// endpoint is not written. Returns the deliveries, each with its lane.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn publish(
    db: impl Db<'_>,
    all: &[NewWebhookMessage],
    now: DateTime<Utc>,
) -> Result<Vec<(DeliveryKey, Lane)>> {
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
        &all.iter().map(|n| n.only_endpoint.map(|id| id.0)).collect::<Vec<_>>() as &[Option<i64>],
        now,
        WEBHOOK_ATTEMPTS,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (key(r.shard, r.message_id, r.no), Lane(r.lane))).collect())
}

/// What event payloads say about the message they report on.
pub struct ReportedMessage {
    /// The message's type.
    pub kind: String,
    pub client_msg_id: Option<String>,
    /// A partner posted it; false: it is a webhook message.
    pub is_message: bool,
}

/// What event payloads say about these messages (shard, id), by id. Missing messages are left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn reported_messages(db: impl Db<'_>, messages: &[(i16, Tsid)]) -> Result<HashMap<Tsid, ReportedMessage>> {
    let Some(MessageColumns { shards, ids, low, high }) = MessageColumns::of(messages.iter().copied()) else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query_file!("sql/message/reported_messages.sql", &shards, &ids, low, high).fetch_all(db).await?;
    let told = |kind, client_msg_id, is_message| ReportedMessage { kind, client_msg_id, is_message };
    Ok(rows.into_iter().map(|r| (Tsid(r.message_id), told(r.kind, r.client_msg_id, r.is_message))).collect())
}

/// A message as the sending of its deliveries needs it.
pub struct StoredMessage {
    pub partner_id: Tsid,
    /// Of a webhook message: the message reported on, or its own id if it reports on none. None: not a webhook message.
    pub about: Option<Tsid>,
    pub kind: String,
    pub detail: Detail,
    pub created_at: DateTime<Utc>,
}

/// Contents of these messages (shard, id), by id: None for a message that cannot be decoded, so that it does not fail
/// the others. A message that was sealed under a master key that is not here is left out and logged: another worker may
/// have the key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn contents(
    db: impl Db<'_>,
    keyring: &Keyring,
    messages: &[(i16, Tsid)],
) -> Result<Vec<(Tsid, Option<StoredMessage>)>> {
    let Some(MessageColumns { shards, ids, low, high }) = MessageColumns::of(messages.iter().copied()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query_file!("sql/message/contents.sql", &shards, &ids, low, high).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .filter_map(|r| {
            let detail = match decode_detail(keyring, Tsid(r.message_id), &r.detail) {
                Err(Error::Setup(why)) => {
                    tracing::error!(why, "a message is left to other workers: its content does not open here");
                    return None;
                }
                read => read.ok(),
            };
            let contents = detail.map(|detail| StoredMessage {
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

/// The event that a webhook message reports.
#[derive(Debug, Clone)]
pub struct WebhookEvent {
    pub event: String,
    /// None: the message was erased or cannot be decoded.
    pub event_id: Option<String>,
    /// The message reported on; None: the event is about no message.
    pub about: Option<Tsid>,
}

impl WebhookEvent {
    /// Reads the event from a row; `content` is the index of the delivery's content.
    pub(super) fn read(
        keyring: &Keyring,
        message_id: Tsid,
        about: Tsid,
        kind: String,
        detail: &str,
        content: i16,
    ) -> WebhookEvent {
        let detail = decode_detail(keyring, message_id, detail).ok();
        let contents = detail.as_ref().map(|detail| detail.contents.as_slice()).unwrap_or_default();
        let told = usize::try_from(content).ok().and_then(|n| contents.get(n)).and_then(|c| c.event.as_ref());
        WebhookEvent {
            event: kind,
            event_id: told.map(|told| told.event_id(about)),
            about: (about != message_id).then_some(about),
        }
    }
}

/// The events of those of these messages (shard, id) that are webhook messages, by id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn webhook_events(
    db: impl Db<'_>,
    keyring: &Keyring,
    messages: &[(i16, Tsid)],
) -> Result<HashMap<Tsid, WebhookEvent>> {
    let Some(MessageColumns { shards, ids, low, high }) = MessageColumns::of(messages.iter().copied()) else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query_file!("sql/message/webhook_events.sql", &shards, &ids, low, high).fetch_all(db).await?;
    let telling = rows.into_iter().map(|r| {
        let id = Tsid(r.message_id);
        (id, WebhookEvent::read(keyring, id, Tsid(r.about), r.kind, &r.detail, 0))
    });
    Ok(telling.collect())
}

/// Encodes a detail for the column `messages.detail`: as JSON, or sealed under the current master key.
///
/// # Errors
/// `Error::Internal` if it cannot be encoded.
pub fn encode_detail(keyring: &Keyring, message_id: Tsid, detail: &Detail, sealed: bool) -> Result<String> {
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

/// Decodes the column `messages.detail`.
///
/// # Errors
/// `Error::Setup` if the master key that sealed it is not here. `Error::Internal` if it is not valid.
pub fn decode_detail(keyring: &Keyring, message_id: Tsid, text: &str) -> Result<Detail> {
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

/// The only field of a detail that is stored as text, because `jsonb` rewrites some numbers (100 for 1e2).
const AS_POSTED: &str = "as_posted";
const AS_POSTED_HEAD: &str = "{\"as_posted\": ";

/// How PostgreSQL prints an object with this one field.
const SEALED: &str = "{\"sealed\": ";

/// Whether a detail is sealed.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(SEALED)
}

/// Whether a sealed detail is sealed under the current master key.
pub fn is_sealed_with_current_key(keyring: &Keyring, text: &str) -> bool {
    keyring.is_fresh(&sealed_bytes(text))
}

fn sealed_bytes(text: &str) -> Vec<u8> {
    let sealed = text.strip_prefix(SEALED).unwrap_or_default().trim_matches(['"', '}']);
    BASE64.decode(sealed.as_bytes()).unwrap_or_default()
}

fn place(message_id: Tsid) -> String {
    format!("messages|detail|{message_id}")
}

/// Whether sealed contents open with the master keys of this process: one answer per partner with encrypted content and
/// master key, among the partner's `newest` messages. Reads no messages if no partner has encrypted content.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn check_seals(db: &PgPool, keyring: &Keyring, newest: i64) -> Result<Vec<bool>> {
    if !sqlx::query_file_scalar!("sql/message/any_sealed.sql").fetch_one(db).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!("sql/message/sample_seals.sql", newest).fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| keyring.open(&place(Tsid(r.message_id)), &sealed_bytes(&r.detail)).is_ok()).collect())
}

/// A message whose row is locked.
pub struct LockedMessage {
    pub partner_id: Tsid,
    pub client_msg_id: Option<String>,
    pub detail: String,
}

/// Locks a message until the transaction ends. None if it does not exist.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock(tx: &mut Conn, shard: i16, message_id: Tsid) -> Result<Option<LockedMessage>> {
    let row = sqlx::query_file!("sql/message/lock.sql", shard, message_id.0).fetch_optional(tx).await?;
    Ok(row.map(|r| LockedMessage { partner_id: Tsid(r.partner_id), client_msg_id: r.client_msg_id, detail: r.detail }))
}

/// Replaces the detail of a message.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update_detail(db: impl Db<'_>, shard: i16, message_id: Tsid, detail: &str) -> Result<()> {
    sqlx::query_file!("sql/message/update_detail.sql", shard, message_id.0, detail).execute(db).await?;
    Ok(())
}

/// A message with sealed content.
pub struct SealedMessage {
    pub shard: i16,
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub detail: String,
}

/// Up to `rows` messages of a shard with sealed content and ids after `after`, by id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list_sealed(conn: &mut Conn, shard: i16, after: Tsid, rows: i64) -> Result<Vec<SealedMessage>> {
    let found = sqlx::query_file!("sql/message/list_sealed.sql", shard, after.0, rows);
    let found = found.fetch_all(conn).await?;
    let row = found.into_iter().map(|r| SealedMessage {
        shard: r.shard,
        message_id: Tsid(r.message_id),
        partner_id: Tsid(r.partner_id),
        detail: r.detail,
    });
    Ok(row.collect())
}

/// A message that still names a recipient.
pub struct EraseCandidate {
    pub message_id: Tsid,
    /// Number of its deliveries.
    pub deliveries: i64,
    /// One of its deliveries is not settled.
    pub has_unsettled: bool,
}

/// Up to `rows` messages of a partner that still name a recipient, with ids from `from` up to, not including, `below`,
/// oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn erase_candidates(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    from: Tsid,
    below: Tsid,
    rows: i64,
) -> Result<Vec<EraseCandidate>> {
    let found =
        sqlx::query_file!("sql/message/erase_candidates.sql", partner_id.0, shard, from.0, below.0, rows).fetch_all(db);
    let row = found.await?.into_iter();
    Ok(row
        .map(|r| EraseCandidate {
            message_id: Tsid(r.message_id),
            deliveries: r.deliveries,
            has_unsettled: r.has_unsettled,
        })
        .collect())
}

/// Erases contents, recipients and providers' answers of messages that are settled. The caller has locked the receipts
/// with `receipt::lock_of_messages`. Returns how many messages were changed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn erase(db: impl Db<'_>, shard: i16, ids: &[Tsid]) -> Result<i64> {
    let messages = MessageColumns::of(ids.iter().map(|id| (shard, *id)));
    let Some(MessageColumns { shards, ids, low, high }) = messages else { return Ok(0) };
    Ok(sqlx::query_file_scalar!("sql/message/erase.sql", &shards, &ids, low, high).fetch_one(db).await?)
}

/// A message of a partner. None if it does not exist or is another partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Setup` if the master key
/// that sealed it is not here. `Error::Internal` if it cannot be decoded.
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
            priority: parse_word(&r.priority, "priority")?,
            detail: decode_detail(keyring, message_id, &r.detail)?,
            created_at: r.created_at,
            scheduled_at: r.scheduled_at,
            expires_at: r.expires_at,
        })
    })
    .transpose()
}

/// Which messages to list; None does not filter.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    pub kind: Option<String>,
    pub client_msg_id: Option<String>,
    /// First and last lane of a channel.
    pub lanes: Option<(i16, i16)>,
    /// A recipient as stored, or as the partner wrote it.
    pub to: Option<String>,
    /// `to` as E.164, if it is a phone number.
    pub phone: Option<String>,
    /// `to` in lower case, if it is an e-mail address.
    pub mailbox: Option<String>,
}

/// A message as it is listed.
pub struct ListedMessage {
    pub message: Message,
    /// (chain, lane, status, attempts spent) of each delivery, by number.
    pub deliveries: Vec<(Option<i16>, Lane, Status, i16)>,
}

/// Up to `rows` messages of these partners (id and shard of each) that pass the filter, with ids below `below` and from
/// `from` on, newest first. Webhook messages are left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Setup` if the master key
/// that sealed a message is not here. `Error::Internal` if one cannot be decoded.
pub async fn list(
    db: impl Db<'_>,
    keyring: &Keyring,
    owners: &[(Tsid, i16)],
    filter: &MessageFilter,
    (below, from): (Tsid, Tsid),
    rows: i64,
) -> Result<Vec<ListedMessage>> {
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
            let statuses = r.statuses.iter().map(|s| parse_word(s, "status")).collect::<Result<Vec<Status>>>()?;
            let deliveries = r.chains.into_iter().zip(r.lanes).zip(statuses).zip(r.attempts);
            Ok(ListedMessage {
                message: Message {
                    message_id: Tsid(r.message_id),
                    partner_id: Tsid(r.partner_id),
                    client_msg_id: r.client_msg_id,
                    kind: r.kind,
                    priority: parse_word(&r.priority, "priority")?,
                    detail: decode_detail(keyring, Tsid(r.message_id), &r.detail)?,
                    created_at: r.created_at,
                    scheduled_at: r.scheduled_at,
                    expires_at: r.expires_at,
                },
                deliveries: deliveries.map(|(((chain, lane), status), n)| (chain, Lane(lane), status, n)).collect(),
            })
        })
        .collect()
}
