//! The keys with which partners sign tokens for their users. Sealed with a master key.

use chrono::{DateTime, Utc};

use super::{Conn, Db};
use crate::crypt::Keyring;
use crate::error::{Error, Result};
use crate::id::Tsid;

/// Name of a sealed key: binds it to its row and column, so that it opens nowhere else.
fn place(column: &str, partner_id: Tsid) -> String {
    format!("partners|{column}|{partner_id}")
}

fn open(keyring: &Keyring, column: &str, partner_id: Tsid, sealed: &[u8]) -> Result<String> {
    let plain = keyring.open(&place(column, partner_id), sealed)?;
    String::from_utf8(plain).map_err(|_| Error::Internal(format!("{column} of partner {partner_id} is not text")))
}

/// A partner's user keys.
#[derive(Debug, Clone, Default)]
pub struct UserKeys {
    /// The present key; `None`: the partner has none.
    pub key: Option<String>,
    /// The number of the present key. The one before it has the number below.
    pub number: i16,
    /// The key before it, and the time until which it is valid.
    pub former: Option<(String, DateTime<Utc>)>,
}

/// The keys as stored.
struct SealedUserKeys {
    user_key: Option<Vec<u8>>,
    user_key_no: i16,
    former_user_key: Option<Vec<u8>>,
    former_user_key_until: Option<DateTime<Utc>>,
}

impl SealedUserKeys {
    fn open(self, keyring: &Keyring, partner_id: Tsid) -> Result<UserKeys> {
        let key = self.user_key.map(|sealed| open(keyring, "user_key", partner_id, &sealed)).transpose()?;
        let former = match (self.former_user_key, self.former_user_key_until) {
            (Some(sealed), Some(until)) => Some((open(keyring, "former_user_key", partner_id, &sealed)?, until)),
            _ => None,
        };
        Ok(UserKeys { key, number: self.user_key_no, former })
    }
}

/// The keys of a partner. None if there is no such partner.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Setup` if the master key
/// that sealed them is not here.
pub async fn get(db: impl Db<'_>, keyring: &Keyring, partner_id: Tsid) -> Result<Option<UserKeys>> {
    let row = sqlx::query_file_as!(SealedUserKeys, "sql/partner/user_keys.sql", partner_id.0).fetch_optional(db);
    row.await?.map(|row| row.open(keyring, partner_id)).transpose()
}

/// The number of the present key of a partner, whether it opens or not; 0: it never had one.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn number(db: impl Db<'_>, partner_id: Tsid) -> Result<i16> {
    let row = sqlx::query_file_as!(SealedUserKeys, "sql/partner/user_keys.sql", partner_id.0).fetch_optional(db);
    Ok(row.await?.map_or(0, |row| row.user_key_no))
}

/// Writes the keys of a partner, sealed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed. `Error::Internal` if there is no master key.
pub async fn set(db: impl Db<'_>, keyring: &Keyring, partner_id: Tsid, keys: &UserKeys) -> Result<()> {
    let seal = |column, key: &String| keyring.seal(&place(column, partner_id), key.as_bytes());
    let key = keys.key.as_ref().map(|key| seal("user_key", key)).transpose()?;
    let former = keys.former.as_ref().map(|(key, _)| seal("former_user_key", key)).transpose()?;
    let until = keys.former.as_ref().map(|(_, until)| *until);
    sqlx::query_file!("sql/partner/set_user_keys.sql", partner_id.0, key, keys.number, former, until)
        .execute(db)
        .await?;
    Ok(())
}

/// For one user key per column and master key that sealed any: whether it opens.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn check_seals(db: impl Db<'_>, keyring: &Keyring) -> Result<Vec<bool>> {
    let rows = sqlx::query_file!("sql/partner/sample_user_keys.sql").fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| keyring.open(&place(&r.place, Tsid(r.partner_id)), &r.sealed).is_ok()).collect())
}

/// Up to `rows` partners with user keys, with ids above `after`, locked until the transaction ends. For each: whether
/// all its keys are sealed under the first master key, and the keys, or why they do not open.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock(
    tx: &mut Conn,
    keyring: &Keyring,
    after: Tsid,
    rows: i64,
) -> Result<Vec<(Tsid, bool, Result<UserKeys>)>> {
    let found = sqlx::query_file!("sql/partner/lock_user_keys.sql", after.0, rows).fetch_all(tx).await?;
    let read = found.into_iter().map(|r| {
        let partner_id = Tsid(r.partner_id);
        let is_fresh = r.user_key.iter().chain(&r.former_user_key).all(|sealed| keyring.is_fresh(sealed));
        let sealed = SealedUserKeys {
            user_key: r.user_key,
            user_key_no: r.user_key_no,
            former_user_key: r.former_user_key,
            former_user_key_until: r.former_user_key_until,
        };
        (partner_id, is_fresh, sealed.open(keyring, partner_id))
    });
    Ok(read.collect())
}
