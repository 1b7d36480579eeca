//! Partners and keys: create, change, rotate and revoke. Each change writes its entry in the audit log in the same
//! transaction.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::crypt;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::AdminPermit;
use crate::model::access::principal::Actor;
use crate::model::access::role::{Role, StaffRole};
use crate::model::access::token::subscriber_kid;
use crate::model::channel::Channel;
use crate::model::partner::{Partner, PartnerStatus, is_reserved_name, shard_of};
use crate::store::audit::AuditEntry;
use crate::store::{self, key, listen, partner, sql_intake, user_key};

/// Prefix of client secrets, by which scanners of code and logs recognise them.
pub const SECRET_PREFIX: &str = "nhs_";
/// Prefix of the keys with which partners sign tokens for their users.
pub const USER_KEY_PREFIX: &str = "nhu_";
/// Longest time that a secret may stay valid after it was replaced.
pub const OVERLAP_MOST: TimeDelta = TimeDelta::days(30);

/// The credentials of a client. The secret is stored only as a hash, so this is the only time it is shown.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: String,
}

/// Changes to a partner, or the fields of a new one. None leaves a field as it is; in a nested option the inner None
/// clears it.
#[derive(Debug, Clone, Default)]
pub struct PartnerChange {
    pub name: Option<String>,
    pub status: Option<PartnerStatus>,
    pub rate_limit_tps: Option<i32>,
    pub lookup_days: Option<i16>,
    pub retention_days: Option<Option<i16>>,
    /// Only for a new partner.
    pub time_zone: Option<String>,
    pub region: Option<String>,
    pub channels: Option<Option<Vec<Channel>>>,
    pub may_schedule: Option<bool>,
    pub may_cancel: Option<bool>,
    pub encrypt_content: Option<bool>,
    pub may_receive_content: Option<bool>,
    pub sign_up: Option<bool>,
}

impl PartnerChange {
    fn apply(self, p: &mut Partner) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut p.name, self.name);
        set(&mut p.status, self.status);
        set(&mut p.rate_limit_tps, self.rate_limit_tps);
        set(&mut p.lookup_days, self.lookup_days);
        set(&mut p.retention_days, self.retention_days);
        set(&mut p.time_zone, self.time_zone);
        set(&mut p.region, self.region);
        set(&mut p.channels, self.channels);
        set(&mut p.may_schedule, self.may_schedule);
        set(&mut p.may_cancel, self.may_cancel);
        set(&mut p.encrypt_content, self.encrypt_content);
        set(&mut p.may_receive_content, self.may_receive_content);
        set(&mut p.sign_up, self.sign_up);
    }
}

/// Creates a partner with its key, and returns both.
///
/// # Errors
/// `Error::Refused` if the name is taken or reserved or the time zone is unknown; nothing was written.
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn create(hub: &Hub, permit: AdminPermit<'_>, change: PartnerChange) -> Result<(Partner, Credentials)> {
    let partner_id = hub.next_id();
    let mut new_partner = Partner::new(partner_id, String::new(), shard_of(partner_id, hub.settings.database.shards));
    change.apply(&mut new_partner);
    check_name(&new_partner.name)?;
    check_time_zone(hub, &new_partner).await?;
    let (key, credentials) = new_key(hub, Role::Partner, Some(partner_id), &new_partner.name);
    let now = hub.clock.now();
    let mut tx = hub.store.begin().await?;
    if !partner::insert(&mut *tx, &new_partner, now).await? {
        tx.rollback().await?;
        return Err(name_taken());
    }
    key::insert(&mut *tx, &key, now).await?;
    let entry = AuditEntry { after: Some(audit_view(&new_partner)), ..audit_entry(&new_partner, "partner.create") };
    audit(hub, &mut tx, permit.actor(), &entry).await?;
    tx.commit().await?;
    forget_accounts(hub).await;
    Ok((new_partner, credentials))
}

