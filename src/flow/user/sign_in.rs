//! Sign-in of a user with its password, within limits: failures are counted for the name and for the caller's address
//! in this process, and for the user in the database, over all processes.

use chrono::{DateTime, Utc};

use crate::crypt;
use crate::error::{Error, Result};
use crate::flow::sign_in::{may_try, partner_is_active};
use crate::hub::Hub;
use crate::model::access::password::wait_after;
use crate::model::access::principal::Origin;
use crate::model::access::user::{UserCaller, blocked};
use crate::model::user::{User, UserState, username_key};
use crate::store::audit::AuditEntry;
use crate::store::user::Credential;
use crate::store::{self, credential};

use super::partner::partner_of;
use super::password::{self, credentials_wrong};
use super::session::{self, UserTokens};

const LIMITED: &str = "too many failed sign-ins; check username and password, then wait";

/// Signs a user in with its password.
///
/// # Errors
/// `credentials_wrong` if name and password do not belong together; `user_blocked`, `partner_inactive`;
/// `partner_required` as `partner_of`. `Error::Limited` after too many failures, also for the right password.
/// `Error::Busy` if too many sign-ins wait. `Error::Unavailable` if the database fails.
pub async fn sign_in(
    hub: &Hub,
    partner_named: Option<&str>,
    username: &str,
    password: String,
    from: &Origin,
) -> Result<UserTokens> {
    let now = hub.clock.now();
    let network = may_try(hub, from, LIMITED)?;
    let partner = partner_of(hub, partner_named).await?;
    let key = username_key(username);
    let name = format!("u.{}.{key}", partner.as_ref().map_or_else(String::new, |p| p.partner_id.to_string()));
    let waits_s = hub.sign_in_throttle().client_waits_s(&name, network.as_deref(), now);
    waits_s.map_or(Ok(()), |wait_s| Err(limited(hub, wait_s)))?;
    let found = match &partner {
        Some(of) => store::user::find_for_sign_in(hub.store.api(), of.shard, of.partner_id, &key).await?,
        None => None,
    };
    if let Some(found) = &found {
        check_wait(hub, &found.credential, now)?;
    }
    let hash = found.as_ref().map(|found| found.credential.password_hash.clone());
    let is_right = password::verify(hub, password.clone(), hash).await?;
    let (Some(found), Some(partner), true) = (&found, &partner, is_right) else {
        hub.metrics.user_sign_ins.with_label_values(&["refused"]).inc();
        {
            let mut throttle = hub.sign_in_throttle();
            throttle.address_failed(network.as_deref(), now);
            throttle.unknown_client_failed(&name, now);
        }
        if let (Some(found), Some(partner)) = (&found, &partner) {
            failed(hub, &session::of_user(&found.user, partner, from)).await?;
        }
        return Err(credentials_wrong());
    };
    let (user, credential) = (&found.user, &found.credential);
    partner_is_active(partner)?;
    match user.state {
        UserState::Active => (),
        UserState::Blocked => return Err(blocked()),
        UserState::Deleted => return Err(credentials_wrong()),
    }
    succeeded(hub, user, credential, password).await?;
    let tokens = session::begin(hub, user, from).await?;
    hub.metrics.user_sign_ins.with_label_values(&["signed_in"]).inc();
    Ok(tokens)
}

/// Checks the password of a signed-in user, for an action that asks for it again. Counts a failure as a sign-in does.
///
/// # Errors
/// `credentials_wrong` if it is another one, or the user has none. `Error::Limited` after too many failures.
/// `Error::Busy` if too many sign-ins wait. `Error::Unavailable` if the database fails.
pub async fn check_password(hub: &Hub, caller: &UserCaller, password: String) -> Result<Credential> {
    let network = may_try(hub, &caller.origin, LIMITED)?;
    let now = hub.clock.now();
    let found = credential::get(hub.store.api(), caller.shard(), caller.user_id()).await?;
    if let Some(found) = &found {
        check_wait(hub, found, now)?;
    }
    let hash = found.as_ref().map(|found| found.password_hash.clone());
    match (password::verify(hub, password, hash).await?, found) {
        (true, Some(found)) => Ok(found),
        (_, found) => {
            hub.sign_in_throttle().address_failed(network.as_deref(), now);
            if found.is_some() {
                failed(hub, caller).await?;
            }
            Err(credentials_wrong())
        }
    }
}

fn check_wait(hub: &Hub, credential: &Credential, now: DateTime<Utc>) -> Result<()> {
    match credential.wait_until.filter(|until| *until > now) {
        Some(until) => {
            let left = (until - now).num_milliseconds().max(0).unsigned_abs().div_ceil(1_000);
            Err(limited(hub, u32::try_from(left).unwrap_or(u32::MAX)))
        }
        None => Ok(()),
    }
}

fn limited(hub: &Hub, retry_after_s: u32) -> Error {
    hub.metrics.user_sign_ins.with_label_values(&["limited"]).inc();
    Error::Limited { reason: "sign_in_limited", detail: LIMITED.into(), retry_after_s: retry_after_s.max(1) }
}

/// Counts a failed sign-in of a user. From the fifth in a row on the user waits, and the audit log has an entry.
async fn failed(hub: &Hub, by: &UserCaller) -> Result<()> {
    let (shard, user_id) = (by.shard(), by.user_id());
    let mut tx = hub.store.begin().await?;
    let Some(failures) = credential::lock_failures(&mut tx, shard, user_id).await? else {
        return Ok(tx.rollback().await?);
    };
    let failures = failures.saturating_add(1);
    let wait_until = wait_after(failures).map(|wait| hub.clock.now() + wait);
    credential::set_failures(&mut *tx, shard, user_id, failures, wait_until).await?;
    if let Some(until) = wait_until {
        let after = serde_json::json!({"failures": failures, "waitUntil": until.to_rfc3339()});
        let action = "user.sign_in_limited".into();
        let entry = AuditEntry { action, after: Some(after), ..session::audit_entry(&by.user) };
        session::audit(hub, &mut tx, by, &entry).await?;
    }
    Ok(tx.commit().await?)
}

/// Forgets the failures of a user that signed in, and hashes its password anew if the cost was changed.
async fn succeeded(hub: &Hub, user: &User, credential: &Credential, password: String) -> Result<()> {
    let db = hub.store.api();
    if credential.failures > 0 {
        credential::set_failures(db, user.shard, user.user_id, 0, None).await?;
    }
    if crypt::password_cost(&credential.password_hash) != Some(hub.settings.users.bcrypt_cost) {
        let (before, hash) = (&credential.password_hash, password::hash(hub, password).await?);
        credential::set_hash(db, user.shard, user.user_id, before, &hash, hub.clock.now()).await?;
    }
    Ok(())
}
