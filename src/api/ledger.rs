//! The ledger: response shape and handler.

use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::date;
use crate::error::{Error, Refusal};
use crate::flow::ledger::{self, DayBalance};
use crate::http::answer::{Answer, Success, respond};
use crate::http::caller::Reader;
use crate::http::page::PartnerParam;
use crate::http::query::Query;
use crate::hub::Hub;
use crate::limits;
use crate::model::ledger::Balance;
use crate::model::stats::CountTotals;

/// Messages by their status: the figures from `completed` on add up to `accepted`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LedgerMessages {
    accepted: u64,
    completed: u64,
    partial: u64,
    failed: u64,
    canceled: u64,
    /// PENDING or PROCESSING.
    in_flight: u64,
}

/// Deliveries of these messages by their status.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LedgerDeliveries {
    total: u64,
    sent: u64,
    delivered: u64,
    failed: u64,
    expired: u64,
    canceled: u64,
    undetermined: u64,
    /// SCHEDULED, PENDING or PROCESSING.
    in_flight: u64,
}

/// The statistics of all deliveries that ended on this day, whenever they were accepted; see `/v1/stats/daily`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LedgerSettled {
    total: i64,
    /// SENT or DELIVERED.
    success: i64,
    /// FAILED or EXPIRED.
    failed: i64,
    undetermined: i64,
}

/// The balance of a partner and day.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LedgerRow {
    partner_id: String,
    day: NaiveDate,
    /// The time zone by which the day is counted.
    time_zone: String,
    /// Whether every accepted message has ended or is in flight, and nothing else has. `accepted` and the endings are
    /// counted from different tables.
    balanced: bool,
    messages: LedgerMessages,
    deliveries: LedgerDeliveries,
    /// Messages without deliveries.
    without_deliveries: u64,
    /// Messages that have deliveries and were not accepted.
    without_message: u64,
    settled: LedgerSettled,
}

impl LedgerRow {
    fn new(row: DayBalance) -> LedgerRow {
        let Balance { accepted, messages, deliveries, without_deliveries, without_message } = row.balance;
        let CountTotals { total, success, failed } = row.settled;
        LedgerRow {
            partner_id: row.partner_id.to_string(),
            day: row.day,
            time_zone: row.time_zone,
            balanced: row.balance.is_balanced(),
            messages: LedgerMessages {
                accepted,
                completed: messages.completed,
                partial: messages.partial,
                failed: messages.failed,
                canceled: messages.canceled,
                in_flight: messages.in_flight,
            },
            deliveries: LedgerDeliveries {
                total: deliveries.sum(),
                sent: deliveries.sent,
                delivered: deliveries.delivered,
                failed: deliveries.failed,
                expired: deliveries.expired,
                canceled: deliveries.canceled,
                undetermined: deliveries.undetermined,
                in_flight: deliveries.in_flight,
            },
            without_deliveries,
            without_message,
            settled: LedgerSettled { total, success, failed, undetermined: row.settled.undetermined() },
        }
    }
}

/// The ledger of a day.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerDay {
    code: Success,
    /// The caller's partner; for operators and admins all partners with messages of that day, by name.
    items: Vec<LedgerRow>,
}

#[utoipa::path(get, path = "/v1/ledger", operation_id = "getLedger", tag = "messages",
    security(("bearer" = [])),
    params(
        ("day" = Option<NaiveDate>, Query, description = "the day of acceptance, in each partner's time zone; left \
            out: today"),
        PartnerParam,
    ),
    responses((status = 200, description = "the balance", body = LedgerDay)))]
/// Balance of a day
///
/// What was accepted on a day, and how it ended, to the message. Webhooks are not counted. It is computed when it is
/// asked for; a day that takes longer than 10 seconds is refused, and for `notihub ledger` of an operator.
pub async fn get(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let all = reader.scope(&hub, &mut query).await?;
    let day = query.parse("day", "a date as in 2027-03-05", date)?;
    query.close()?;
    let busy = |_| Error::Busy("too many requests for the ledger are answered at this moment");
    let _turn = hub.ledger_turns.try_acquire().map_err(busy)?;
    let mut tx = hub.store.begin_for_slices().await?;
    let mut partners = ledger::partners(&mut tx).await?;
    let asked: std::collections::BTreeSet<_> = all.partners.iter().map(|(partner_id, _)| *partner_id).collect();
    partners.retain(|partner| asked.contains(&partner.partner_id));
    let began = Instant::now();
    let mut items = Vec::new();
    let days = match day {
        Some(day) => vec![(day, partners)],
        None => ledger::today(&mut tx, partners, hub.clock.now()).await?,
    };
    for (day, partners) in days {
        let rows = ledger::balance(&mut tx, &partners, day, |_| began.elapsed() < limits::LEDGER_TIME).await?;
        let rows = rows.ok_or_else(|| {
            let detail =
                format!("{day} has too many messages for a request; an operator counts them by notihub ledger");
            Refusal::new(400, "query_invalid", detail)
        })?;
        items.extend(rows.into_iter().filter(|row| asked.len() == 1 || row.balance != Balance::default()));
    }
    tx.rollback().await.map_err(Error::from)?;
    items.sort_by(|a, b| a.name.cmp(&b.name));
    let items = items.into_iter().map(LedgerRow::new).collect();
    Ok(respond(StatusCode::OK, &LedgerDay { code: Success::Success, items }))
}
