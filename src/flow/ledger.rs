//! The ledger: for each partner and day, what was accepted and how it ended, and the endings of single messages.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, NaiveDate, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::limits;
use crate::model::ledger::{Balance, MessageCounts, message_status};
use crate::model::partner::Partner;
use crate::model::stats::CountTotals;
use crate::store::fsck::{Slice, shards, slices};
use crate::store::{self, Conn};

/// The balance of a partner and day.
#[derive(Debug, Clone)]
pub struct DayBalance {
    pub partner_id: Tsid,
    pub name: String,
    pub time_zone: String,
    pub day: NaiveDate,
    pub balance: Balance,
    /// The statistics of deliveries that ended on that day, whenever they were accepted.
    pub settled: CountTotals,
}

/// Computes the balance of a day, in each partner's time zone, on a connection of `Store::connect_for_fsck` or in a
/// transaction of `Store::begin_for_slices`. After each slice `go_on` gets the number of messages counted in it; false
/// ends the count, and none is returned.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn balance(
    conn: &mut Conn,
    partners: &[Partner],
    day: NaiveDate,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Option<Vec<DayBalance>>> {
    let mut balances: BTreeMap<Tsid, Balance> = partners.iter().map(|p| (p.partner_id, Balance::default())).collect();
    // Partners of a shard and time zone are counted together.
    let ranges: BTreeSet<(i16, &str)> = partners.iter().map(|p| (p.shard, p.time_zone.as_str())).collect();
    for (shard, time_zone) in ranges {
        let own: BTreeSet<Tsid> = partners
            .iter()
            .filter(|p| (p.shard, p.time_zone.as_str()) == (shard, time_zone))
            .map(|p| p.partner_id)
            .collect();
        let from = Tsid::floor(store::ledger::day_start(&mut *conn, day, time_zone).await?);
        let to = Tsid::floor(store::ledger::day_start(&mut *conn, day + Days::new(1), time_zone).await?);
        for slice in slices(conn, Slice { shard, from, to }, limits::FSCK_SLICE).await? {
            let mut messages = 0;
            for group in store::ledger::balance(conn, slice).await? {
                messages += group.messages;
                if let Some(balance) = balances.get_mut(&group.partner_id).filter(|_| own.contains(&group.partner_id)) {
                    balance.add(group.is_accepted, &group.deliveries, group.messages);
                }
            }
            if !go_on(messages) {
                return Ok(None);
            }
        }
    }
    let ids: Vec<Tsid> = balances.keys().copied().collect();
    let settled = store::ledger::settled(&mut *conn, &ids, day).await?;
    let row = |partner: &Partner| DayBalance {
        partner_id: partner.partner_id,
        name: partner.name.clone(),
        time_zone: partner.time_zone.clone(),
        day,
        balance: balances.get(&partner.partner_id).copied().unwrap_or_default(),
        settled: settled.get(&partner.partner_id).copied().unwrap_or_default(),
    };
    Ok(Some(partners.iter().map(row).collect()))
}

/// All partners, by name.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn partners(conn: &mut Conn) -> Result<Vec<Partner>> {
    let mut all: Vec<Partner> = Vec::new();
    loop {
        let after = all.last().map(|partner| partner.name.clone());
        let page = store::partner::list(&mut *conn, after.as_deref(), limits::HOUSEKEEPING_BATCH).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Partners by the day that it is now in their time zone.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn today(
    conn: &mut Conn,
    partners: Vec<Partner>,
    now: DateTime<Utc>,
) -> Result<Vec<(NaiveDate, Vec<Partner>)>> {
    let mut zones: BTreeMap<String, Vec<Partner>> = BTreeMap::new();
    for partner in partners {
        zones.entry(partner.time_zone.clone()).or_default().push(partner);
    }
    let mut days: BTreeMap<NaiveDate, Vec<Partner>> = BTreeMap::new();
    for (time_zone, partners) in zones {
        days.entry(store::stats::today(&mut *conn, now, &time_zone).await?).or_default().extend(partners);
    }
    Ok(days.into_iter().collect())
}

/// The first and the last day, in any of these partners' time zones, from `since` to `now`. None without partners.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn days(
    conn: &mut Conn,
    partners: &[Partner],
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<(NaiveDate, NaiveDate)>> {
    let zones: BTreeSet<&str> = partners.iter().map(|partner| partner.time_zone.as_str()).collect();
    let mut days: Option<(NaiveDate, NaiveDate)> = None;
    for time_zone in zones {
        let first = store::stats::today(&mut *conn, since, time_zone).await?;
        let last = store::stats::today(&mut *conn, now, time_zone).await?;
        days = Some(days.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
    }
    Ok(days)
}

/// How messages ended that callers were told to be accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Different ids that were looked up.
    pub ids: u64,
    pub endings: MessageCounts,
    /// Those that are not in the database.
    pub missing: Vec<Tsid>,
    /// Those that have no deliveries.
    pub without_deliveries: Vec<Tsid>,
}

/// Looks up messages by id, on a connection of `Store::connect_for_fsck`.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn acknowledged(conn: &mut Conn, ids: &BTreeSet<Tsid>) -> Result<Acknowledged> {
    let shards = shards(conn).await?;
    let all: Vec<Tsid> = ids.iter().copied().collect();
    let mut result = Acknowledged { ids: all.len() as u64, ..Acknowledged::default() };
    for some in all.chunks(limits::LEDGER_LOOK_UP) {
        let found = store::ledger::look_up(conn, &shards, some).await?;
        for id in some {
            match found.get(id) {
                None => result.missing.push(*id),
                Some(deliveries) if deliveries.is_empty() => result.without_deliveries.push(*id),
                Some(deliveries) => result.endings.add(message_status(deliveries), 1),
            }
        }
    }
    Ok(result)
}
