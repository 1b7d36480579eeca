//! Statistics: response shape and handler.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{Days, NaiveDate};
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::{ChannelWord, date};
use crate::error::Refusal;
use crate::http::answer::{Answer, Success, respond};
use crate::http::caller::Reader;
use crate::http::page::PartnerParam;
use crate::http::query::Query;
use crate::hub::Hub;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::partner::Partner;
use crate::store::stats::{self, DailyStatsRow};

/// The finished deliveries of one day and one channel. Canceled ones are not counted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DailyStat {
    partner_id: String,
    date: NaiveDate,
    #[serde(rename = "type")]
    #[schema(value_type = ChannelWord)]
    kind: String,
    total: i64,
    /// SENT or DELIVERED.
    success: i64,
    /// FAILED or EXPIRED.
    failed: i64,
    /// UNDETERMINED: the provider was called, and the outcome is unknown.
    undetermined: i64,
}

impl DailyStat {
    fn new(partner: &Partner, day: DailyStatsRow) -> DailyStat {
        let DailyStatsRow { date, message_type, sums } = day;
        DailyStat {
            partner_id: partner.partner_id.to_string(),
            date,
            kind: message_type,
            total: sums.total,
            success: sums.success,
            failed: sums.failed,
            undetermined: sums.undetermined(),
        }
    }
}

/// Daily statistics of a partner.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DailyStats {
    code: Success,
    /// The time zone by which the days are counted.
    time_zone: String,
    from: NaiveDate,
    to: NaiveDate,
    /// Newest first. Days and channels without finished deliveries are left out.
    items: Vec<DailyStat>,
}

#[utoipa::path(get, path = "/v1/stats/daily", operation_id = "getDailyStats", tag = "messages",
    security(("bearer" = [])),
    params(
        ("from" = Option<NaiveDate>, Query, description = "the first day; left out: a week before `to`"),
        ("to" = Option<NaiveDate>, Query, description = "the last day; left out: today in the partner's \
            time zone"),
        ("type" = inline(Option<ChannelWord>), Query, description = "only deliveries over this channel"),
        PartnerParam,
    ),
    responses((status = 200, description = "the days", body = DailyStats)))]
/// Daily statistics
///
/// Deliveries are counted when they finish; the figures are exact at any moment.
pub async fn daily(State(hub): State<Hub>, reader: Reader, mut query: Query) -> Answer {
    let partner = reader.partner_of_list(&hub, &mut query).await?;
    let from = query.parse("from", "a date as in 2027-03-05", date)?;
    let to = query.parse("to", "a date as in 2027-03-05", date)?;
    let channel: Option<Channel> = query.parse("type", "a type of message", |text| text.parse().ok())?;
    query.close()?;
    let db = hub.store.api();
    let to = match to {
        Some(to) => to,
        None => stats::today(db, hub.clock.now(), &partner.time_zone).await?,
    };
    let from = from.unwrap_or_else(|| to - Days::new(limits::STATS_DAYS_DEFAULT.unsigned_abs() - 1));
    let days = (to - from).num_days() + 1;
    if !(1..=limits::STATS_DAYS_MAX).contains(&days) {
        let most = limits::STATS_DAYS_MAX;
        let detail = format!("from {from} to {to}: ask for at least one day and at most {most}");
        return Err(Refusal::new(400, "query_invalid", detail).into());
    }
    let days = stats::daily(db, &partner, from, to, channel).await?;
    let items = days.into_iter().map(|day| DailyStat::new(&partner, day)).collect();
    let body = DailyStats { code: Success::Success, time_zone: partner.time_zone.clone(), from, to, items };
    Ok(respond(StatusCode::OK, &body))
}
