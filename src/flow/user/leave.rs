//! Leave: withdrawal of a user by itself, and erasure by its partner or an operator. What is personal goes from every
//! table of users; the row with the id stays, so that what the user wrote has an author. Messages to the user are
//! erased afterwards, by `flow::erase`.

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::OwnerPermit;
use crate::model::access::user::{UserCaller, client_name};
use crate::model::user::{User, UserState};
use crate::store::audit::AuditEntry;
use crate::store::user::UserToErase;
use crate::store::{self, Conn, credential, device, refresh_token, user, user_block};

use super::change;
use super::make::{external_hash, new_code};
use super::session::{audit, audit_entry};

/// Withdraws the caller: what is personal is removed, and its username is free again. Its tokens are void, also those
/// that its partner's server signed before.
///
/// # Errors
/// `Error::NotFound` if it is deleted already. `Error::Unavailable` if the database fails; nothing was written, unless
/// it failed during the commit.
pub async fn withdraw(hub: &Hub, caller: &UserCaller) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let user = remove(hub, &mut tx, caller.shard(), caller.partner_id(), caller.user_id(), hub.clock.now()).await?;
    let entry = AuditEntry { action: "user.withdraw".into(), ..audit_entry(&user) };
    audit(hub, &mut tx, caller, &entry).await?;
    tx.commit().await?;
    change::announce(hub, user.user_id).await;
    Ok(())
}

/// Erases a user, as `withdraw`. Returns what its messages are found by.
///
/// # Errors
/// `Error::NotFound` if it is deleted already. `Error::Unavailable` if the database fails; nothing was written, unless
/// it failed during the commit.
pub async fn erase(hub: &Hub, permit: OwnerPermit<'_>, user: &User) -> Result<UserToErase> {
    let mut tx = hub.store.begin().await?;
    let now = hub.clock.now();
    let user = remove(hub, &mut tx, user.shard, user.partner_id, user.user_id, now).await?;
    let entry = AuditEntry { action: "user.erase".into(), ..audit_entry(&user) };
    store::audit::insert(&mut *tx, hub.next_id(), now, permit.actor(), &entry).await?;
    tx.commit().await?;
    change::announce(hub, user.user_id).await;
    let names = user.external_id.into_iter().chain([user.user_id.to_string()]).collect();
    let (shard, partner_id, user_id) = (user.shard, user.partner_id, user.user_id);
    Ok(UserToErase { shard, partner_id, user_id, names, deleted_at: now })
}

async fn remove(
    hub: &Hub,
    tx: &mut Conn,
    shard: i16,
    partner_id: Tsid,
    user_id: Tsid,
    now: DateTime<Utc>,
) -> Result<User> {
    let found = user::lock(&mut *tx, shard, partner_id, user_id).await?;
    let user = found.filter(|user| user.state != UserState::Deleted).ok_or(Error::NotFound)?;
    let hash = user.external_id.as_deref().map(|id| external_hash(hub, partner_id, id));
    user::delete(&mut *tx, shard, user_id, hash.as_ref().map(<[u8; 32]>::as_slice), &new_code(), now).await?;
    credential::delete(&mut *tx, shard, user_id).await?;
    device::delete_of_user(&mut *tx, shard, user_id).await?;
    user_block::delete_of_user(&mut *tx, shard, user_id).await?;
    // A successor that was written while the statement waited is visible only to the next one.
    while refresh_token::delete_of_client(&mut *tx, &client_name(user_id)).await? > 0 {}
    Ok(user)
}
