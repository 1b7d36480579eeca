//! Sign in: exchanges a client secret for tokens and a refresh token for new ones, resolves an access token to its
//! account, and maintains the keys that sign tokens.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::crypt;
use crate::error::{Code, Error, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::{AdminPermit, forbidden};
use crate::model::access::principal::{Account, Actor, Origin, Principal};
use crate::model::access::role::Role;
use crate::model::access::sign_in_throttle::{Failures, MAX_CLIENT_FAILURES};
use crate::model::access::token::{ACCESS_TTL, Claims, REFRESH_TTL, TokenKeys, TokenRefusal, subscriber_key_of};
use crate::model::access::user::user_of_client;
use crate::model::network;
use crate::model::partner::{Partner, PartnerStatus};
use crate::store::audit::AuditEntry;
use crate::store::hub::HubLock;
use crate::store::refresh_token::{self, SignInSession, TokenRow};
use crate::store::sign_in_failure;
use crate::store::signing_key::{self, SigningKey};
use crate::store::{self, key, listen};

use super::alert;

/// Prefix of refresh tokens, by which scanners of code and logs recognise them.
pub const REFRESH_PREFIX: &str = "nhr_";

/// How long a new key waits before it signs, so that every process has read it by then.
const ANNOUNCED: TimeDelta = TimeDelta::minutes(5);
/// How long a key signs before the next one takes over.
const SIGNS: TimeDelta = TimeDelta::days(30);
/// Two uses of one refresh token within this time are a race of its owner, not theft: the second is refused, and the
/// tokens of the first stay valid.
const REUSE_TOLERANCE: TimeDelta = TimeDelta::seconds(1);
/// How long a remembered account is used without a notification of a change.
const ACCOUNT_KEPT: TimeDelta = TimeDelta::seconds(10);

/// The tokens that a sign-in returns.
pub struct Tokens {
    /// Access token, a signed JWT.
    pub access: String,
    /// Refresh token, good for one use.
    pub refresh: String,
    /// Seconds until the access token expires.
    pub expires_in_s: i64,
}

/// Signs a client in by its secret. Failures are counted for the client and for the network of `from`. An audited
/// account gets an entry in the audit log.
///
/// # Errors
/// `Error::Refused` if id and secret do not belong together, the key was revoked or the partner is inactive.
/// `Error::Limited` after too many failures. `Error::Unavailable` if the database fails; a refresh token may have been
/// written then that the caller does not know.
pub async fn sign_in(hub: &Hub, client_id: &str, secret: &str, from: &Origin) -> Result<Tokens> {
    let now = hub.clock.now();
    let network = network_of(from);
    let network = network.as_deref();
    let waits_s = {
        let throttle = hub.sign_in_throttle();
        throttle.address_waits_s(network, now).max(throttle.client_waits_s(client_id, network, now))
    };
    waits_s.map_or(Ok(()), |wait_s| Err(limited(wait_s, LIMITED)))?;
    let judged = key::get_for_sign_in(hub.store.api(), client_id, network.unwrap_or_default(), now).await?;
    let judge = |failures: Option<Failures>, most: u32| match failures.and_then(|f| Some((f, f.wait_s(most, now)?))) {
        None => Ok(()),
        Some((failures, wait_s)) => {
            hub.sign_in_throttle().client_is_limited(client_id, network, failures, now);
            Err(limited(wait_s, LIMITED))
        }
    };
    judge(judged.as_ref().and_then(|judged| judged.failures), MAX_CLIENT_FAILURES)?;
    let (key, group) = judged.map(|judged| (judged.key, judged.network)).unzip();
    // The same work whether the client exists or not, so that the time of the answer does not reveal it.
    let hash = crypt::keyed_hash(&hub.pepper, secret.as_bytes());
    let no_hash = [0; 32];
    let (current, former) = match &key {
        Some(key) => {
            let former = key.former_hash.as_deref().filter(|_| key.former_until.is_some_and(|until| until > now));
            (key.secret_hash.as_slice(), former.unwrap_or(&no_hash))
        }
        None => (no_hash.as_slice(), no_hash.as_slice()),
    };
    let (is_current, is_former) = (crypt::same(current, &hash), crypt::same(former, &hash));
    let Some(key) = key.filter(|key| (is_current | is_former) && key.revoked_at.is_none()) else {
        hub.sign_in_throttle().address_failed(network, now);
        match group {
            None => hub.sign_in_throttle().unknown_client_failed(client_id, now),
            Some(group) => {
                let failures = sign_in_failure::add(hub.store.api(), client_id, &group, now).await?;
                // Other sign-ins failed while this one was checked.
                judge(Some(failures), MAX_CLIENT_FAILURES + 1)?;
            }
        }
        return Err(unauthenticated("clientId and clientSecret do not belong together"));
    };
    let account = account(hub, &key.client_id).await?;
    is_active(&account)?;
    if account.principal.is_audited() {
        let (who, principal) = (key.client_id.clone(), account.principal.clone());
        let actor = Actor { name: who, principal, origin: from.clone() };
        let entry = AuditEntry { action: "sign_in".into(), ..AuditEntry::default() };
        store::audit::insert(hub.store.api(), hub.next_id(), now, &actor, &entry).await?;
    }
    // Tokens given for a former secret end with it.
    let epoch = if is_current { key.epoch } else { key.epoch - 1 };
    let session = SignInSession { family: hub.next_id(), client_id: key.client_id, epoch };
    let refresh = crypt::secret(REFRESH_PREFIX);
    refresh_token::insert(hub.store.api(), &hashed(hub, &refresh), &session, now, now + REFRESH_TTL, network).await?;
    tokens(hub, &session, account.principal.role(), refresh, now).await
}

async fn tokens(hub: &Hub, session: &SignInSession, role: Role, refresh: String, now: DateTime<Utc>) -> Result<Tokens> {
    let claims = Claims::new(&session.client_id, role, session.epoch, now);
    let access = signed(hub, |keys| keys.sign(&claims, now)).await?;
    Ok(Tokens { access, refresh, expires_in_s: ACCESS_TTL.num_seconds() })
}

/// The token that `sign` makes with the keys of this process. If no key signs now, because the installation is new or
/// was off for long, one is made.
///
/// # Errors
/// `Error::Unavailable` if a key has to be made and the database fails.
pub async fn signed(hub: &Hub, sign: impl Fn(&TokenKeys) -> Result<String>) -> Result<String> {
    match sign(&hub.token_keys.get()) {
        Ok(token) => Ok(token),
        Err(_) => {
            maintain_keys(hub).await?;
            sign(&hub.token_keys.get())
        }
    }
}

fn hashed(hub: &Hub, token: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, token.as_bytes())
}

