//! Device: where pushes to a user go.

use crate::crypt;
use crate::error::Result;
use crate::hub::Hub;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::device::Platform;
use crate::store::device::{self, DeviceRow, NewDevice};

/// Registers a device of the caller. A token that another user of the partner had moves to the caller; of more than
/// `limits::USER_DEVICES` devices the oldest is removed.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn register(
    hub: &Hub,
    caller: &UserCaller,
    platform: Platform,
    token: &str,
    app: Option<String>,
) -> Result<DeviceRow> {
    let (now, shard) = (hub.clock.now(), caller.shard());
    let token_hash = crypt::keyed_hash(&hub.pepper, format!("device|{}|{token}", platform.as_str()).as_bytes());
    let new = NewDevice {
        shard,
        device_id: hub.next_id(),
        user_id: caller.user_id(),
        partner_id: caller.partner_id(),
        platform,
        app: app.as_deref(),
        token,
        token_hash: &token_hash,
    };
    let mut tx = hub.store.begin().await?;
    let (device_id, created_at) = device::upsert(&mut *tx, &hub.keyring, &new, now).await?;
    device::delete_beyond(&mut *tx, shard, caller.user_id(), limits::USER_DEVICES).await?;
    tx.commit().await?;
    Ok(DeviceRow { device_id, platform, app, disabled_at: None, reason: None, created_at })
}
