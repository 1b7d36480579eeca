//! Chat messages. A content is JSON, or that JSON sealed under a master key and bound to its message.

use chrono::{DateTime, TimeDelta, Utc};
use data_encoding::BASE64;

use super::Db;
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::chat_message::{ChatContent, ChatId, ChatKind, ChatMessage};

/// A message's row from a record, whose types differ only in name.
macro_rules! row {
    ($r:expr) => {{
        let r = $r;
        ChatRow {
            shard: r.shard,
            room_id: Tsid(r.room_id),
            seq: r.seq,
            no: r.no,
            chat_id: Tsid(r.chat_id),
            sender_id: Tsid(r.sender_id),
            temp_id: r.temp_id,
            kind: r.kind,
            content: r.content,
            version: r.version,
            edited_at: r.edited_at,
            deleted_at: r.deleted_at,
        }
    }};
}

/// The row of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatRow {
    pub shard: i16,
    pub room_id: Tsid,
    pub seq: i64,
    pub no: i64,
    pub chat_id: Tsid,
    pub sender_id: Tsid,
    pub temp_id: Option<String>,
    pub kind: String,
    pub content: String,
    pub version: i16,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
}

impl ChatRow {
    /// The message's content; empty if it was deleted.
    ///
    /// # Errors
    /// `Error::Setup` if the master key that sealed it is not here. `Error::Internal` if it is not valid.
    pub fn content(&self, keyring: &Keyring) -> Result<ChatContent> {
        match self.deleted_at {
            Some(_) => Ok(ChatContent::default()),
            None => decode(keyring, self.room_id, self.chat_id, &self.content),
        }
    }

    /// The message with this content.
    pub fn with(self, content: ChatContent) -> ChatMessage {
        ChatMessage {
            id: ChatId { room_id: self.room_id, seq: self.seq },
            no: self.no,
            sender_id: self.sender_id,
            temp_id: self.temp_id,
            // A kind of a newer program has a text, too.
            kind: self.kind.parse().unwrap_or(ChatKind::Text),
            content,
            version: self.version,
            created_at: self.chat_id.time(),
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
        }
    }
}

/// Name of a sealed content: binds it to its message, so that it opens nowhere else.
fn place(room_id: Tsid, chat_id: Tsid) -> String {
    format!("chat_messages|content|{room_id}|{chat_id}")
}

/// The content of which nothing is left.
pub const EMPTY: &str = r#"{"text":""}"#;

/// How a sealed content begins; one that is not is a JSON object.
const SEALED: &str = "sealed:";

/// Encodes a content: as JSON, or sealed under the current master key.
///
/// # Errors
/// `Error::Internal` if it cannot be encoded.
pub fn encode(keyring: &Keyring, room_id: Tsid, chat_id: Tsid, content: &ChatContent, sealed: bool) -> Result<String> {
    let text = serde_json::to_string(content)
        .map_err(|e| Error::Internal(format!("a chat message does not serialise: {e}")))?;
    match sealed {
        true => Ok(format!("{SEALED}{}", BASE64.encode(&keyring.seal(&place(room_id, chat_id), text.as_bytes())?))),
        false => Ok(text),
    }
}

/// Decodes a content.
///
/// # Errors
/// `Error::Setup` if the master key that sealed it is not here. `Error::Internal` if it is not valid.
pub fn decode(keyring: &Keyring, room_id: Tsid, chat_id: Tsid, text: &str) -> Result<ChatContent> {
    let unreadable = |e: String| Error::Internal(format!("chat message {chat_id} cannot be understood: {e}"));
    let Some(sealed) = text.strip_prefix(SEALED) else {
        return serde_json::from_str(text).map_err(|e| unreadable(e.to_string()));
    };
    let sealed = BASE64.decode(sealed.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
    let opened = keyring.open(&place(room_id, chat_id), &sealed)?;
    serde_json::from_slice(&opened).map_err(|e| unreadable(e.to_string()))
}

/// A message to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChatMessage {
    pub shard: i16,
    pub room_id: Tsid,
    pub sender_id: Tsid,
    pub temp_id: Option<String>,
    pub chat_id: Tsid,
    pub kind: ChatKind,
    /// As `encode` makes it.
    pub content: String,
}

/// The numbers of a message that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub chat_id: Tsid,
    pub seq: i64,
    pub no: i64,
}

