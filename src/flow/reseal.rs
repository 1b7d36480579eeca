//! Reseal: what is sealed at rest is sealed anew under the master key that seals now, while everything runs: both keys
//! open meanwhile.

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::role::Administering;
use crate::store::{self, audit::Deed, message};

use super::sign_in;

#[derive(Debug, Default)]
pub struct Resealed {
    pub signing_keys: usize,
    pub messages: usize,
}

pub async fn reseal(hub: &Hub, permit: Administering<'_>) -> Result<Resealed> {
    let mut done = Resealed { signing_keys: sign_in::reseal_keys(hub).await?, messages: 0 };
    let mut after = Tsid(0);
    loop {
        let sealed = message::sealed(hub.store.api(), None, after, limits::HOUSEKEEPING_BATCH).await?;
        let Some(last) = sealed.last() else { break };
        after = last.message_id;
        for row in sealed {
            if message::is_fresh(&hub.keyring, &row.detail) {
                continue;
            }
            let mut tx = hub.store.begin().await?;
            let Some(held) = message::lock(&mut tx, row.shard, row.message_id).await? else { continue };
            let detail = message::read_detail(&hub.keyring, row.message_id, &held.detail)?;
            let text = message::write_detail(&hub.keyring, row.message_id, &detail, true)?;
            message::rewrite(&mut *tx, row.shard, row.message_id, &text, held.client_msg_id.as_deref()).await?;
            tx.commit().await?;
            done.messages += 1;
        }
    }
    let told = serde_json::json!({"signingKeys": done.signing_keys, "messages": done.messages});
    let deed = Deed { action: "key.reseal".into(), after: Some(told), ..Deed::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &deed).await?;
    Ok(done)
}
