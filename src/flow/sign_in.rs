//! Sign in: a client's secret for tokens, a refresh token for the next, a token for who is asking.

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
use crate::model::access::token::{ACCESS_TTL, Claims, REFRESH_TTL, TokenKeys, TokenRefusal};
use crate::model::network;
use crate::model::partner::PartnerStatus;
use crate::store::audit::AuditEntry;
use crate::store::hub::HubLock;
use crate::store::refresh_token::{self, SignInSession};
use crate::store::sign_in_failure;
use crate::store::signing_key::{self, SigningKey};
use crate::store::{self, key, listen};

pub const REFRESH_PREFIX: &str = "nhr_";

/// A new signing key signs after this: by then every process has read it.
const ANNOUNCED: TimeDelta = TimeDelta::minutes(5);
/// How long a key signs before the next does.
const SIGNS: TimeDelta = TimeDelta::days(30);
/// Two uses of one refresh token so close together are a race of its owner's, not theft: the second gets nothing, and the
/// first's tokens stay good.
const REUSE_TOLERANCE: TimeDelta = TimeDelta::seconds(1);
/// How long what was read of an account is believed when no notice comes.
const ACCOUNT_KEPT: TimeDelta = TimeDelta::seconds(10);

/// What a sign-in gives.
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub expires_in_s: i64,
}

