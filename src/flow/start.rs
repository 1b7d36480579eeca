//! Start: a hub that serves, made from its parts and from what the database says of this process.

use chrono::TimeDelta;

use super::{intake, sign_in};
use crate::clock::Clock;
use crate::crypt;
use crate::error::{Error, Result};
use crate::hub::{Hub, Identity, Parts};
use crate::id::Tsids;
use crate::store::{self, Store};

/// Connects to a migrated database: takes a node number for this process's ids, brings its clock in step with the
/// database's, reads the installation's keys and those that sign tokens, and starts the intake's writers, nothing else.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Internal` if its master key is not one.
pub async fn start(parts: Parts) -> Result<Hub> {
    let db = parts.store.api();
    let ids = Tsids::new(store::hub::next_node_number(db).await?);
    calibrate(&parts.store, &parts.clock).await?;
    let cursor_key = store::hub::get_or_create_key(db, "cursor", &crypt::random()).await?;
    let pepper = store::hub::get_or_create_key(db, "pepper", &crypt::random()).await?;
    let master_key = store::hub::get_or_create_key(db, "master", &crypt::random()).await?;
    let master_key =
        master_key.try_into().map_err(|_| Error::Internal("the database's master key is not one".into()))?;
    let (hub, requests) = Hub::new(parts, Identity { ids, cursor_key, pepper, master_key })?;
    sign_in::read_keys(&hub).await?;
    intake::writer::start(&hub, requests);
    Ok(hub)
}

/// Brings this process's clock in step with the database's.
///
/// Returns how far this host's own clock is off.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached: the clock goes on as it was set before.
pub async fn calibrate(store: &Store, clock: &Clock) -> Result<TimeDelta> {
    let asked = Clock::host_now();
    let said = store::hub::database_time(store.api()).await?;
    Ok(clock.calibrate(asked, said, Clock::host_now()))
}