/// Exchanges a refresh token for new tokens; it is used up. If it was used before, it or its successor was stolen: all
/// tokens of the same sign-in are revoked.
///
/// # Errors
/// `Error::Refused` if the token is unknown, expired, used or revoked, or the partner is inactive. `Error::Limited`
/// after too many failures. `Error::Unavailable` if the database fails; the token may be used up.
pub async fn refresh(hub: &Hub, token: &str, from: &Origin) -> Result<Tokens> {
    let (now, hash) = (hub.clock.now(), hashed(hub, token));
    let network = may_try(hub, from, LIMITED)?;
    let refused = || unauthenticated("the refresh token is no longer valid; sign in");
    let used_token = match token.starts_with(REFRESH_PREFIX) {
        true => refresh_token::get(hub.store.api(), &hash).await?.filter(is_of_a_client),
        false => None,
    };
    let Some(used_token) = used_token else {
        hub.sign_in_throttle().address_failed(network.as_deref(), now);
        return Err(refused());
    };
    // Before the transaction: a task that holds a connection must not wait for a second one.
    let account = account(hub, &used_token.client_id).await?;
    let next = crypt::secret(REFRESH_PREFIX);
    let mut tx = hub.store.begin().await?;
    let Some(session) = refresh_token::consume(&mut *tx, &hash, now).await? else {
        tx.rollback().await?;
        revoke_if_reused(hub, &hash, now, from).await?;
        return Err(refused());
    };
    if !account.accepts_epoch(session.epoch, now) {
        tx.rollback().await?;
        return Err(refused());
    }
    is_active(&account)?;
    refresh_token::insert(&mut *tx, &hashed(hub, &next), &session, now, now + REFRESH_TTL, network.as_deref()).await?;
    tx.commit().await?;
    tokens(hub, &session, account.principal.role(), next, now).await
}

/// Whether a token that cannot be used now was used before, and its sign-in still stands: then it or its successor was
/// stolen.
pub fn is_reuse(token: &TokenRow, now: DateTime<Utc>) -> bool {
    token.revoked_at.is_none() && token.used_at.is_some_and(|used_at| now >= used_at + REUSE_TOLERANCE)
}