/// Changes a partner and returns it as it is now. All processes forget the accounts that they remember. A partner that
/// becomes INACTIVE loses all its tokens.
///
/// # Errors
/// `Error::Refused` if there is no such partner, or the new name is taken or reserved; nothing was written.
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn update(hub: &Hub, permit: AdminPermit<'_>, id: Tsid, change: PartnerChange) -> Result<Partner> {
    let mut tx = hub.store.begin().await?;
    let before = partner::lock(&mut tx, id).await?.ok_or_else(unknown)?;
    let mut after = before.clone();
    change.apply(&mut after);
    if after.name != before.name {
        check_name(&after.name)?;
    }
    if !partner::update(&mut *tx, &after).await? {
        tx.rollback().await?;
        return Err(name_taken());
    }
    if after.status == PartnerStatus::Inactive && before.status == PartnerStatus::Active {
        key::invalidate_tokens(&mut *tx, id).await?;
    }
    let entry = AuditEntry {
        before: Some(audit_view(&before)),
        after: Some(audit_view(&after)),
        ..audit_entry(&after, "partner.update")
    };
    audit(hub, &mut tx, permit.actor(), &entry).await?;
    tx.commit().await?;
    forget_accounts(hub).await;
    Ok(after)
}

/// Gives a partner's key a new secret. The former one stays valid for `overlap` (at most `OVERLAP_MOST`), with all
/// tokens it gave. A partner that has no key yet gets one.
///
/// # Errors
/// `Error::Refused` if there is no such partner, or it is the hub's own; `Error::Busy` if another request created the
/// key at the same time. Nothing was written then. `Error::Unavailable` if the database fails; the new secret may be
/// written and lost: rotate again.
pub async fn rotate(hub: &Hub, permit: AdminPermit<'_>, id: Tsid, overlap: TimeDelta) -> Result<Credentials> {
    let db = hub.store.api();
    let of = partner::get(db, id).await?.ok_or_else(unknown)?;
    match key::client_id_of_partner(db, id).await? {
        Some(client_id) => rotate_key(hub, permit, &client_id, overlap).await,
        // The hub's own partner has no key, so that no client signs in as it.
        None if is_reserved_name(&of.name) => Err(check_name(&of.name).err().unwrap_or(Error::NotFound)),
        // A partner that was created before there were keys.
        None => {
            let (key, credentials) = new_key(hub, Role::Partner, Some(id), &of.name);
            add_key(hub, permit, key).await?;
            Ok(credentials)
        }
    }
}

/// A partner's user key: with it the partner's server signs tokens for its users. This is the only time it is shown.
#[derive(Debug, Clone)]
pub struct NewUserKey {
    pub key: String,
    /// The key id that tokens have in their header.
    pub kid: String,
}

/// Gives a partner a new key to sign tokens for its users. The former one stays valid for `overlap` (at most
/// `OVERLAP_MOST`); without an overlap its tokens are void at once.
///
/// # Errors
/// `Error::Refused` if there is no such partner, or it is the hub's own. `Error::Unavailable` if the database fails;
/// the new key may be written and lost: make another.
pub async fn rotate_user_key(hub: &Hub, permit: AdminPermit<'_>, id: Tsid, overlap: TimeDelta) -> Result<NewUserKey> {
    let now = hub.clock.now();
    let key = crypt::secret(USER_KEY_PREFIX);
    let mut tx = hub.store.begin().await?;
    let of = partner::lock(&mut tx, id).await?.ok_or_else(unknown)?;
    check_name(&of.name)?;
    let before = match user_key::get(&mut *tx, &hub.keyring, id).await {
        Ok(keys) => keys.unwrap_or_default(),
        // The master key that sealed the former key is lost: the former key ends.
        Err(Error::Setup(_)) => {
            user_key::UserKeys { number: user_key::number(&mut *tx, id).await?, ..Default::default() }
        }
        Err(e) => return Err(e),
    };
    let until = (overlap > TimeDelta::zero()).then(|| now + overlap.min(OVERLAP_MOST));
    let number = if before.number == i16::MAX { 1 } else { before.number + 1 };
    let former = before.key.zip(until);
    let after =
        json!({"kid": subscriber_kid(id, number), "formerKeyGoodUntil": former.as_ref().map(|f| f.1.to_rfc3339())});
    user_key::set(&mut *tx, &hub.keyring, id, &user_key::UserKeys { key: Some(key.clone()), number, former }).await?;
    let entry = AuditEntry { after: Some(after), ..audit_entry(&of, "partner.user_key") };
    audit(hub, &mut tx, permit.actor(), &entry).await?;
    tx.commit().await?;
    forget_accounts(hub).await;
    Ok(NewUserKey { key, kid: subscriber_kid(id, number) })
}

