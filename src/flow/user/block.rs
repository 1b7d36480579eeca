//! Block: a user wants nothing from another.

use crate::error::{Error, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::user::UserState;
use crate::store::{user, user_block};

/// Blocks another user for the caller. Again is the same.
///
/// # Errors
/// `Error::NotFound` if the partner has no such user; `block_of_oneself`; `too_many_blocks`. `Error::Unavailable` if
/// the database fails; it may be written.
pub async fn block(hub: &Hub, caller: &UserCaller, other: Tsid) -> Result<()> {
    let (db, shard) = (hub.store.api(), caller.shard());
    if other == caller.user_id() {
        return Err(Refusal::new(422, "block_of_oneself", "a user cannot block itself").into());
    }
    let found = user::get(db, shard, caller.partner_id(), other, None).await?;
    found.filter(|(user, _)| user.state != UserState::Deleted).ok_or(Error::NotFound)?;
    if user_block::insert(db, shard, caller.user_id(), other, hub.clock.now(), limits::USER_BLOCKS).await? {
        return Ok(());
    }
    let detail = format!("a user may block at most {} others; unblock some", limits::USER_BLOCKS);
    Err(Refusal::new(409, "too_many_blocks", detail).into())
}
