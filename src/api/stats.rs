//! Statistics: their outside shape and handler.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{Days, NaiveDate};
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::ChannelWord;
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

/// One day's deliveries of one type that have ended; canceled ones are not counted.
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
    /// We asked, and cannot know.
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

/// YYYY-MM-DD and nothing else.
fn date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|d| text.len() == 10 && d.to_string() == text)
}

/// A partner's days.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DailyStats {
    code: Success,
    /// Whose days these are.
    time_zone: String,
    from: NaiveDate,
    to: NaiveDate,
    /// Newest first; days and types on which nothing ended are left out.
    items: Vec<DailyStat>,
}

/// Daily statistics
///
/// Counted when an outcome arrives, exact at any moment.
#[utoipa::path(get, path = "/v1/stats/daily", operation_id = "getDailyStats", tag = "messages",
    security(("bearer" = [])),
    params(
        ("from" = Option<NaiveDate>, Query, description = "the first day; a week before `to` when not given"),
        ("to" = Option<NaiveDate>, Query, description = "the last day; today in the partner's time zone when not given"),
        ("type" = inline(Option<ChannelWord>), Query, description = "those of this type"),
        PartnerParam,
    ),
    responses((status = 200, description = "the days", body = DailyStats)))]
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
