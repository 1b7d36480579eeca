//! Alerts: operators get a message about each condition that needs a person, over the hub's own Slack or e-mail: one
//! when it begins and one when it is over. An alert is a message of the hub's own partner, so it is retried and has a
//! timeline like any other.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::causes::Noted;
use crate::limits;
use crate::model::alert::{AbusePattern, AlertCause};
use crate::model::breaker::BreakerState;
use crate::model::channel::Channel;
use crate::model::lane::Priority;
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::model::partner::{Partner, RESERVED_NAMES};
use crate::store::alert::ObservedCause;
use crate::store::{self, Conn};

use super::intake::prepare::prepare;

/// Looks for conditions that need a person, and writes alerts about those that are new or over. Several processes may
/// run this at the same time: the one that writes the cause first writes the alert.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit. Causes noted by
/// this process are kept for the next run.
pub async fn watch(hub: &Hub) -> Result<()> {
    let causes = hub.causes.take();
    let alerts = watch_all(hub, &causes).await;
    if alerts.is_err() {
        hub.causes.put_back(causes);
    }
    alerts
}

/// Reports that a refresh token was used twice. A process that only serves the API has no loop for alerts, so the alert
/// is written at once; if that fails, it is written with the next one of this process.
pub async fn refresh_token_reused(hub: &Hub, whose: String) {
    hub.causes.note(AlertCause::Abuse { pattern: AbusePattern::RefreshTokenReused }, whose);
    if let Err(e) = watch(hub).await {
        tracing::warn!(error = %e, "the alert of a refresh token that was used twice could not be written");
    }
}

async fn watch_all(hub: &Hub, causes: &Noted) -> Result<()> {
    let now = hub.clock.now();
    let current = current_causes(hub, causes, now).await?;
    let mut tx = hub.store.begin_engine().await?;
    let new = store::alert::raise(&mut tx, &current, now).await?;
    let over = store::alert::clear(&mut tx, now).await?;
    let mut alerts = Vec::new();
    for cause_row in current.iter().filter(|s| new.contains(&s.cause)) {
        let Some(cause) = AlertCause::parse(&cause_row.cause) else { continue };
        let (title, remedy) = (cause.title(), cause.remedy());
        tracing::warn!(cause = cause_row.cause, detail = cause_row.detail, "{title}");
        alerts.push((title.clone(), format!("{}.\n\n{remedy}", cause_row.detail)));
    }
    for cause_row in over {
        let Some(cause) = AlertCause::parse(&cause_row.cause) else { continue };
        let title = format!("Over: {}", cause.title());
        let lasted = (now - cause_row.opened_at).num_seconds();
        tracing::info!(cause = cause_row.cause, lasted_s = lasted, times = cause_row.times, "{title}");
        let times = if matches!(cause, AlertCause::Fallback { .. }) {
            format!(", {} messages", cause_row.times)
        } else {
            String::new()
        };
        let text = format!("It lasted {lasted} s{times}: {}.", cause_row.detail);
        alerts.push((title, text));
    }
    let mut places = Vec::new();
    for (title, text) in alerts {
        places.extend(write_alert(hub, &mut tx, title, text, now).await?);
    }
    tx.commit().await.map_err(Error::from)?;
    hub.wake.notify(places);
    Ok(())
}

