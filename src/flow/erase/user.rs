//! Erasure of users with the in-app messages to them. `leave` removes a user's data in one transaction and keeps the
//! names that deliveries are addressed to; here the messages follow, however many they are, and then the names go.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use crate::error::Result;
use crate::flow::room;
use crate::flow::user::leave;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::OwnerPermit;
use crate::model::user::User;
use crate::store::delivery::FormerName;
use crate::store::user::UserToErase;
use crate::store::{self, delivery};

use super::message::{Subject, erase_from_message};
use super::result::{Erased, Progress};

/// Erases a user, and the in-app messages to it that were posted before. What is being delivered meanwhile is counted
/// in `Erased::in_flight`, and is erased by `erase_users`.
///
/// # Errors
/// `Error::NotFound` if it is deleted already. `Error::Unavailable` if the database fails; if the user was erased,
/// `erase_users` erases its messages.
pub async fn erase_user(
    hub: &Hub,
    permit: OwnerPermit<'_>,
    user: &User,
    progress: impl FnMut(Progress<'_>),
) -> Result<Erased> {
    let left = leave::erase(hub, permit, user).await?;
    let messages = messages_of(hub, std::slice::from_ref(&left)).await?.remove(&0).unwrap_or_default();
    erase_messages(hub, &left, messages, progress).await
}

/// Erases the messages to users that withdrew or were erased. Returns whether there may be more.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the next call goes on.
pub async fn erase_users(hub: &Hub) -> Result<bool> {
    let users = store::user::to_erase(hub.store.api(), limits::HOUSEKEEPING_BATCH).await?;
    if users.is_empty() {
        return Ok(false);
    }
    let mut messages = messages_of(hub, &users).await?;
    let mut left = 0;
    for (which, user) in users.iter().enumerate() {
        // A failure of one user does not stop the others.
        match erase_messages(hub, user, messages.remove(&which).unwrap_or_default(), |_| ()).await {
            Ok(erased) if erased.in_flight == 0 => (),
            Ok(_) => left += 1,
            Err(e) => {
                left += 1;
                tracing::warn!(
                    user = %user.user_id, error = %e,
                    "the messages to an erased user could not be erased; they are erased by the next round"
                );
            }
        }
    }
    Ok(users.len() == limits::HOUSEKEEPING_BATCH as usize && left == 0)
}

/// The in-app messages to these users from before their erasure, by the user's index. Reads all deliveries once.
async fn messages_of(hub: &Hub, users: &[UserToErase]) -> Result<BTreeMap<usize, BTreeSet<(i16, Tsid)>>> {
    let names: Vec<(usize, FormerName<'_>)> = users
        .iter()
        .enumerate()
        .flat_map(|(which, user)| user.names.iter().map(move |name| (which, name, user)))
        .map(|(which, name, user)| {
            // Messages posted later are to a new user of that name.
            let below = Tsid::floor(user.deleted_at + TimeDelta::milliseconds(1));
            (which, FormerName { shard: user.shard, partner_id: user.partner_id, name, below })
        })
        .collect();
    let (users_of_names, names): (Vec<usize>, Vec<FormerName<'_>>) = names.into_iter().unzip();
    let mut conn = hub.store.connect_for_scans().await?;
    let mut messages_by_user: BTreeMap<usize, BTreeSet<(i16, Tsid)>> = BTreeMap::new();
    for (shard, message_id, name) in delivery::of_names(&mut conn, &names).await? {
        messages_by_user.entry(users_of_names[name]).or_default().insert((shard, message_id));
    }
    Ok(messages_by_user)
}

/// Takes a user out of its rooms and erases these messages to it. Its names are forgotten once none is in flight.
async fn erase_messages(
    hub: &Hub,
    user: &UserToErase,
    messages: BTreeSet<(i16, Tsid)>,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Erased> {
    let mut erased = Erased::default();
    room::member::leave_all(hub, (user.shard, user.user_id), user.partner_id).await?;
    for (shard, message_id) in messages {
        let subject = Subject::User(&user.names);
        erase_from_message(hub, shard, message_id, &subject, &BTreeSet::new(), &mut erased).await?;
        if erased.messages.is_multiple_of(1_000) {
            progress(Progress::Erased(erased.messages));
        }
    }
    if erased.in_flight == 0 {
        store::user::erase_done(hub.store.api(), user.shard, user.user_id).await?;
    }
    Ok(erased)
}