/// Lets a database role enqueue messages for a partner, or confirms that it may.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn grant_intake(hub: &Hub, permit: AdminPermit<'_>, of: &Partner, role: &str) -> Result<()> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin().await?;
    sql_intake::grant(&mut *tx, role, of.partner_id, now).await?;
    let entry = AuditEntry { after: Some(json!({"role": role})), ..audit_entry(of, "partner.grant_intake") };
    audit(hub, &mut tx, permit.actor(), &entry).await?;
    Ok(tx.commit().await?)
}

/// Ends a database role's right to enqueue messages for a partner, or for all if `of` is None. With `carried_over` it
/// ends only grants that no admin confirmed. Returns how many ended.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn revoke_intake(
    hub: &Hub,
    permit: AdminPermit<'_>,
    of: Option<&Partner>,
    role: &str,
    carried_over: bool,
) -> Result<u64> {
    let mut tx = hub.store.begin().await?;
    let ended = sql_intake::revoke(&mut *tx, role, of.map(|of| of.partner_id), carried_over).await?;
    let entry = AuditEntry {
        action: "partner.revoke_intake".into(),
        object: of.map(|of| of.partner_id.to_string()),
        partner_id: of.map(|of| of.partner_id),
        before: Some(json!({"role": role, "grants": ended, "carriedOver": carried_over})),
        after: None,
    };
    audit(hub, &mut tx, permit.actor(), &entry).await?;
    tx.commit().await?;
    Ok(ended)
}

/// Creates a key for an operator or an admin; `name` says whose it is. The secret is only in the returned value.
///
/// # Errors
/// `Error::Unavailable` if the database fails; there may be a key then whose secret is lost.
pub async fn create_key(hub: &Hub, permit: AdminPermit<'_>, role: StaffRole, name: &str) -> Result<Credentials> {
    let (key, credentials) = new_key(hub, Role::Staff(role), None, name);
    add_key(hub, permit, key).await?;
    Ok(credentials)
}

/// Gives a key a new secret. The former one stays valid for `overlap` (at most `OVERLAP_MOST`), with all tokens it
/// gave.
///
/// # Errors
/// `Error::NotFound` if there is no such key; nothing was written. `Error::Unavailable` if the database fails; the new
/// secret may be written and lost: rotate again.
pub async fn rotate_key(
    hub: &Hub,
    permit: AdminPermit<'_>,
    client_id: &str,
    overlap: TimeDelta,
) -> Result<Credentials> {
    let now = hub.clock.now();
    let client_secret = crypt::secret(SECRET_PREFIX);
    let hash = crypt::keyed_hash(&hub.pepper, client_secret.as_bytes());
    let former_until = (overlap > TimeDelta::zero()).then(|| now + overlap.min(OVERLAP_MOST));
    let key = key::get(hub.store.api(), client_id).await?.ok_or(Error::NotFound)?;
    let mut tx = hub.store.begin().await?;
    key::rotate(&mut *tx, client_id, &hash, former_until).await?;
    let after = json!({"formerSecretGoodUntil": former_until.map(|at| at.to_rfc3339())});
    audit(hub, &mut tx, permit.actor(), &AuditEntry { after: Some(after), ..key_audit_entry(&key, "key.rotate") })
        .await?;
    tx.commit().await?;
    forget_accounts(hub).await;
    Ok(Credentials { client_id: client_id.to_owned(), client_secret })
}

/// Revokes a key: its secrets and tokens are no longer accepted.
///
/// # Errors
/// `Error::NotFound` if there is no such key; nothing was written. `Error::Unavailable` if the database fails; nothing
/// was written, unless it failed during the commit.
pub async fn revoke_key(hub: &Hub, permit: AdminPermit<'_>, client_id: &str) -> Result<()> {
    let key = key::get(hub.store.api(), client_id).await?.ok_or(Error::NotFound)?;
    let mut tx = hub.store.begin().await?;
    key::revoke(&mut *tx, client_id, hub.clock.now()).await?;
    audit(hub, &mut tx, permit.actor(), &key_audit_entry(&key, "key.revoke")).await?;
    tx.commit().await?;
    forget_accounts(hub).await;
    Ok(())
}

