//! Alerts: operators are told of what needs a person, through the hub's own Slack or e-mail, once when it comes and once when
//! it is over. What is told is a message like any other, of the hub's own partner, so it is tried again and its story can be
//! read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::causes::Noted;
use crate::limits;
use crate::model::alert::AlertCause;
use crate::model::breaker::BreakerState;
use crate::model::channel::Channel;
use crate::model::lane::Priority;
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::model::partner::{Partner, RESERVED_NAMES};
use crate::store::alert::ObservedCause;
use crate::store::{self, Conn};

use super::intake::prepare::prepare;

/// Looks what is the matter, tells what is new and what is over. Any process may, at the same time: who writes a cause first
/// tells it.
pub async fn watch(hub: &Hub) -> Result<()> {
    let causes = hub.causes.take();
    let told = watch_all(hub, &causes).await;
    if told.is_err() {
        hub.causes.put_back(causes);
    }
    told
}

async fn watch_all(hub: &Hub, causes: &Noted) -> Result<()> {
    let now = hub.clock.now();
    let seen = current_causes(hub, causes, now).await?;
    let mut tx = hub.store.begin_engine().await?;
    let new = store::alert::raise(&mut tx, &seen, now).await?;
    let over = store::alert::clear(&mut tx, now).await?;
    let mut told = Vec::new();
    for one in seen.iter().filter(|s| new.contains(&s.cause)) {
        let Some(cause) = AlertCause::parse(&one.cause) else { continue };
        let (title, remedy) = (cause.title(), cause.remedy());
        tracing::warn!(cause = one.cause, detail = one.detail, "{title}");
        told.push((title.clone(), format!("{}.\n\n{remedy}", one.detail)));
    }
    for one in over {
        let Some(cause) = AlertCause::parse(&one.cause) else { continue };
        let title = format!("Over: {}", cause.title());
        let lasted = (now - one.opened_at).num_seconds();
        tracing::info!(cause = one.cause, lasted_s = lasted, times = one.times, "{title}");
        let times = if matches!(cause, AlertCause::Fallback { .. }) {
            format!(", {} messages", one.times)
        } else {
            String::new()
        };
        let text = format!("It lasted {lasted} s{times}: {}.", one.detail);
        told.push((title, text));
    }
    let mut places = Vec::new();
    for (title, text) in told {
        places.extend(write_alert(hub, &mut tx, title, text, now).await?);
    }
    tx.commit().await.map_err(Error::from)?;
    hub.wake.notify(places);
    Ok(())
}

/// What is the matter now: in the database, and what this process noted since it last looked.
async fn current_causes(hub: &Hub, causes: &Noted, now: DateTime<Utc>) -> Result<Vec<ObservedCause>> {
    let db = hub.store.engine();
    let mut seen: BTreeMap<String, ObservedCause> = BTreeMap::new();
    let mut see = |cause: AlertCause, times: u64, detail: String| {
        let cause = cause.to_string();
        seen.insert(cause.clone(), ObservedCause { cause, times, detail });
    };
    let states = store::provider::states(db).await?.into_iter();
    for (provider, state) in states.filter(|(_, state)| state.breaker != BreakerState::Closed) {
        // Taken out of the settings, it is probed no more. Those that have it see it and keep it; here it is over once nobody
        // has probed it for long.
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
                format!("{used} of {all} are used; it has {} in {seconds} s", limit.count),
            );
        }
    }
    let aged = store::receipt::count_unmatched(db, now - limits::UNMATCHED_AGED, limits::UNMATCHED_COUNTED).await?;
    for (provider, receipts, since) in aged {
        see(AlertCause::Unmatched { provider }, 1, format!("{receipts} receipts, the first of {}", since.to_rfc3339()));
    }
    for (cause, (times, detail)) in causes {
        see(cause.clone(), *times, detail.clone());
    }
    Ok(seen.into_values().collect())
}

/// Writes what is told, as a message; returns where it waits.
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

/// The hub's own partner, created at the first alert. It has no key, so no client signs in as it. A partner that took the
/// name before it was reserved has a key: the second name is used then, and that partner sees no alert.
async fn own_partner(hub: &Hub, tx: &mut Conn, now: DateTime<Utc>) -> Result<Partner> {
    for name in RESERVED_NAMES {
        store::partner::insert(&mut *tx, &Partner::new(hub.next_id(), name.to_owned(), 0), now).await?;
        let found = store::partner::find_by_name(&mut *tx, name).await?;
        let found =
            found.ok_or_else(|| Error::Internal("the hub's own partner was created, and is not there".into()))?;
        if store::key::client_id_of_partner(&mut *tx, found.partner_id).await?.is_none() {
            return Ok(found);
        }
    }
    Err(Error::Internal(format!("partners with keys have the reserved names {}", RESERVED_NAMES.join(", "))))
}
