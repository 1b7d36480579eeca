//! Sealed: whether what is sealed at rest opens under the master keys given. A database that was restored elsewhere without
//! its master key would else run, and fail one sign-in, webhook and message at a time.

use chrono::{DateTime, Utc};

use crate::crypt::{KEY_BYTES, Keyring};
use crate::error::{Error, Result};
use crate::limits;
use crate::store::{self, Store, endpoint, message, signing_key};

/// A kind of what is sealed: how many of its samples were opened, and how many do not open.
#[derive(Debug)]
pub struct SealedKind {
    pub name: &'static str,
    pub opened: usize,
    pub unopened: usize,
}

/// All keys that open: those given, and the one the installation keeps in the database, if it has one yet.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be asked.
pub async fn keyring(store: &Store, master_keys: &[[u8; KEY_BYTES]]) -> Result<Keyring> {
    let own = store::hub::get_key(store.api(), "master").await?;
    let own = own.and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
    Ok(Keyring::new(master_keys.iter().copied().chain(own)))
}

/// Opens of each kind one for each master key that sealed any, as far as the newest messages tell.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be asked.
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
    Ok(kinds)
}

fn kind(name: &'static str, opens: impl Iterator<Item = bool>) -> SealedKind {
    let (opened, unopened): (Vec<bool>, Vec<bool>) = opens.partition(|opens| *opens);
    SealedKind { name, opened: opened.len(), unopened: unopened.len() }
}

/// Refuses to start where something sealed does not open.
///
/// # Errors
/// `Error::Setup` with what does not open and what to do. `Error::Unavailable` if the database cannot be asked.
pub async fn check(store: &Store, keyring: &Keyring, now: DateTime<Utc>) -> Result<()> {
    let kinds = open_one_of_each(store, keyring, now).await?;
    let closed: Vec<&str> = kinds.iter().filter(|kind| kind.unopened > 0).map(|kind| kind.name).collect();
    if closed.is_empty() {
        return Ok(());
    }
    Err(Error::Setup(format!("{} in the database do not open with the master keys given. {REMEDY}", closed.join(", "))))
}

/// What to do where something does not open.
pub const REMEDY: &str = "Give this installation's master key as --master-key (a private PostgreSQL has it in its data \
folder, in master.key). If it is lost for good, so is what it sealed: start with --accept-unopened, run `notihub key \
rotate-signing --at-once`, and create the webhook endpoints anew";
