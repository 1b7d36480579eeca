//! Sign-up: people make a user for themselves, where a partner allows it.

use crate::error::{Code, Error, Refusal, Result};
use crate::flow::sign_in::network_of;
use crate::hub::Hub;
use crate::limits;
use crate::model::access::principal::Origin;
use crate::model::partner::PartnerStatus;
use crate::model::user::{User, UserState, username_key};
use crate::store::{self, credential};

use super::make::new_code;
use super::partner::partner_of;
use super::password;

/// What a person signs up with.
pub struct NewUser {
    pub username: String,
    pub password: String,
    pub nickname: String,
    pub email: Option<String>,
    pub bio: Option<String>,
    pub profile_image_url: Option<String>,
}

/// Makes a user with a password, of the partner that `partner_of` finds.
///
/// # Errors
/// `sign_up_closed`, `username_taken`, `password_weak`, or `partner_required` as `partner_of`; nothing was written.
/// `Error::Limited` after too many sign-ups from the caller's network. `Error::Busy` if too many sign-ins wait.
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn sign_up(hub: &Hub, partner_named: Option<&str>, new: NewUser, from: &Origin) -> Result<User> {
    let partner = partner_of(hub, partner_named).await?;
    let partner = partner.filter(|partner| partner.sign_up && partner.status == PartnerStatus::Active);
    // An unknown partner is answered as one that is closed, so that names cannot be probed.
    let partner = partner.ok_or_else(|| {
        Error::from(Refusal::new(403, "sign_up_closed", "this service takes no sign-ups here").with_code(Code::E002))
    })?;
    password::check_new(&new.password, &new.username, "/password")?;
    let (shard, partner_id, key) = (partner.shard, partner.partner_id, username_key(&new.username));
    if store::user::is_name_taken(hub.store.api(), shard, partner_id, &key).await? {
        return Err(name_taken());
    }
    let now = hub.clock.now();
    hub.sign_up_throttle().take(network_of(from).as_deref(), now).map_err(|retry_after_s| Error::Limited {
        reason: "sign_up_limited",
        detail: "too many sign-ups from this address; wait".into(),
        retry_after_s,
    })?;
    let hash = password::hash(hub, new.password).await?;
    let mut user = User {
        shard,
        user_id: hub.next_id(),
        partner_id,
        external_id: None,
        username: Some(new.username),
        nickname: new.nickname,
        user_code: new_code(),
        shown_as: None,
        bio: new.bio,
        profile_image_url: new.profile_image_url,
        background_image_url: None,
        email: new.email,
        phone: None,
        locale: None,
        time_zone: None,
        state: UserState::Active,
        tokens_after: None,
        last_seen_at: None,
        created_at: now,
        updated_at: now,
    };
    for _ in 0..limits::USER_ROUNDS {
        let mut tx = hub.store.begin().await?;
        if store::user::insert(&mut *tx, &user).await? {
            credential::insert(&mut *tx, shard, user.user_id, &hash, now).await?;
            tx.commit().await?;
            hub.metrics.user_sign_ins.with_label_values(&["signed_up"]).inc();
            return Ok(user);
        }
        tx.rollback().await?;
        if store::user::is_name_taken(hub.store.api(), shard, partner_id, &key).await? {
            return Err(name_taken());
        }
        // The random code was taken.
        user.user_code = new_code();
    }
    Err(Error::Busy("the user could not be made; repeat soon"))
}

fn name_taken() -> Error {
    Refusal::new(409, "username_taken", "another user has this username").into()
}