/// Writes messages, in one statement. Returns the numbers of those that were written: not of those whose sender may not
/// write. None if one of them is there already with its tempId, or two of them have one: nothing was written.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a gate for longer than the lock
/// time-out. All were written, or none; outside a transaction they may have been.
pub async fn send(db: impl Db<'_>, messages: &[&NewChatMessage], now: DateTime<Utc>) -> Result<Option<Vec<Sent>>> {
    let sent = sqlx::query_file!(
        "sql/chat_message/send.sql",
        &messages.iter().map(|m| m.shard).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.room_id.0).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.sender_id.0).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.temp_id.clone()).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|m| m.chat_id.0).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.kind.as_str().to_owned()).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.content.clone()).collect::<Vec<_>>(),
        now,
        Tsid::floor(now + TimeDelta::milliseconds(1)).0,
        Tsid::span(TimeDelta::seconds(1)),
    )
    .fetch_all(db)
    .await;
    match sent {
        Ok(rows) => {
            Ok(Some(rows.into_iter().map(|r| Sent { chat_id: Tsid(r.chat_id), seq: r.seq, no: r.no }).collect()))
        }
        // A number that is given twice would be another one.
        Err(sqlx::Error::Database(e)) if e.constraint().is_some_and(|key| key.contains("temp_id")) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Which of these messages are there already with their tempIds, or stand before in the list: their places in it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn repeated(db: impl Db<'_>, messages: &[&NewChatMessage]) -> Result<Vec<usize>> {
    let places = sqlx::query_file_scalar!(
        "sql/chat_message/repeated.sql",
        &messages.iter().map(|m| m.shard).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.room_id.0).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.sender_id.0).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.temp_id.clone()).collect::<Vec<_>>() as &[Option<String>],
    );
    Ok(places.fetch_all(db).await?.into_iter().filter_map(|place| usize::try_from(place).ok()).collect())
}

/// The message that a sender wrote with this tempId.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn find_temp(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    sender_id: Tsid,
    temp_id: &str,
) -> Result<Option<ChatRow>> {
    let row = sqlx::query_file!("sql/chat_message/find_temp.sql", shard, room_id.0, sender_id.0, temp_id);
    Ok(row.fetch_optional(db).await?.map(|r| row!(r)))
}

/// When a user last wrote in a room.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn last_sent_at(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    sender_id: Tsid,
) -> Result<Option<DateTime<Utc>>> {
    let last = sqlx::query_file_scalar!("sql/chat_message/last_of_sender.sql", shard, room_id.0, sender_id.0);
    Ok(last.fetch_optional(db).await?.map(|chat_id| Tsid(chat_id).time()))
}

/// One message.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn get(db: impl Db<'_>, shard: i16, id: ChatId) -> Result<Option<ChatRow>> {
    let row = sqlx::query_file!("sql/chat_message/get.sql", shard, id.room_id.0, id.seq).fetch_optional(db).await?;
    Ok(row.map(|r| row!(r)))
}

/// Locks a message until the transaction ends. The caller holds the lock of the room's gate.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn lock(db: impl Db<'_>, shard: i16, id: ChatId) -> Result<Option<ChatRow>> {
    let row = sqlx::query_file!("sql/chat_message/lock.sql", shard, id.room_id.0, id.seq).fetch_optional(db).await?;
    Ok(row.map(|r| row!(r)))
}

/// Up to `rows` messages of a room with a seq below `below` and a number above `from_no`, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn before(db: impl Db<'_>, room: (i16, Tsid), below: i64, from_no: i64, rows: i64) -> Result<Vec<ChatRow>> {
    let found = sqlx::query_file!("sql/chat_message/before.sql", room.0, room.1.0, below, from_no, rows);
    Ok(found.fetch_all(db).await?.into_iter().map(|r| row!(r)).collect())
}

/// Up to `rows` messages of a room with a seq above `above` and a number above `from_no`, oldest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn after(db: impl Db<'_>, room: (i16, Tsid), above: i64, from_no: i64, rows: i64) -> Result<Vec<ChatRow>> {
    let found = sqlx::query_file!("sql/chat_message/after.sql", room.0, room.1.0, above, from_no, rows);
    Ok(found.fetch_all(db).await?.into_iter().map(|r| row!(r)).collect())
}

