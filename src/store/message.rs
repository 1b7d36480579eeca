//! Messages.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::Status;
use crate::model::lane::Lane;
use crate::model::message::{Detail, Message, NewMessage};

/// A message to write, with what only the hub knows of it.
pub struct Insert {
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub shard: i16,
    pub fingerprint: [u8; 32],
    pub created_at: DateTime<Utc>,
    pub max_attempts: i16,
    /// Of each delivery, in their order.
    pub lanes: Vec<Lane>,
    pub message: NewMessage,
}

/// Writes messages with their deliveries and keys, ready from `now` on. Returns the ids written: what is missing had its
/// key taken.
pub async fn insert(db: impl Db<'_>, inserts: &[&Insert], now: DateTime<Utc>) -> Result<Vec<Tsid>> {
    let details: Vec<String> = inserts
        .iter()
        .map(|i| serde_json::to_string(&i.message.detail))
        .collect::<Result<_, _>>()
        .map_err(|e| crate::error::Error::Internal(format!("a message does not serialise: {e}")))?;
    let deliveries = || (1i64..).zip(inserts).flat_map(|(n, i)| i.message.deliveries.iter().map(move |d| (n, i, d)));
    let written = sqlx::query_file_scalar!(
        "sql/message/insert.sql",
        &inserts.iter().map(|i| i.shard).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message_id.0).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.partner_id.0).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.client_msg_id.clone()).collect::<Vec<_>>() as &[Option<String>],
        &inserts.iter().map(|i| i.fingerprint.to_vec()).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.kind.clone()).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.priority.as_str().to_owned()).collect::<Vec<_>>(),
        &details,
        &inserts.iter().map(|i| i.created_at).collect::<Vec<_>>(),
        &inserts.iter().map(|i| i.message.scheduled_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &inserts.iter().map(|i| i.message.expires_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &deliveries().map(|(n, ..)| n).collect::<Vec<_>>(),
        &inserts.iter().flat_map(|i| (1..).take(i.message.deliveries.len())).collect::<Vec<i16>>(),
        &inserts.iter().flat_map(|i| i.lanes.iter().map(|lane| lane.0)).collect::<Vec<_>>(),
        &deliveries().map(|(_, _, d)| d.content).collect::<Vec<_>>(),
        &deliveries().map(|(_, i, _)| i.max_attempts).collect::<Vec<_>>(),
        &deliveries().map(|(_, _, d)| d.to.clone()).collect::<Vec<_>>(),
        now,
        &deliveries().map(|(_, _, d)| d.written.clone()).collect::<Vec<_>>() as &[Option<String>],
    )
    .fetch_all(db)
    .await?;
    Ok(written.into_iter().map(Tsid).collect())
}

/// What is to be sent for a message.
pub struct Contents {
    pub kind: String,
    pub detail: Detail,
    pub created_at: DateTime<Utc>,
}

/// Contents by message; none for one that cannot be understood, so that it does not spoil the others.
pub async fn contents(db: impl Db<'_>, messages: &[(i16, Tsid)]) -> Result<Vec<(Tsid, Option<Contents>)>> {
    let ids: Vec<i64> = messages.iter().map(|m| m.1.0).collect();
    let (Some(&low), Some(&high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let shards: Vec<i16> = messages.iter().map(|m| m.0).collect();
    let rows = sqlx::query_file!("sql/message/contents.sql", &shards, &ids, low, high).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            let detail: Option<Detail> = serde_json::from_str(&r.detail).ok();
            let contents = detail.map(|detail| Contents { kind: r.kind, detail, created_at: r.created_at });
            (Tsid(r.message_id), contents)
        })
        .collect())
}

pub async fn get(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Option<Message>> {
    let row = sqlx::query_file!("sql/message/get.sql", partner_id.0, shard, message_id.0).fetch_optional(db).await?;
    row.map(|r| {
        Ok(Message {
            message_id: Tsid(r.message_id),
            partner_id: Tsid(r.partner_id),
            client_msg_id: r.client_msg_id,
            kind: r.kind,
            priority: r.priority.parse().unwrap_or_default(),
            detail: r.detail.0,
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
    /// … and as E.164, if it is a phone number.
    pub phone: Option<String>,
}

pub struct Listed {
    pub message: Message,
    /// (lane, status, attempts spent) of each delivery.
    pub deliveries: Vec<(Lane, Status, i16)>,
}

pub async fn list(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    filter: &Filter,
    below: Tsid,
    from: Tsid,
    rows: i64,
) -> Result<Vec<Listed>> {
    let found = sqlx::query_file!(
        "sql/message/list.sql",
        partner_id.0,
        shard,
        below.0,
        from.0,
        filter.kind.as_deref(),
        filter.client_msg_id.as_deref(),
        filter.lanes.map(|l| l.0),
        filter.lanes.map(|l| l.1),
        filter.to.as_deref(),
        rows,
        filter.phone.as_deref(),
    )
    .fetch_all(db)
    .await?;
    found
        .into_iter()
        .map(|r| {
            let statuses = r.statuses.iter().map(|s| word(s, "status")).collect::<Result<Vec<Status>>>()?;
            let deliveries = r.lanes.into_iter().map(Lane).zip(statuses).zip(r.attempts);
            Ok(Listed {
                message: Message {
                    message_id: Tsid(r.message_id),
                    partner_id,
                    client_msg_id: r.client_msg_id,
                    kind: r.kind,
                    priority: r.priority.parse().unwrap_or_default(),
                    detail: r.detail.0,
                    created_at: r.created_at,
                    scheduled_at: r.scheduled_at,
                    expires_at: r.expires_at,
                },
                deliveries: deliveries.map(|((lane, status), attempt)| (lane, status, attempt)).collect(),
            })
        })
        .collect()
}
