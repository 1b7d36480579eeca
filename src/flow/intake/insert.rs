//! Insert: the statement that writes messages is chosen by what their partners have. Most have no endpoint, and pay
//! nothing for webhooks.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::store::Conn;
use crate::store::message::{self, InsertedMessage, NewMessageRow};

/// Inserts messages as `store::message::insert` does, by the plain statement where it suffices. The statement itself
/// sees whether it does, in the snapshot in which it writes: what this process remembers of partners only saves a try.
///
/// # Errors
/// As `store::message::insert`.
pub async fn insert(
    hub: &Hub,
    conn: &mut Conn,
    rows: &[&NewMessageRow],
    now: DateTime<Utc>,
) -> Result<Vec<InsertedMessage>> {
    if hub.full_writes.is_needed(rows.iter().map(|row| row.partner_id), now) {
        return message::insert(conn, rows, now).await;
    }
    let inserted = message::insert_plain(&mut *conn, rows, now).await?;
    if !inserted.is_empty() {
        return Ok(inserted);
    }
    // A partner has endpoints or erased keys, or every key was taken; the full statement writes nothing then, either.
    let inserted = message::insert(&mut *conn, rows, now).await?;
    if !inserted.is_empty() {
        hub.full_writes.note(message::full_insert_partners(&mut *conn, rows).await?, now);
    }
    Ok(inserted)
}