/// Whether a refresh token is a client's, and not a user's.
fn is_of_a_client(token: &TokenRow) -> bool {
    user_of_client(&token.client_id).is_none()
}

async fn revoke_if_reused(hub: &Hub, hash: &[u8], now: DateTime<Utc>, from: &Origin) -> Result<()> {
    let Some(used_token) = refresh_token::get(hub.store.api(), hash).await?.filter(|row| is_reuse(row, now)) else {
        return Ok(());
    };
    let account = account(hub, &used_token.client_id).await?;
    let mut tx = hub.store.begin().await?;
    revoke_family(&mut tx, used_token.family, now).await?;
    let partner_id = match &account.principal {
        Principal::Partner(partner) => Some(partner.partner_id),
        Principal::Staff(_) => None,
    };
    let actor = Actor { name: used_token.client_id, principal: account.principal.clone(), origin: from.clone() };
    let entry = AuditEntry {
        action: "refresh_token.reused".into(),
        object: Some(used_token.family.to_string()),
        partner_id,
        ..AuditEntry::default()
    };
    store::audit::insert(&mut *tx, hub.next_id(), now, &actor, &entry).await?;
    tx.commit().await?;
    tracing::warn!(client = actor.name, "a refresh token was used twice; all tokens of its sign-in were revoked");
    alert::refresh_token_reused(hub, format!("Client {}", actor.name)).await;
    Ok(())
}

