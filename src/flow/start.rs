//! Start: makes a hub that serves, from its parts and the identity that the database gives this process.

use chrono::TimeDelta;

use super::{intake, room, sign_in};
use crate::clock::Clock;
use crate::crypt;
use crate::error::{Error, Result};
use crate::hub::{Hub, Identity, Parts};
use crate::id::Tsids;
use crate::store::{self, Store};

/// Makes a hub on a migrated database: takes a node number for this process's ids, brings the clock in step with the
/// database's, reads the installation's keys and those that sign tokens, and starts the writers of messages. It
/// starts no other task.
///
/// # Errors
/// `Error::Unavailable` if the database fails; `Error::Internal` if the installation's own master key has the wrong
/// length.
pub async fn start(parts: Parts) -> Result<Hub> {
    let db = parts.store.api();
    let ids = Tsids::new(store::hub::next_node_number(db).await?);
    calibrate(&parts.store, &parts.clock).await?;
    let cursor_key = store::hub::get_or_create_key(db, "cursor", &crypt::random()).await?;
    let pepper = store::hub::get_or_create_key(db, "pepper", &crypt::random()).await?;
    let master_key = store::hub::get_or_create_key(db, "master", &crypt::random()).await?;
    let master_key = master_key.try_into().map_err(|_| {
        Error::Internal("the installation's own master key in the database has the wrong length".into())
    })?;
    let (hub, queues) = Hub::new(parts, Identity { ids, cursor_key, pepper, master_key })?;
    sign_in::read_keys(&hub).await?;
    intake::writer::start(&hub, queues.intake);
    room::send::start(&hub, queues.chat);
    Ok(hub)
}

/// Brings this process's clock in step with the database's. Returns how far this host's own clock is behind it.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the clock goes on as it was set before.
pub async fn calibrate(store: &Store, clock: &Clock) -> Result<TimeDelta> {
    let sent = Clock::host_now();
    let database = store::hub::database_time(store.api()).await?;
    Ok(clock.calibrate(sent, database, Clock::host_now()))
}
