//! Change: a room's title and settings; and its end.

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::user::UserCaller;
use crate::model::room::{Deed, SettingsChange, Visibility};
use crate::model::stream::RoomEventKind;
use crate::store;
use crate::store::audit::AuditEntry;

use super::access::{self, closed, room_refused};
use super::event::Taken;
use crate::flow::user::session::audit;

/// Changes to a room. None leaves a field as it is; in a nested option the inner None clears it.
#[derive(Debug, Clone, Default)]
pub struct RoomChange {
    pub title: Option<Option<String>>,
    pub visibility: Option<Visibility>,
    pub most_members: Option<i32>,
    pub settings: SettingsChange,
    pub metadata: Option<Map<String, Value>>,
    pub retention_days: Option<Option<i16>>,
}

/// Changes a room.
///
/// # Errors
/// As `access::permitted`; `room_closed`; `room_full` if it has more members than are to be allowed.
/// `Error::Unavailable` if the database fails; it may be changed.
pub async fn change(hub: &Hub, caller: &UserCaller, room_id: Tsid, change: RoomChange) -> Result<()> {
    let found = access::permitted(hub, caller, room_id, Deed::Change).await?;
    if change.retention_days.is_some() {
        access::check(caller, &found, Deed::SetRetention)?;
    }
    let mut room = found.room;
    let mut tx = hub.store.begin().await?;
    room.head = store::room::lock(&mut tx, room.shard, room_id).await?;
    if room.closed_at.is_some() {
        return Err(closed());
    }
    if let Some(most) = change.most_members {
        if most < room.head.members {
            let detail = format!("the room has {} members; remove some first", room.head.members);
            return Err(room_refused(409, "room_full", detail));
        }
        room.head.most_members = most;
    }
    room.title = change.title.unwrap_or(room.title);
    room.visibility = change.visibility.unwrap_or(room.visibility);
    room.settings = change.settings.apply(room.settings);
    room.metadata = change.metadata.unwrap_or(room.metadata);
    room.retention_days = change.retention_days.unwrap_or(room.retention_days);
    store::room::update(&mut *tx, &room, hub.clock.now()).await?;
    let mut taken = Taken::default();
    let place = (room.shard, room_id);
    taken.room_event(hub, &mut tx, place, RoomEventKind::RoomChanged, caller.user_id(), None).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok(())
}

/// Closes a room: no member may write any more. Again is the same.
///
/// # Errors
/// As `access::permitted`. `Error::Unavailable` if the database fails; it may be closed.
pub async fn close(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<()> {
    let found = access::permitted(hub, caller, room_id, Deed::Close).await?;
    let place = (found.room.shard, room_id);
    let mut tx = hub.store.begin().await?;
    store::room::lock(&mut tx, place.0, room_id).await?;
    if found.room.closed_at.is_some() {
        return Ok(());
    }
    store::room::close(&mut *tx, place.0, room_id, hub.clock.now()).await?;
    let mut taken = Taken::default();
    taken.room_event(hub, &mut tx, place, RoomEventKind::RoomClosed, caller.user_id(), None).await?;
    let entry = AuditEntry {
        action: "room.close".into(),
        partner_id: Some(caller.partner_id()),
        object: Some(room_object(room_id)),
        after: Some(json!({"members": found.room.head.members})),
        ..AuditEntry::default()
    };
    audit(hub, &mut tx, caller, &entry).await?;
    tx.commit().await?;
    taken.note(hub);
    Ok(())
}

/// How the audit log names a room.
pub fn room_object(room_id: Tsid) -> String {
    format!("room.{room_id}")
}
