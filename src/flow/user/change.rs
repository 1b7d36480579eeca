//! Notification of changes: every process remembers users for a few seconds, and must forget one that changed.

use crate::hub::Hub;
use crate::id::Tsid;
use crate::store::listen;

/// Makes all processes forget a user that changed, or whose sign-ins changed. Call it after the commit.
pub async fn announce(hub: &Hub, user_id: Tsid) {
    hub.users.forget(user_id);
    if let Err(e) = listen::notify_users(&hub.store, &[user_id]).await {
        tracing::warn!(
            error = %e,
            "other processes could not be notified of a changed user; they see the change within ten seconds"
        );
    }
}