/// `from`: where the caller came from, for the limit and the audit log.
pub async fn sign_in(hub: &Hub, client_id: &str, secret: &str, from: &Origin) -> Result<Tokens> {
    let now = hub.clock.now();
    let network = network_of(from);
    let network = network.as_deref();
    let waits_s = {
        let strikes = hub.sign_in_throttle();
        strikes.address_waits_s(network, now).max(strikes.client_waits_s(client_id, network, now))
    };
    waits_s.map_or(Ok(()), |wait_s| Err(limited(wait_s)))?;
    let judged = key::get_for_sign_in(hub.store.api(), client_id, network.unwrap_or_default(), now).await?;
    let judge = |failures: Option<Failures>, most: u32| match failures.and_then(|f| Some((f, f.wait_s(most, now)?))) {
        None => Ok(()),
        Some((failures, wait_s)) => {
            hub.sign_in_throttle().client_is_limited(client_id, network, failures, now);
            Err(limited(wait_s))
        }
    };
    judge(judged.as_ref().and_then(|judged| judged.failures), MAX_CLIENT_FAILURES)?;
    let (key, group) = judged.map(|judged| (judged.key, judged.network)).unzip();
    // The same work whether there is such a client or not.
    let hash = crypt::keyed_hash(&hub.pepper, secret.as_bytes());
    let nobody = [0; 32];
    let (current, former) = match &key {
        Some(key) => {
            let former = key.former_hash.as_deref().filter(|_| key.former_until.is_some_and(|until| until > now));
            (key.secret_hash.as_slice(), former.unwrap_or(&nobody))
        }
        None => (nobody.as_slice(), nobody.as_slice()),
    };
    let (is_current, is_former) = (crypt::same(current, &hash), crypt::same(former, &hash));
    let Some(key) = key.filter(|key| (is_current | is_former) && key.revoked_at.is_none()) else {
        hub.sign_in_throttle().address_failed(network, now);
        match group {
            None => hub.sign_in_throttle().unknown_client_failed(client_id, now),
            Some(group) => {
                let failures = sign_in_failure::add(hub.store.api(), client_id, &group, now).await?;
                // Others failed while this one was judged.
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
        let deed = AuditEntry { action: "sign_in".into(), ..AuditEntry::default() };
        store::audit::insert(hub.store.api(), hub.next_id(), now, &actor, &deed).await?;
    }
    // What a secret that is being replaced gives ends with it.
    let epoch = if is_current { key.epoch } else { key.epoch - 1 };
    let of = SignInSession { family: hub.next_id(), client_id: key.client_id, epoch };
    let refresh = crypt::secret(REFRESH_PREFIX);
    refresh_token::insert(hub.store.api(), &hashed(hub, &refresh), &of, now, now + REFRESH_TTL, network).await?;
    tokens(hub, &of, account.principal.role(), refresh, now).await
}

async fn tokens(hub: &Hub, of: &SignInSession, role: Role, refresh: String, now: DateTime<Utc>) -> Result<Tokens> {
    let claims = Claims::new(&of.client_id, role, of.epoch, now);
    let access = match hub.token_keys.get().sign(&claims, now) {
        Ok(access) => access,
        // The first sign-in of an installation, or of one that was off for long: keys are made by who needs them.
        Err(_) => {
            maintain_keys(hub).await?;
            hub.token_keys.get().sign(&claims, now)?
        }
    };
    Ok(Tokens { access, refresh, expires_in_s: ACCESS_TTL.num_seconds() })
}

fn hashed(hub: &Hub, token: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, token.as_bytes())
}

/// Uses a refresh token up for the next. One that was used before was stolen, or its successor was: all that came from
/// the same sign-in is void.
pub async fn refresh(hub: &Hub, token: &str, from: &Origin) -> Result<Tokens> {
    let (now, hash) = (hub.clock.now(), hashed(hub, token));
    let network = may_try(hub, from, now)?;
    let refused = || unauthenticated("the refresh token is not good any more; sign in");
    let past = match token.starts_with(REFRESH_PREFIX) {
        true => refresh_token::get(hub.store.api(), &hash).await?,
        false => None,
    };
    let Some(past) = past else {
        hub.sign_in_throttle().address_failed(network.as_deref(), now);
        return Err(refused());
    };
    // Before the transaction: whoever holds a connection must not wait for another.
    let account = account(hub, &past.client_id).await?;
    let next = crypt::secret(REFRESH_PREFIX);
    let mut tx = hub.store.begin().await?;
    let Some(of) = refresh_token::consume(&mut *tx, &hash, now).await? else {
        tx.rollback().await?;
        revoke_if_reused(hub, &hash, now, from).await?;
        return Err(refused());
    };
    if !account.accepts_epoch(of.epoch, now) {
        tx.rollback().await?;
        return Err(refused());
    }
    is_active(&account)?;
    refresh_token::insert(&mut *tx, &hashed(hub, &next), &of, now, now + REFRESH_TTL, network.as_deref()).await?;
    tx.commit().await?;
    tokens(hub, &of, account.principal.role(), next, now).await
}

async fn revoke_if_reused(hub: &Hub, hash: &[u8], now: DateTime<Utc>, from: &Origin) -> Result<()> {
    let Some(past) = refresh_token::get(hub.store.api(), hash).await? else { return Ok(()) };
    let Some(used_at) = past.used_at.filter(|_| past.revoked_at.is_none()) else { return Ok(()) };
    if now < used_at + REUSE_TOLERANCE {
        return Ok(());
    }
    let account = account(hub, &past.client_id).await?;
    let mut tx = hub.store.begin().await?;
    revoke_family(&mut tx, past.family, now).await?;
    let partner_id = match &account.principal {
        Principal::Partner(partner) => Some(partner.partner_id),
        Principal::Staff(_) => None,
    };
    let actor = Actor { name: past.client_id, principal: account.principal.clone(), origin: from.clone() };
    let deed = AuditEntry {
        action: "refresh_token.reused".into(),
        object: Some(past.family.to_string()),
        partner_id,
        ..AuditEntry::default()
    };
    store::audit::insert(&mut *tx, hub.next_id(), now, &actor, &deed).await?;
    tx.commit().await?;
    tracing::warn!(client = actor.name, "a refresh token was used twice: all that came from its sign-in is void");
    Ok(())
}

/// Voids a refresh token and all that came from the same sign-in. Says nothing of whether there was one; a token that
/// does not exist counts against the address as a failed sign-in does.
pub async fn revoke(hub: &Hub, token: &str, from: &Origin) -> Result<()> {
    let now = hub.clock.now();
    let network = may_try(hub, from, now)?;
    match refresh_token::get(hub.store.api(), &hashed(hub, token)).await? {
        None => hub.sign_in_throttle().address_failed(network.as_deref(), now),
        Some(past) => {
            let mut tx = hub.store.begin().await?;
            revoke_family(&mut tx, past.family, now).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Again until nothing is left: a successor that was being written while we waited for its forerunner is seen only by the
/// next statement.
async fn revoke_family(tx: &mut store::Conn, family: Tsid, now: DateTime<Utc>) -> Result<()> {
    while refresh_token::revoke_family(&mut *tx, family, now).await? > 0 {}
    Ok(())
}

/// The network that a caller's failures are counted for; none where its address is unknown. A name under which a proxy
/// hides an address stands for itself.
fn network_of(from: &Origin) -> Option<String> {
    let address = from.address.as_deref()?;
    Some(address.parse().map_or_else(|_| address.to_owned(), |ip| network::of(ip).to_string()))
}

/// The caller's network, unless too many requests from it have failed.
fn may_try(hub: &Hub, from: &Origin, now: DateTime<Utc>) -> Result<Option<String>> {
    let network = network_of(from);
    match hub.sign_in_throttle().address_waits_s(network.as_deref(), now) {
        None => Ok(network),
        Some(wait_s) => Err(limited(wait_s)),
    }
}

fn limited(retry_after_s: u32) -> Error {
    let detail = "too many failed sign-ins; check clientId and clientSecret, then wait".to_owned();
    Error::Limited { reason: "sign_in_limited", detail, retry_after_s }
}

/// Who an access token speaks for, if it may still.
pub async fn authenticate(hub: &Hub, token: &str) -> Result<Arc<Account>> {
    let now = hub.clock.now();
    let mut verified = hub.token_keys.get().verify(token, now);
    if verified == Err(TokenRefusal::UnknownKey) {
        // Signed by a process that has a newer key than we have read, perhaps. Who comes while it is being read waits for it.
        let _turn = hub.token_keys.read_turn().await;
        verified = hub.token_keys.get().verify(token, now);
        if verified == Err(TokenRefusal::UnknownKey) && hub.token_keys.may_read_again(now) {
            read_keys(hub).await?;
            verified = hub.token_keys.get().verify(token, now);
        }
    }
    let claims = verified.map_err(|refused| match refused {
        TokenRefusal::Expired => Error::from(
            Refusal::new(401, "token_expired", "the access token is over; refresh it, or sign in")
                .with_code(Code::E002),
        ),
        TokenRefusal::Invalid | TokenRefusal::UnknownKey => {
            unauthenticated("the access token is not one of ours; sign in")
        }
    })?;
    let account = account(hub, &claims.sub).await?;
    if !account.accepts_epoch(claims.epoch, now) || account.principal.role().as_str() != claims.role {
        return Err(unauthenticated("the access token was revoked; sign in"));
    }
    is_active(&account)?;
    Ok(account)
}

fn is_active(account: &Account) -> Result<()> {
    match &account.principal {
        Principal::Partner(partner) if partner.status == PartnerStatus::Inactive => {
            let detail = "this partner is inactive; ask who runs this hub";
            Err(Refusal::new(403, "partner_inactive", detail).with_code(Code::E008).into())
        }
        Principal::Partner(_) | Principal::Staff(_) => Ok(()),
    }
}

pub fn unauthenticated(detail: &str) -> Error {
    Refusal::new(401, "unauthenticated", detail).with_code(Code::E002).into()
}

/// A client's account, from memory while nobody said that it changed.
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
        // A constraint of the table forbids both.
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

/// Reads the keys that sign and verify.
pub async fn read_keys(hub: &Hub) -> Result<()> {
    let mut keys = TokenKeys::default();
    for key in signing_key::list(hub.store.api(), hub.clock.now()).await? {
        match hub.keyring.open(&seal_place(&key.kid), &key.sealed) {
            Ok(secret) => keys.add(key.kid, secret, key.active_at, key.expires_at),
            // What it signed is not taken here; all else goes on.
            Err(e) => tracing::error!(error = %e, "a key that signs tokens cannot be used"),
        }
    }
    hub.token_keys.set(keys);
    Ok(())
}

pub(super) fn seal_place(kid: &str) -> String {
    format!("signing_keys|sealed|{kid}")
}

/// Makes the next key in time, forgets those that are over, and reads what there is.
pub async fn maintain_keys(hub: &Hub) -> Result<()> {
    let now = hub.clock.now();
    let opens = |key: &SigningKey| hub.keyring.open(&seal_place(&key.kid), &key.sealed).is_ok();
    let is_due = |keys: &[SigningKey]| keys.iter().all(|k| k.active_at + SIGNS <= now || !opens(k));
    if is_due(&signing_key::list(hub.store.api(), now).await?) {
        let mut tx = hub.store.begin().await?;
        store::hub::lock(&mut tx, HubLock::SigningKeys).await?;
        // Another process may have made it while we waited for the lock.
        let keys = signing_key::list(&mut *tx, now).await?;
        if is_due(&keys) {
            // It signs at once where there is nothing else to sign with.
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
    tracing::info!(kid, "a new key to sign tokens with");
    Ok(kid)
}

/// A new signing key: every process has read it before it signs. With `at_once` it signs now, and whatever was signed
/// before is void: for when a key was lost.
pub async fn rotate_signing_key(hub: &Hub, permit: AdminPermit<'_>, at_once: bool) -> Result<String> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin().await?;
    store::hub::lock(&mut tx, HubLock::SigningKeys).await?;
    let kid = make_key(hub, &mut tx, if at_once { now } else { now + ANNOUNCED }).await?;
    if at_once {
        signing_key::expire_others(&mut *tx, &kid, now).await?;
    }
    let after = serde_json::json!({"kid": kid, "atOnce": at_once});
    let deed = AuditEntry {
        action: "signing_key.rotate".into(),
        object: Some(kid.clone()),
        after: Some(after),
        ..AuditEntry::default()
    };
    store::audit::insert(&mut *tx, hub.next_id(), now, permit.actor(), &deed).await?;
    tx.commit().await?;
    read_keys(hub).await?;
    // Others read it when a token names it, and within a minute anyhow; what they hold void they forget now.
    listen::notify_changed(&hub.store).await?;
    Ok(kid)
}

/// Seals the signing keys anew under the master key that seals now; says how many.
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
