//! Publish: what happened becomes a message of its own with a delivery for each endpoint that asks for it. What a claimed
//! delivery or an accepted message tells is published by its own statement (`sql/delivery/settle.sql`,
//! `sql/message/insert.sql`), in the same commit; this is for everything else.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::delivery::Key;
use crate::model::event::Told;
use crate::model::lane::{Lane, Priority};
use crate::store::Conn;

/// One thing to tell.
#[derive(Debug, Clone)]
pub struct Notice {
    pub partner_id: Tsid,
    pub shard: i16,
    /// The message it tells of; none: no message, and the notice is about itself.
    pub about: Option<Tsid>,
    pub priority: Priority,
    /// Gives way to what others have to be told now.
    pub overflow: bool,
    pub told: Told,
    /// Goes to this endpoint alone, whatever it asks for.
    pub only: Option<Tsid>,
}

/// What was written, to be announced after the commit.
#[derive(Debug, Default)]
pub struct Published {
    pub deliveries: usize,
    /// Those deliveries.
    pub keys: Vec<Key>,
    places: Vec<((i16, Lane), DateTime<Utc>)>,
}

/// In the caller's transaction. Endpoints that are disabled or deleted get nothing.
pub async fn publish(hub: &Hub, tx: &mut Conn, notices: &[Notice]) -> Result<Published> {
    let _to_come = (hub, tx, notices);
    Ok(Published::default())
}

/// After the commit: wakes workers.
pub fn announce(hub: &Hub, published: &Published) {
    hub.wake.ready(published.places.iter().copied());
}
