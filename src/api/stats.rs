//! Statistics: their outside shape and handler.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{Days, NaiveDate};
use serde::Serialize;
use serde_json::json;

use super::auth::Caller;
use super::error::Answer;
use super::request::{Query, ok};
use crate::error::Refusal;
use crate::hub::Hub;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::partner::Partner;
use crate::store::stats::{self, Day};

/// One day's deliveries of one type that have ended; canceled ones are not counted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    partner_id: String,
    date: NaiveDate,
    #[serde(rename = "type")]
    kind: String,
    total: i64,
    /// SENT or DELIVERED.
    success: i64,
    /// FAILED or EXPIRED.
    failed: i64,
    /// We asked, and cannot know.
    undetermined: i64,
}

impl Item {
    fn new(partner: &Partner, day: Day) -> Item {
        let Day { date, message_type, sums } = day;
        Item {
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

pub async fn daily(State(hub): State<Hub>, caller: Caller, mut query: Query) -> Answer {
    let from = query.parse("from", "a date as in 2027-03-05", date)?;
    let to = query.parse("to", "a date as in 2027-03-05", date)?;
    let channel: Option<Channel> = query.parse("type", "a type of message", |text| text.parse().ok())?;
    query.close()?;
    let (partner, db) = (&caller.partner, hub.store.api());
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
    let days = stats::daily(db, partner, from, to, channel).await?;
    let items: Vec<Item> = days.into_iter().map(|day| Item::new(partner, day)).collect();
    let body = json!({"code": "0000", "timeZone": partner.time_zone, "from": from, "to": to, "items": items});
    Ok(ok(StatusCode::OK, &body))
}