/// The present causes: those in the database, and those that this process noted since the last run.
async fn current_causes(hub: &Hub, causes: &Noted, now: DateTime<Utc>) -> Result<Vec<ObservedCause>> {
    let db = hub.store.engine();
    let mut current: BTreeMap<String, ObservedCause> = BTreeMap::new();
    let mut see = |cause: AlertCause, times: u64, detail: String| {
        let cause = cause.to_string();
        current.insert(cause.clone(), ObservedCause { cause, times, detail });
    };
    let states = store::provider::states(db).await?.into_iter();
    for (provider, state) in states.filter(|(_, state)| state.breaker != BreakerState::Closed) {
        // A provider that was removed from these settings is not probed here. Another process may still have it; the
        // outage is over once it could have been probed for long and was not.
        let probed = state.open_until.is_some_and(|until| until + limits::UNPROBED_FOR > now);
        if hub.providers.get(&provider).is_none() && !probed {
            continue;
        }
        let reason = state.reason.unwrap_or_default();
        let since = state.opened_at.map(|at| format!(" since {}", at.to_rfc3339())).unwrap_or_default();
        let cause = match reason.as_str() {
            "credentials_refused" | "quota_used_up" => AlertCause::Refused { provider },
            _ => AlertCause::Outage { provider },
        };
        see(cause, 1, format!("{reason}{since}"));
    }
    for (provider, booked) in store::provider::limits(db).await? {
        let Some(limit) = hub.providers.get(&provider).and_then(|account| account.terms.limit) else { continue };
        let (used, all) = (booked.used(&limit, now).0, limit.capacity());
        let nearly = u64::from(used) * 100 >= u64::from(all) * limits::LIMIT_ALERT_PERCENT;
        if all >= limits::LIMIT_ALERT_FROM && nearly {
            let seconds = limit.per.as_secs();
            see(
                AlertCause::Limit { provider },
                1,
                format!("{used} of {all} requests are used; the limit is {} in {seconds} s", limit.count),
            );
        }
    }
    let aged = store::receipt::count_unmatched(db, now - limits::UNMATCHED_AGED, limits::UNMATCHED_COUNTED).await?;
    for (provider, receipts, since) in aged {
        see(
            AlertCause::Unmatched { provider },
            1,
            format!("{receipts} receipts, the oldest received {}", since.to_rfc3339()),
        );
    }
    for (cause, (times, detail)) in causes {
        see(cause.clone(), *times, detail.clone());
    }
    Ok(current.into_values().collect())
}

/// Writes an alert as a message; returns the places where its deliveries wait. Writes nothing if no alert address is
/// set or no provider serves its channel.
async fn write_alert(
    hub: &Hub,
    tx: &mut Conn,
    title: String,
    text: String,
    now: DateTime<Utc>,
) -> Result<Vec<(crate::model::watermark::ShardLane, DateTime<Utc>)>> {
    let alerts = &hub.settings.alerts;
    let served = |channel| !hub.providers.for_channel(channel).is_empty();
    let slack = alerts.alert_slack.iter().filter(|_| served(Channel::Slack)).map(|to| (Channel::Slack, to.clone()));
    let email = alerts.alert_email.iter().filter(|_| served(Channel::Email)).map(|to| (Channel::Email, to.clone()));
    let deliveries: Vec<NewDelivery> = slack.chain(email).map(|(channel, to)| NewDelivery::new(channel, to)).collect();
    if deliveries.is_empty() {
        return Ok(Vec::new());
    }
    let partner = own_partner(hub, tx, now).await?;
    let content = Content { subject: Some(title), body: text, ..Content::default() };
    let message = NewMessage {
        client_msg_id: None,
        kind: "ALERT".into(),
        priority: Priority::Urgent,
        detail: Detail { contents: vec![content], ..Detail::default() },
        deliveries,
        scheduled_at: None,
        expires_at: None,
    };
    let insert = prepare(hub, &partner, message.into())?;
    store::message::insert(&mut *tx, &[&insert], now).await?;
    Ok(insert.lanes.iter().map(|lane| ((insert.shard, *lane), now)).collect())
}

/// The hub's own partner, created at the first alert. It has no key, so no client can sign in as it. A partner that
/// took the name before it was reserved has a key: then the second name is used, and that partner sees no alert.
async fn own_partner(hub: &Hub, tx: &mut Conn, now: DateTime<Utc>) -> Result<Partner> {
    for name in RESERVED_NAMES {
        store::partner::insert(&mut *tx, &Partner::new(hub.next_id(), name.to_owned(), 0), now).await?;
        let found = store::partner::find_by_name(&mut *tx, name).await?;
        let found =
            found.ok_or_else(|| Error::Internal("the hub's own partner was created but cannot be found".into()))?;
        if store::key::client_id_of_partner(&mut *tx, found.partner_id).await?.is_none() {
            return Ok(found);
        }
    }
    Err(Error::Internal(format!(
        "the hub's own partner cannot be created: partners with keys have the reserved names {}",
        RESERVED_NAMES.join(", ")
    )))
}
