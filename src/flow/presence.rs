//! Presence: which users have a live connection, of any process.

use std::collections::HashMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use super::inbox::UserKey;
use crate::error::Result;
use crate::hub::Hub;
use crate::hub::connections::{LeftRooms, OpenConnection};
use crate::id::Tsid;
use crate::limits;
use crate::model::live::{LiveNote, LiveWhat};
use crate::store::connection::{self, Connection};

fn connection(hub: &Hub, (shard, user_id): UserKey) -> Connection {
    Connection { connection_id: hub.next_id(), shard, user_id, opened_at: hub.clock.now() }
}

/// Counts a connection of a user, until the result is dropped.
pub fn connect(hub: &Hub, user: UserKey) -> OpenConnection {
    hub.connections.open(connection(hub, user))
}

/// Counts a WebSocket of a user, until the result is dropped. The receiver gets a value when the user has opened too
/// many others, and this one is to end.
pub fn connect_socket(hub: &Hub, user: UserKey) -> (OpenConnection, oneshot::Receiver<()>) {
    hub.connections.open_socket(connection(hub, user))
}

/// Notes that a user did something: it is not away.
pub fn touch(hub: &Hub, user: UserKey) {
    hub.connections.touch(user, hub.clock.now());
}

/// Records the connections that were opened and closed here, when users last did something, and that this process lives
/// while it has connections.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the next run records the same.
pub async fn record(hub: &Hub) -> Result<()> {
    let (db, now, changes) = (hub.store.api(), hub.clock.now(), hub.connections.take());
    let (all, sockets) = hub.connections.count();
    for (kind, open) in [("websocket", sockets), ("sse", all.saturating_sub(sockets))] {
        hub.metrics.connections.with_label_values(&[kind]).set(i64::try_from(open).unwrap_or(i64::MAX));
    }
    let written = async {
        if changes.is_live && hub.connections.beat_is_due(now, limits::LIVE_BEAT) {
            connection::beat(db, hub.process, now, now - limits::LIVE_SEEN).await?;
        }
        if !changes.opened.is_empty() {
            connection::insert(db, hub.process, &changes.opened).await?;
        }
        if !changes.active.is_empty() {
            connection::touch(db, &changes.active).await?;
        }
        if !changes.closed.is_empty() {
            connection::delete(db, &changes.closed).await?;
        }
        Ok(())
    };
    let written = written.await;
    if written.is_err() {
        hub.connections.put_back(changes);
    }
    written
}

/// Shows the members of rooms that a user is OFFLINE whose last connection, of any process, ended a while ago. Returns
/// whether there may be more.
///
/// # Errors
/// `Error::Unavailable` if the database fails; members see it when they ask.
pub async fn show_offline(hub: &Hub) -> Result<bool> {
    let Some(until) = Instant::now().checked_sub(limits::OFFLINE_AFTER) else { return Ok(false) };
    let left = hub.connections.take_left(until, limits::MARKS_ROUND);
    if left.is_empty() {
        return Ok(false);
    }
    let users: Vec<UserKey> = left.iter().map(|left| left.user).collect();
    let back = connected(hub, &users).await?;
    for LeftRooms { user: (_, user_id), room_ids, .. } in &left {
        if !back.contains_key(user_id) {
            let note = |room_id: &Tsid| LiveNote { room_id: *room_id, user_id: *user_id, what: LiveWhat::Offline };
            room_ids.iter().map(note).for_each(|note| hub.live_notes.note(note));
        }
    }
    Ok(left.len() == limits::MARKS_ROUND)
}

/// Those of these users that have a live connection, each with the time at which it last opened one or did something.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn connected(hub: &Hub, users: &[UserKey]) -> Result<HashMap<Tsid, DateTime<Utc>>> {
    let since = hub.clock.now() - limits::LIVE_SEEN;
    Ok(connection::of_users(hub.store.api(), users, since).await?.into_iter().collect())
}
