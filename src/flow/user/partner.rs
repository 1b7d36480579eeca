//! Partner: the one that people sign up and sign in at.

use std::sync::Arc;

use crate::error::{Refusal, Result};
use crate::hub::Hub;
use crate::model::partner::{Partner, is_reserved_name};
use crate::model::text::composed;
use crate::store;

/// The partner that people sign up and sign in at: `named` by name or id, else that of the settings, else the only one
/// whose sign-up is on. None if there is no partner of that name.
///
/// # Errors
/// `partner_required` if none is named and there is not exactly one whose sign-up is on. `Error::Unavailable` if the
/// database fails.
pub async fn partner_of(hub: &Hub, named: Option<&str>) -> Result<Option<Arc<Partner>>> {
    let db = hub.store.api();
    let Some(name) = named.or(hub.settings.users.sign_up_partner.as_deref()) else {
        let mut open = store::partner::with_sign_up(db).await?;
        return match (open.pop(), open.is_empty()) {
            (Some(only), true) => Ok(Some(Arc::new(only))),
            _ => Err(Refusal::new(422, "partner_required", "send X-Partner with the name or id of the service").into()),
        };
    };
    let mut found = store::partner::find_by_name(db, &composed(name.to_owned())).await?;
    if let (None, Ok(id)) = (&found, name.parse()) {
        found = store::partner::get(db, id).await?;
    }
    Ok(found.filter(|partner| !is_reserved_name(&partner.name)).map(Arc::new))
}