fn new_key(hub: &Hub, role: Role, partner_id: Option<Tsid>, name: &str) -> (key::ApiKeyRow, Credentials) {
    let client_id = hub.next_id().to_string();
    let client_secret = crypt::secret(SECRET_PREFIX);
    let key = key::ApiKeyRow {
        client_id: client_id.clone(),
        role,
        partner_id,
        name: name.to_owned(),
        secret_hash: crypt::keyed_hash(&hub.pepper, client_secret.as_bytes()).to_vec(),
        former_hash: None,
        former_until: None,
        epoch: 1,
        revoked_at: None,
        created_at: hub.clock.now(),
    };
    (key, Credentials { client_id, client_secret })
}

async fn add_key(hub: &Hub, permit: AdminPermit<'_>, key: key::ApiKeyRow) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    if !key::insert(&mut *tx, &key, hub.clock.now()).await? {
        // Another request created the partner's key at the same time: this secret was not written.
        return Err(Error::Busy("another request created a key at the same time; rotate again"));
    }
    let after = json!({"role": key.role.as_str(), "name": key.name});
    audit(hub, &mut tx, permit.actor(), &AuditEntry { after: Some(after), ..key_audit_entry(&key, "key.create") })
        .await?;
    Ok(tx.commit().await?)
}

fn audit_entry(p: &Partner, action: &str) -> AuditEntry {
    let object = Some(p.partner_id.to_string());
    AuditEntry { action: action.into(), object, partner_id: Some(p.partner_id), ..AuditEntry::default() }
}

fn key_audit_entry(key: &key::ApiKeyRow, action: &str) -> AuditEntry {
    AuditEntry {
        action: action.into(),
        object: Some(key.client_id.clone()),
        partner_id: key.partner_id,
        ..AuditEntry::default()
    }
}

/// Returns a partner as the audit log stores it and as the CLI prints it.
pub fn audit_view(p: &Partner) -> Value {
    json!({
        "name": p.name,
        "status": p.status.as_str(),
        "rateLimitTps": p.rate_limit_tps,
        "lookupDays": p.lookup_days,
        "retentionDays": p.retention_days,
        "timeZone": p.time_zone,
        "region": p.region,
        "channels": p.channels.as_ref().map(|all| all.iter().map(|c| c.as_str()).collect::<Vec<_>>()),
        "maySchedule": p.may_schedule,
        "mayCancel": p.may_cancel,
        "encryptContent": p.encrypt_content,
        "mayReceiveContent": p.may_receive_content,
        "signUp": p.sign_up,
    })
}

pub(super) async fn audit(hub: &Hub, tx: &mut store::Conn, actor: &Actor, entry: &AuditEntry) -> Result<()> {
    store::audit::insert(tx, hub.next_id(), hub.clock.now(), actor, entry).await
}

/// Makes all processes forget the accounts that they remember. Call it after the commit.
async fn forget_accounts(hub: &Hub) {
    hub.accounts.forget();
    if let Err(e) = listen::notify_changed(&hub.store).await {
        tracing::warn!(
            error = %e,
            "other processes could not be notified of a changed partner; they see the change within ten seconds"
        );
    }
}

async fn check_time_zone(hub: &Hub, p: &Partner) -> Result<()> {
    if partner::is_time_zone(hub.store.api(), &p.time_zone).await? {
        return Ok(());
    }
    let detail = "is not a time zone such as Asia/Seoul".into();
    Err(fault(Fault { pointer: "/timeZone".into(), reason: "tz_unknown", detail, code: Code::E001 }))
}

/// Refuses the names of the hub's own partner: the messages of a partner with such a name would appear as alerts.
fn check_name(name: &str) -> Result<()> {
    if !is_reserved_name(name) {
        return Ok(());
    }
    let detail = "is the name of the hub's own partner".into();
    Err(fault(Fault { pointer: "/name".into(), reason: "name_reserved", detail, code: Code::E001 }))
}

fn name_taken() -> Error {
    fault(Fault {
        pointer: "/name".into(),
        reason: "name_taken",
        detail: "is another partner's name".into(),
        code: Code::E001,
    })
}

fn fault(fault: Fault) -> Error {
    Refusal::from_faults(vec![fault]).into()
}

/// The error for an unknown partner.
pub fn unknown() -> Error {
    Refusal::new(404, "partner_unknown", "there is no such partner").with_code(Code::E007).into()
}