/// Revokes a refresh token and all others of the same sign-in. An unknown token is no error, so that the answer does
/// not reveal which exist; it counts as a failure of the caller's network.
///
/// # Errors
/// `Error::Limited` after too many failures. `Error::Unavailable` if the database fails; the token may be revoked.
pub async fn revoke(hub: &Hub, token: &str, from: &Origin) -> Result<()> {
    let now = hub.clock.now();
    let network = may_try(hub, from, LIMITED)?;
    match refresh_token::get(hub.store.api(), &hashed(hub, token)).await?.filter(is_of_a_client) {
        None => hub.sign_in_throttle().address_failed(network.as_deref(), now),
        Some(used_token) => {
            let mut tx = hub.store.begin().await?;
            revoke_family(&mut tx, used_token.family, now).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Revokes all refresh tokens of a sign-in. Repeats until nothing is left: a successor that was written while the
/// statement waited for the lock of its predecessor is visible only to the next statement.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn revoke_family(tx: &mut store::Conn, family: Tsid, now: DateTime<Utc>) -> Result<()> {
    while refresh_token::revoke_family(&mut *tx, family, now).await? > 0 {}
    Ok(())
}

/// The network for which a caller's failures are counted; None if its address is unknown. A name under which a proxy
/// hides an address is used as it is.
pub fn network_of(from: &Origin) -> Option<String> {
    let address = from.address.as_deref()?;
    Some(address.parse().map_or_else(|_| address.to_owned(), |ip| network::of(ip).to_string()))
}

/// Returns the caller's network, unless too many requests from it have failed. `detail`: a sentence with the remedy.
///
/// # Errors
/// `Error::Limited` if too many have failed.
pub fn may_try(hub: &Hub, from: &Origin, detail: &str) -> Result<Option<String>> {
    let network = network_of(from);
    match hub.sign_in_throttle().address_waits_s(network.as_deref(), hub.clock.now()) {
        None => Ok(network),
        Some(wait_s) => Err(limited(wait_s, detail)),
    }
}

const LIMITED: &str = "too many failed sign-ins; check clientId and clientSecret, then wait";

fn limited(retry_after_s: u32, detail: &str) -> Error {
    Error::Limited { reason: "sign_in_limited", detail: detail.to_owned(), retry_after_s }
}

/// Resolves an access token to its account.
///
/// # Errors
/// `Error::Refused` if the token is invalid, expired or revoked, or the partner is inactive. `Error::Unavailable` if
/// the account or an unknown key has to be read and the database fails.
pub async fn authenticate(hub: &Hub, token: &str) -> Result<Arc<Account>> {
    let now = hub.clock.now();
    let user = || Err(forbidden("a client's access token; this one is a user's"));
    if subscriber_key_of(token).is_some() {
        return user();
    }
    let claims = match verified(hub, |keys| keys.verify(token, now)).await? {
        Err(TokenRefusal::Invalid) if hub.token_keys.get().verify_user(token, now).is_ok() => return user(),
        verified => verified.map_err(token_refused)?,
    };
    let account = account(hub, &claims.sub).await?;
    if !account.accepts_epoch(claims.epoch, now) || account.principal.role().as_str() != claims.role {
        return Err(unauthenticated("the access token was revoked; sign in"));
    }
    is_active(&account)?;
    Ok(account)
}

/// The result of `verify` with the keys that this process knows. If the token names an unknown key, the keys are read
/// and `verify` is called again: another process may have signed it with a newer key.
///
/// # Errors
/// `Error::Unavailable` if the keys have to be read and the database fails.
pub async fn verified<C>(
    hub: &Hub,
    verify: impl Fn(&TokenKeys) -> Result<C, TokenRefusal>,
) -> Result<Result<C, TokenRefusal>> {
    let unknown = |verified: &Result<C, TokenRefusal>| matches!(verified, Err(TokenRefusal::UnknownKey));
    let mut verified = verify(&hub.token_keys.get());
    if unknown(&verified) {
        // One request reads the keys, the others wait for it.
        let _turn = hub.token_keys.read_turn().await;
        verified = verify(&hub.token_keys.get());
        if unknown(&verified) && hub.token_keys.may_read_again(hub.clock.now()) {
            read_keys(hub).await?;
            verified = verify(&hub.token_keys.get());
        }
    }
    Ok(verified)
}

/// The error of a caller whose token is not accepted.
pub fn token_refused(refused: TokenRefusal) -> Error {
    match refused {
        TokenRefusal::Expired => {
            Refusal::new(401, "token_expired", "the access token has expired; refresh it, or sign in")
                .with_code(Code::E002)
                .into()
        }
        TokenRefusal::Invalid | TokenRefusal::UnknownKey => {
            unauthenticated("the access token is not one of ours; sign in")
        }
    }
}

fn is_active(account: &Account) -> Result<()> {
    match &account.principal {
        Principal::Partner(partner) => partner_is_active(partner),
        Principal::Staff(_) => Ok(()),
    }
}

/// Checks that a partner may use the hub.
///
/// # Errors
/// `partner_inactive` if it is inactive.
pub fn partner_is_active(partner: &Partner) -> Result<()> {
    match partner.status {
        PartnerStatus::Active => Ok(()),
        PartnerStatus::Inactive => {
            let detail = "this partner is inactive; ask an admin of this hub";
            Err(Refusal::new(403, "partner_inactive", detail).with_code(Code::E008).into())
        }
    }
}

/// The error of a caller that is not signed in; `detail` says why.
pub fn unauthenticated(detail: &str) -> Error {
    Refusal::new(401, "unauthenticated", detail).with_code(Code::E002).into()
}

/// The account of a client: from memory for `ACCOUNT_KEPT`, unless it was changed.
async fn account(hub: &Hub, client_id: &str) -> Result<Arc<Account>> {
    let now = hub.clock.now();
    if let Some(account) = hub.accounts.get(client_id, now - ACCOUNT_KEPT) {
        return Ok(account);
    }
    let generation = hub.accounts.generation();
    let db = hub.store.api();
    let key = key::get(db, client_id).await?.ok_or_else(|| unauthenticated("there is no such client; sign in"))?;
    let principal = match (key.role, key.partner_id) {
        (Role::Partner, Some(id)) => {
            let gone = || Refusal::new(404, "partner_unknown", "there is no such partner").with_code(Code::E007);
            Principal::Partner(Arc::new(store::partner::get(db, id).await?.ok_or_else(gone)?))
        }
        (Role::Staff(role), None) => Principal::Staff(role),
        // A constraint of the table forbids both cases.
        (Role::Partner, None) | (Role::Staff(_), Some(_)) => {
            return Err(forbidden("a key that is either a partner's or staff's"));
        }
    };
    let account = Arc::new(Account {
        client_id: key.client_id,
        principal,
        epoch: key.epoch,
        previous_epoch_until: key.former_until,
        revoked: key.revoked_at.is_some(),
    });
    hub.accounts.remember(account.clone(), now, generation);
    Ok(account)
}

/// Reads the keys that sign and verify access tokens. A key that does not open here is logged and left out.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the keys known before stay.
pub async fn read_keys(hub: &Hub) -> Result<()> {
    let mut keys = TokenKeys::default();
    for key in signing_key::list(hub.store.api(), hub.clock.now()).await? {
        match hub.keyring.open(&seal_place(&key.kid), &key.sealed) {
            Ok(secret) => keys.add(key.kid, secret, key.active_at, key.expires_at),
            // Tokens signed with this key are rejected here; the other keys work.
            Err(e) => {
                tracing::error!(
                    error = %e,
                    "a key that signs tokens does not open with the master keys given; tokens signed with it are \
                     refused"
                )
            }
        }
    }
    hub.token_keys.set(keys);
    Ok(())
}

pub(super) fn seal_place(kid: &str) -> String {
    format!("signing_keys|sealed|{kid}")
}

/// Creates the next signing key when it is due, deletes expired keys, and reads all.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn maintain_keys(hub: &Hub) -> Result<()> {
    let now = hub.clock.now();
    let opens = |key: &SigningKey| hub.keyring.open(&seal_place(&key.kid), &key.sealed).is_ok();
    let is_due = |keys: &[SigningKey]| keys.iter().all(|k| k.active_at + SIGNS <= now || !opens(k));
    if is_due(&signing_key::list(hub.store.api(), now).await?) {
        let mut tx = hub.store.begin().await?;
        store::hub::lock(&mut tx, HubLock::SigningKeys).await?;
        // Another process may have created it while this one waited for the lock.
        let keys = signing_key::list(&mut *tx, now).await?;
        if is_due(&keys) {
            // It signs at once if no other key can sign.
            let others = keys.iter().any(|k| k.active_at <= now && k.expires_at > now + ACCESS_TTL && opens(k));
            make_key(hub, &mut tx, if others { now + ANNOUNCED } else { now }).await?;
        }
        signing_key::delete_expired(&mut *tx, now).await?;
        tx.commit().await?;
    }
    read_keys(hub).await
}

async fn make_key(hub: &Hub, tx: &mut store::Conn, active_at: DateTime<Utc>) -> Result<String> {
    let kid = hub.next_id().to_string();
    let sealed = hub.keyring.seal(&seal_place(&kid), &crypt::random())?;
    let expires_at = active_at + SIGNS * 2 + ACCESS_TTL;
    let key = SigningKey { kid: kid.clone(), sealed, created_at: hub.clock.now(), active_at, expires_at };
    signing_key::insert(tx, &key).await?;
    tracing::info!(kid, "a new key that signs tokens was created");
    Ok(kid)
}

/// Creates a new signing key and returns its id. It signs after `ANNOUNCED`, when every process has read it. With
/// `at_once` it signs now, and all tokens signed before are invalid: for a key that was lost.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during or after the commit.
pub async fn rotate_signing_key(hub: &Hub, permit: AdminPermit<'_>, at_once: bool) -> Result<String> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin().await?;
    store::hub::lock(&mut tx, HubLock::SigningKeys).await?;
    let kid = make_key(hub, &mut tx, if at_once { now } else { now + ANNOUNCED }).await?;
    if at_once {
        signing_key::expire_others(&mut *tx, &kid, now).await?;
    }
    let after = serde_json::json!({"kid": kid, "atOnce": at_once});
    let entry = AuditEntry {
        action: "signing_key.rotate".into(),
        object: Some(kid.clone()),
        after: Some(after),
        ..AuditEntry::default()
    };
    store::audit::insert(&mut *tx, hub.next_id(), now, permit.actor(), &entry).await?;
    tx.commit().await?;
    read_keys(hub).await?;
    // Other processes read the new key when a token names it, at the latest within a minute. They are notified now, so
    // that they forget expired keys.
    listen::notify_changed(&hub.store).await?;
    Ok(kid)
}

/// Seals the signing keys anew under the first master key; returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database fails; some keys may be sealed anew.
pub async fn reseal_keys(hub: &Hub) -> Result<usize> {
    let mut done = 0;
    for key in signing_key::list(hub.store.api(), hub.clock.now()).await? {
        let place = seal_place(&key.kid);
        if !hub.keyring.is_fresh(&key.sealed)
            && let Ok(secret) = hub.keyring.open(&place, &key.sealed)
        {
            let sealed = hub.keyring.seal(&place, &secret)?;
            signing_key::update_sealed(hub.store.api(), &key.kid, &sealed).await?;
            done += 1;
        }
    }
    Ok(done)
}
