//! Sealed: checks at the start that sealed values open with the given master keys. Otherwise a database restored
//! without its master key would seem to run, and fail one sign-in, webhook and message at a time.

use chrono::{DateTime, Utc};

use crate::crypt::{KEY_BYTES, Keyring};
use crate::error::{Error, Result};
use crate::limits;
use crate::store::{self, Store, device, endpoint, message, signing_key, user_key};

/// A kind of sealed values, and the samples of it that were tried.
#[derive(Debug)]
pub struct SealedKind {
    /// Name for people, in the plural.
    pub name: &'static str,
    /// Samples that open.
    pub opened: usize,
    /// Samples that do not open.
    pub unopened: usize,
}

/// Returns all keys that open: those given, and the installation's own key in the database, if it has one yet.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn keyring(store: &Store, master_keys: &[[u8; KEY_BYTES]]) -> Result<Keyring> {
    let own = store::hub::get_key(store.api(), "master").await?;
    let own = own.and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
    Ok(Keyring::new(master_keys.iter().copied().chain(own)))
}

/// Tries to open, of each kind, one sample for each master key that sealed any. Of messages only the newest
/// `limits::SEALED_LOOK` of a partner and devices of a shard are considered.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn open_one_of_each(store: &Store, keyring: &Keyring, now: DateTime<Utc>) -> Result<Vec<SealedKind>> {
    let keys = signing_key::list(store.api(), now).await?;
    let keys = keys.iter().map(|key| keyring.open(&super::sign_in::seal_place(&key.kid), &key.sealed).is_ok());
    let mut kinds = vec![kind("signing keys", keys)];
    let endpoints = endpoint::check_seals(store.api(), keyring).await?;
    for (name, column) in
        [("webhook secrets", "secret"), ("former webhook secrets", "former_secret"), ("webhook headers", "headers")]
    {
        kinds.push(kind(name, endpoints.iter().filter(|(of, _)| of == column).map(|(_, opens)| *opens)));
    }
    let contents = message::check_seals(store.api(), keyring, limits::SEALED_LOOK).await?;
    kinds.push(kind("message contents", contents.into_iter()));
    kinds.push(kind("partners' user keys", user_key::check_seals(store.api(), keyring).await?.into_iter()));
    let devices = device::check_seals(store.api(), keyring, limits::SEALED_LOOK).await?;
    kinds.push(kind("tokens of devices", devices.into_iter()));
    Ok(kinds)
}

fn kind(name: &'static str, opens: impl Iterator<Item = bool>) -> SealedKind {
    let (opened, unopened): (Vec<bool>, Vec<bool>) = opens.partition(|opens| *opens);
    SealedKind { name, opened: opened.len(), unopened: unopened.len() }
}

/// Checks that all samples of sealed values open.
///
/// # Errors
/// `Error::Setup` if some do not, with their kinds and the remedy. `Error::Unavailable` if the database fails.
pub async fn check(store: &Store, keyring: &Keyring, now: DateTime<Utc>) -> Result<()> {
    let kinds = open_one_of_each(store, keyring, now).await?;
    let closed: Vec<&str> = kinds.iter().filter(|kind| kind.unopened > 0).map(|kind| kind.name).collect();
    if closed.is_empty() {
        return Ok(());
    }
    Err(Error::Setup(format!("{} in the database do not open with the master keys given. {REMEDY}", closed.join(", "))))
}

/// Advice for an operator whose sealed values do not open.
pub const REMEDY: &str = "Give this installation's master key as --master-key (a private PostgreSQL has it in its data \
folder, in master.key). If it is lost for good, so is what it sealed: start with --accept-unopened, run `notihub key \
rotate-signing --at-once`, and create the webhook endpoints anew";
