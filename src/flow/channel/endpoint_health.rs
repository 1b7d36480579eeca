//! Endpoint health: writes the results of calls to endpoints, disables endpoints that are gone or have failed for days,
//! and informs their owners.

use serde_json::json;

use crate::error::Result;
use crate::flow::intake::prepare::prepare;
use crate::flow::publish::{NewEvent, announce, publish};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::endpoint::EndpointStatus;
use crate::model::event::{EventKind, EventPayload};
use crate::model::lane::Priority;
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::model::partner::Partner;
use crate::store::endpoint::DisabledEndpoint;
use crate::store::message::NewMessageRow;
use crate::store::{self, Conn};

/// Writes the results of calls to endpoints since the last run, and disables endpoints that have only failed for
/// `limits::ENDPOINT_FAILING`.
///
/// # Errors
/// `Error::Unavailable` if the database fails; results that were not written are kept for the next run.
pub async fn note_answers(hub: &Hub) -> Result<()> {
    let answers = hub.endpoint_answers.take();
    if answers.is_empty() {
        return Ok(());
    }
    let failing_since = hub.clock.now() - limits::ENDPOINT_FAILING;
    let failing = match store::endpoint::record_answers(hub.store.webhooks(), &answers, failing_since).await {
        Ok(failing) => failing,
        Err(e) => {
            hub.endpoint_answers.put_back(answers);
            return Err(e);
        }
    };
    for endpoint_id in failing {
        disable(hub, endpoint_id, "failing", None).await?;
    }
    Ok(())
}

/// Disables an endpoint and informs its owner, by an event to the partner's other endpoints and by e-mail, in one
/// transaction. Does nothing if it is disabled already. `reason` is `gone`, `failing` or `paused`. With `url` it is
/// disabled only if that is still its URL: the answer that is the reason came from there.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn disable(hub: &Hub, endpoint_id: Tsid, reason: &'static str, url: Option<&str>) -> Result<()> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_for(Channel::Webhook).await?;
    let disabled = store::endpoint::disable(&mut *tx, endpoint_id, reason, url, now).await?;
    let Some(disabled) = disabled else { return Ok(()) };
    let more = json!({"endpointId": endpoint_id.to_string(), "url": disabled.url});
    let payload = EventPayload {
        event: EventKind::EndpointDisabled.as_str().into(),
        seq: 1,
        status: Some(EndpointStatus::Disabled.as_str().into()),
        reason: Some(reason.into()),
        occurred_at: now,
        extra: more.as_object().cloned().unwrap_or_default(),
        ..EventPayload::default()
    };
    let event = NewEvent {
        partner_id: disabled.partner_id,
        shard: disabled.shard,
        about: None,
        priority: Priority::Normal,
        overflow: false,
        payload,
        only: None,
    };
    let published = publish(hub, &mut tx, &[event]).await?;
    let mail = mail(hub, &mut tx, endpoint_id, &disabled, reason).await?;
    tx.commit().await?;
    announce(hub, &published);
    hub.wake.notify(mail.iter().flat_map(|m| m.lanes.iter().map(|lane| ((m.shard, *lane), now))));
    tracing::warn!(endpoint = %endpoint_id, partner = %disabled.partner_id, reason, "an endpoint was disabled");
    Ok(())
}

/// Writes the e-mail as a message of the partner's own, so that the partner sees its delivery. None if the endpoint has
/// no contact address, or the partner cannot use EMAIL.
async fn mail(
    hub: &Hub,
    tx: &mut Conn,
    endpoint_id: Tsid,
    disabled: &DisabledEndpoint,
    reason: &str,
) -> Result<Option<NewMessageRow>> {
    let Some(to) = disabled.contact_email.clone() else { return Ok(None) };
    let Some(partner) = store::partner::get(&mut *tx, disabled.partner_id).await? else { return Ok(None) };
    if hub.providers.for_channel(Channel::Email).is_empty() || !partner.may_use(Channel::Email) {
        tracing::warn!(
            endpoint = %endpoint_id,
            "the owner of the endpoint gets no e-mail: the partner may not use EMAIL, or no provider serves it"
        );
        return Ok(None);
    }
    let message = disabled_mail(endpoint_id, &partner, &disabled.url, to, reason);
    let insert = prepare(hub, &partner, message.into())?;
    store::message::insert(tx, &[&insert], hub.clock.now()).await?;
    Ok(Some(insert))
}

fn disabled_mail(endpoint_id: Tsid, partner: &Partner, url: &str, to: String, reason: &str) -> NewMessage {
    let why = match reason {
        "gone" => "It answered 410 Gone, which asks the hub to send nothing more.",
        "paused" => "It has been paused for thirty days.",
        _ => "All calls to it have failed for five days.",
    };
    let body = format!(
        "The webhook endpoint {endpoint_id} of {} was disabled.\n\n{url}\n\n{why}\n\n\
         Its webhooks are kept as dead letters. Once it works, make it ACTIVE and recover what it missed:\n\n  \
         notihub webhook resume {endpoint_id}\n  \
         notihub webhook recover {endpoint_id} --since <when it began to fail>\n",
        partner.name
    );
    let subject = Some(format!("Webhook endpoint {endpoint_id} was disabled"));
    NewMessage {
        client_msg_id: None,
        kind: "ENDPOINT_DISABLED".into(),
        priority: Priority::Normal,
        detail: Detail { contents: vec![Content { subject, body, ..Content::default() }], ..Detail::default() },
        deliveries: vec![NewDelivery::new(Channel::Email, to)],
        scheduled_at: None,
        expires_at: None,
    }
}
