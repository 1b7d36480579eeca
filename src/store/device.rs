//! Devices: where pushes to a user go. Their tokens are sealed with a master key, and found by a keyed hash.

use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;

use super::{Conn, Db, parse_word};
use crate::crypt::Keyring;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::device::Platform;

/// Name of a sealed token: binds it to the row with its hash, so that it opens nowhere else. The hash stays when the
/// token moves to another user.
fn place(hash: &[u8]) -> String {
    format!("devices|token|{}", HEXLOWER.encode(hash))
}

/// A device to register.
pub struct NewDevice<'d> {
    pub shard: i16,
    pub device_id: Tsid,
    pub user_id: Tsid,
    pub partner_id: Tsid,
    pub platform: Platform,
    pub app: Option<&'d str>,
    pub token: &'d str,
    /// Keyed hash of the token.
    pub token_hash: &'d [u8],
}

/// Registers a device, or moves its token from another user of the partner. Returns its id, which is another one than
/// that of `device` if the user had it already, and when it was registered.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed. `Error::Internal` if there is no master key.
pub async fn upsert(
    db: impl Db<'_>,
    keyring: &Keyring,
    device: &NewDevice<'_>,
    now: DateTime<Utc>,
) -> Result<(Tsid, DateTime<Utc>)> {
    let sealed = keyring.seal(&place(device.token_hash), device.token.as_bytes())?;
    let row = sqlx::query_file!(
        "sql/device/upsert.sql",
        device.shard,
        device.device_id.0,
        device.user_id.0,
        device.partner_id.0,
        device.platform.as_str(),
        device.app,
        sealed,
        device.token_hash,
        now,
    );
    let row = row.fetch_one(db).await?;
    Ok((Tsid(row.device_id), row.created_at))
}

/// A device as its user sees it: without its token.
pub struct DeviceRow {
    pub device_id: Tsid,
    pub platform: Platform,
    pub app: Option<String>,
    pub disabled_at: Option<DateTime<Utc>>,
    /// Why the device was disabled.
    pub reason: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// The devices of a user, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn list(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<Vec<DeviceRow>> {
    let found = sqlx::query_file!("sql/device/list.sql", shard, user_id.0).fetch_all(db).await?;
    let device = found.into_iter().map(|r| {
        Ok(DeviceRow {
            device_id: Tsid(r.device_id),
            platform: parse_word(&r.platform, "platform")?,
            app: r.app,
            disabled_at: r.disabled_at,
            reason: r.reason,
            created_at: r.created_at,
        })
    });
    device.collect()
}

/// Deletes a device of a user. False if the user has no such device.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete(db: impl Db<'_>, shard: i16, user_id: Tsid, device_id: Tsid) -> Result<bool> {
    let done = sqlx::query_file!("sql/device/delete.sql", shard, user_id.0, device_id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the oldest devices of a user beyond the newest `kept`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_beyond(db: impl Db<'_>, shard: i16, user_id: Tsid, kept: i64) -> Result<()> {
    sqlx::query_file!("sql/device/delete_beyond.sql", shard, user_id.0, kept).execute(db).await?;
    Ok(())
}

/// Deletes all devices of a user.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_of_user(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/device/delete_of_user.sql", shard, user_id.0).execute(db).await?;
    Ok(())
}

/// For one device per master key that sealed any, among the newest `look` of each shard: whether its token opens.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn check_seals(db: impl Db<'_>, keyring: &Keyring, look: i64) -> Result<Vec<bool>> {
    let rows = sqlx::query_file!("sql/device/sample_seals.sql", look).fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| keyring.open(&place(&r.token_hash), &r.token).is_ok()).collect())
}

/// A sealed token of a device.
pub struct SealedToken {
    pub device_id: Tsid,
    token: Vec<u8>,
    token_hash: Vec<u8>,
}

impl SealedToken {
    /// The token sealed under the current master key. None if it is sealed under it already.
    ///
    /// # Errors
    /// `Error::Setup` if the master key that sealed it is not here.
    pub fn resealed(&self, keyring: &Keyring) -> Result<Option<Vec<u8>>> {
        if keyring.is_fresh(&self.token) {
            return Ok(None);
        }
        let place = place(&self.token_hash);
        keyring.seal(&place, &keyring.open(&place, &self.token)?).map(Some)
    }
}

/// Locks up to `rows` devices of a shard with ids above `after`, in the order of their ids.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_tokens(tx: &mut Conn, shard: i16, after: Tsid, rows: i64) -> Result<Vec<SealedToken>> {
    let found = sqlx::query_file!("sql/device/lock_tokens.sql", shard, after.0, rows).fetch_all(tx).await?;
    let token = found.into_iter().map(|r| SealedToken {
        device_id: Tsid(r.device_id),
        token: r.token,
        token_hash: r.token_hash,
    });
    Ok(token.collect())
}

/// Writes the sealed token of a device.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_token(db: impl Db<'_>, shard: i16, device_id: Tsid, sealed: &[u8]) -> Result<()> {
    sqlx::query_file!("sql/device/set_token.sql", shard, device_id.0, sealed).execute(db).await?;
    Ok(())
}
