//! Presence: which users have a live connection, of any process.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::inbox::UserKey;
use crate::error::Result;
use crate::hub::Hub;
use crate::hub::connections::OpenConnection;
use crate::id::Tsid;
use crate::limits;
use crate::store::connection::{self, Connection};

/// Counts a connection of a user, until the result is dropped.
pub fn connect(hub: &Hub, (shard, user_id): UserKey) -> OpenConnection {
    hub.connections.open(Connection { connection_id: hub.next_id(), shard, user_id, opened_at: hub.clock.now() })
}

/// Records the connections that were opened and closed here, and that this process lives while it has any.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the next run records the same.
pub async fn record(hub: &Hub) -> Result<()> {
    let (db, now, changes) = (hub.store.api(), hub.clock.now(), hub.connections.take());
    let written = async {
        if changes.is_live && hub.connections.beat_is_due(now, limits::LIVE_BEAT) {
            connection::beat(db, hub.process, now, now - limits::LIVE_SEEN).await?;
        }
        if !changes.opened.is_empty() {
            connection::insert(db, hub.process, &changes.opened).await?;
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

/// Those of these users that have a live connection, each with the time at which the newest one was opened.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn connected(hub: &Hub, users: &[UserKey]) -> Result<HashMap<Tsid, DateTime<Utc>>> {
    let since = hub.clock.now() - limits::LIVE_SEEN;
    Ok(connection::of_users(hub.store.api(), users, since).await?.into_iter().collect())
}
