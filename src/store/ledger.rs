//! The ledger: counts of messages by their endings, and look-ups of single messages.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};

use super::fsck::Slice;
use super::{Conn, Db, parse_word};
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::lane::Lane;
use crate::model::ledger::Ending;
use crate::model::stats::CountTotals;

/// Messages of a partner with the same deliveries.
#[derive(Debug)]
pub struct EndingGroup {
    pub partner_id: Tsid,
    /// Whether there are rows of the messages, besides those of their deliveries.
    pub is_accepted: bool,
    /// Empty: there are no rows of deliveries.
    pub deliveries: Vec<Ending>,
    pub messages: u64,
}

/// Counts the messages of a slice, webhooks left out. Call it on a connection of `Store::connect_for_fsck` or in a
/// transaction of `Store::begin_for_slices`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn balance(conn: &mut Conn, slice: Slice) -> Result<Vec<EndingGroup>> {
    let webhooks = webhook_lanes();
    let rows = sqlx::query_file!("sql/ledger/balance.sql", slice.shard, slice.from.0, slice.to.0, &webhooks);
    let group = |partner_id, is_accepted, deliveries, messages: i64| {
        Ok(EndingGroup { partner_id, is_accepted, deliveries, messages: messages.unsigned_abs() })
    };
    let rows = rows.fetch_all(conn).await?.into_iter();
    rows.map(|r| group(Tsid(r.partner_id), r.is_accepted, endings(r.deliveries.as_deref())?, r.messages)).collect()
}

/// The deliveries of each of these messages that is there, webhooks left out. `shards`: all that have rows.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn look_up(conn: &mut Conn, shards: &[i16], ids: &[Tsid]) -> Result<BTreeMap<Tsid, Vec<Ending>>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file!("sql/ledger/look_up.sql", shards, &ids, &webhook_lanes()).fetch_all(conn).await?;
    rows.into_iter().map(|row| Ok((Tsid(row.message_id), endings(row.deliveries.as_deref())?))).collect()
}

fn webhook_lanes() -> Vec<i16> {
    Lane::all_of(&[Channel::Webhook]).into_iter().map(|lane| lane.0).collect()
}

/// Reads deliveries as the statements write them: `chain:status:tried`, chain 0 for none.
fn endings(text: Option<&str>) -> Result<Vec<Ending>> {
    let unreadable = || Error::Internal("deliveries of the ledger cannot be read".into());
    let ending = |text: &str| {
        let mut parts = text.split(':');
        let mut part = || parts.next().ok_or_else(unreadable);
        let chain = part()?.parse::<i16>().map_err(|_| unreadable())?;
        let status = parse_word(part()?, "status")?;
        Ok(Ending { chain: (chain > 0).then_some(chain), status, is_tried: part()? == "1" })
    };
    text.unwrap_or_default().split_ascii_whitespace().map(ending).collect()
}

/// The statistics of a day, webhooks left out, of these partners.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn settled(db: impl Db<'_>, partners: &[Tsid], day: NaiveDate) -> Result<BTreeMap<Tsid, CountTotals>> {
    let (partners, types): (Vec<i64>, _) = (partners.iter().map(|id| id.0).collect(), super::stats::lane_types());
    let webhook = Channel::Webhook.as_str();
    let rows = sqlx::query_file!("sql/ledger/settled.sql", &partners, day, webhook, &types).fetch_all(db).await?;
    let count = |total, success, failed| CountTotals { total, success, failed };
    Ok(rows.into_iter().map(|r| (Tsid(r.partner_id), count(r.total, r.success, r.failed))).collect())
}

/// When a day begins in a time zone.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn day_start(db: impl Db<'_>, day: NaiveDate, time_zone: &str) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_file_scalar!("sql/ledger/day_start.sql", day, time_zone).fetch_one(db).await?)
}