/// Those of these messages that there are, in no particular order: (shard, room, seq) of each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn get_all(db: impl Db<'_>, keys: &[(i16, Tsid, i64)]) -> Result<Vec<ChatRow>> {
    let shards: Vec<i16> = keys.iter().map(|(shard, _, _)| *shard).collect();
    let rooms: Vec<i64> = keys.iter().map(|(_, room_id, _)| room_id.0).collect();
    let seqs: Vec<i64> = keys.iter().map(|(_, _, seq)| *seq).collect();
    let found = sqlx::query_file!("sql/chat_message/lasts.sql", &shards, &rooms, &seqs).fetch_all(db).await?;
    Ok(found.into_iter().map(|r| row!(r)).collect())
}

/// Replaces the content of a message, and keeps the former one for moderators. `delete`: the message is deleted with
/// it. The caller holds the locks of the room's gate and of the message.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn replace(
    db: impl Db<'_>,
    shard: i16,
    id: ChatId,
    content: &str,
    now: DateTime<Utc>,
    by: Tsid,
    delete: bool,
) -> Result<()> {
    sqlx::query_file!("sql/chat_message/replace.sql", shard, id.room_id.0, id.seq, content, now, by.0, delete)
        .execute(db)
        .await?;
    Ok(())
}

/// Who has read a message, besides its sender, and when, while that is kept.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn reads(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    no: i64,
    sender_id: Tsid,
) -> Result<Vec<(Tsid, Option<DateTime<Utc>>)>> {
    let found = sqlx::query_file!("sql/chat_message/reads.sql", shard, room_id.0, no, sender_id.0).fetch_all(db);
    Ok(found.await?.into_iter().map(|r| (Tsid(r.user_id), r.read_at)).collect())
}

/// Deletes up to `rows` of a room's messages that were written before `below`. Returns how many. The caller holds the
/// lock of the room's gate.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old(db: impl Db<'_>, room: (i16, Tsid), below: Tsid, rows: i64) -> Result<u64> {
    let deleted = sqlx::query_file_scalar!("sql/chat_message/delete_old.sql", room.0, room.1.0, below.0, rows);
    Ok(deleted.fetch_one(db).await?.unsigned_abs())
}

/// Deletes up to `rows` former contents of messages that were replaced before `before`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old_versions(db: impl Db<'_>, before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/chat_message/delete_old_versions.sql", before, rows).execute(db).await?.rows_affected())
}

/// A content as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredContent {
    pub seq: i64,
    /// The version that an edit or a deletion replaced; 0: the present one.
    version: i16,
    chat_id: Tsid,
    text: String,
}

impl StoredContent {
    /// The content sealed under the current master key. None if it is sealed under it already, or not sealed.
    ///
    /// # Errors
    /// `Error::Setup` if the master key that sealed it is not here. `Error::Internal` if it is not valid.
    pub fn resealed(&self, keyring: &Keyring, room_id: Tsid) -> Result<Option<String>> {
        let Some(sealed) = self.text.strip_prefix(SEALED) else { return Ok(None) };
        if BASE64.decode(sealed.as_bytes()).is_ok_and(|sealed| keyring.is_fresh(&sealed)) {
            return Ok(None);
        }
        let content = decode(keyring, room_id, self.chat_id, &self.text)?;
        encode(keyring, room_id, self.chat_id, &content, true).map(Some)
    }
}

/// The contents of up to `rows` messages of a room with a seq above `above`, oldest first, each followed by those that
/// it replaced.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn contents(db: impl Db<'_>, room: (i16, Tsid), above: i64, rows: i64) -> Result<Vec<StoredContent>> {
    let found = sqlx::query_file!("sql/chat_message/contents.sql", room.0, room.1.0, above, rows).fetch_all(db).await?;
    let content = found.into_iter().map(|r| StoredContent {
        seq: r.seq,
        version: r.version,
        chat_id: Tsid(r.chat_id),
        text: r.content,
    });
    Ok(content.collect())
}

/// Writes a content sealed anew, unless it was replaced meanwhile: what replaced it was sealed at that time.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_content(db: impl Db<'_>, room: (i16, Tsid), former: &StoredContent, text: &str) -> Result<()> {
    let StoredContent { seq, version, text: was, .. } = former;
    sqlx::query_file!("sql/chat_message/set_content.sql", room.0, room.1.0, *seq, *version, was, text)
        .execute(db)
        .await?;
    Ok(())
}
