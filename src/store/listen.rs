//! Hints between processes: which lanes just got something. Only hints; polling is the guarantee. Sent on a connection
//! outside any transaction: inside one, NOTIFY takes a lock over the whole database at commit. (Runtime queries: the
//! channel's name is not a parameter.)

use sqlx::postgres::PgListener;

use super::Store;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::lane::Lane;
use crate::model::watermark::Place;

const CHANNEL: &str = "notihub_ready";
/// NOTIFY takes less than 8,000 bytes; a hint that would be longer names nothing and so means: look everywhere.
const PAYLOAD_BYTES: usize = 7_900;

pub async fn hint(store: &Store, from: Tsid, ready: &[Place]) -> Result<()> {
    let pairs = ready.iter().map(|(shard, lane)| format!("{shard}:{}", lane.0)).collect::<Vec<_>>().join(",");
    let pairs = if pairs.len() > PAYLOAD_BYTES { String::new() } else { pairs };
    let payload = format!("{from};{pairs}");
    sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(store.engine()).await?;
    Ok(())
}

/// What a process said: it wakes others, and knows its own voice.
pub struct Hint {
    pub from: Tsid,
    /// Empty: anywhere.
    pub ready: Vec<Place>,
}

pub struct Hints(PgListener);

impl Hints {
    pub async fn open(store: &Store) -> Result<Hints> {
        let mut listener = PgListener::connect_with(store.engine()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Hints(listener))
    }

    /// The next hint; none when the connection was lost meanwhile and hints may have been missed. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Hint>> {
        let Some(notice) = self.0.try_recv().await? else { return Ok(None) };
        let pair = |text: &str| {
            let (shard, lane) = text.split_once(':')?;
            Some((shard.parse().ok()?, Lane(lane.parse().ok()?)))
        };
        let (from, pairs) = notice.payload().split_once(';').unwrap_or_default();
        let ready = pairs.split(',').filter_map(pair).collect();
        // What cannot be read is taken as: somebody else, anywhere.
        Ok(Some(Hint { from: from.parse().unwrap_or(Tsid(0)), ready }))
    }
}
