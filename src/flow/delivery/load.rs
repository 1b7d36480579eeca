//! Load: reads the contents of claimed deliveries, and records the beginnings of calls where an unknown outcome must
//! not lead to a second copy.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use crate::hub::Hub;
use crate::hub::provider_state::Reservation;
use crate::id::Tsid;
use crate::model::channel::OnUnknown;
use crate::model::delivery::{DeliveryKey, Outcome};
use crate::model::retry::ErrorClass;
use crate::provider::{Account, SendRequest};
use crate::shutdown::{may_die_at, may_die_holding};
use crate::store;
use crate::store::delivery::{ClaimedDelivery, Settle};
use crate::store::message::StoredMessage;

use super::claim::{Claim, LeaseHolder};
use super::step::settle_of;
use crate::flow::channel::{self, Preparation};

/// A delivery that this process holds, with everything that its call needs.
pub struct HeldDelivery {
    /// The row as it was claimed.
    pub claimed: ClaimedDelivery,
    pub(super) message: Arc<StoredMessage>,
    pub(super) account: Arc<Account>,
    pub(super) on_unknown: OnUnknown,
    /// The beginning of its call is recorded before the call; the claim stored this decision in the row.
    pub(super) begins_recorded: bool,
    pub(super) holder: LeaseHolder,
    /// What its channel adds to its call.
    pub(super) preparation: Preparation,
    /// Its reservation, if its provider has a limit or is in trouble.
    pub(super) reservation: Option<Reservation>,
    /// How long it has been tried; read only after its provider answered "too fast", zero otherwise.
    pub(super) tried_for: Duration,
}

impl HeldDelivery {
    /// The key of the delivery.
    pub fn key(&self) -> DeliveryKey {
        self.claimed.key
    }

    /// Whether the provider is asked for an earlier attempt before anything is sent.
    pub(super) fn looks_up_first(&self) -> bool {
        self.claimed.head.possibly_sent && self.on_unknown == OnUnknown::Lookup
    }

    /// Whether it may not share a request. A retry is sent alone: if its content makes the provider reject a whole
    /// batch, the others would be rejected with it. A look-up is also about one delivery.
    pub(super) fn is_sent_alone(&self) -> bool {
        self.claimed.provider.is_some() || self.claimed.head.possibly_sent
    }

    /// How long to wait for a receipt before the delivery is UNDETERMINED or falls back; None where no receipt is
    /// expected.
    pub(super) fn receipt_within(&self) -> Option<TimeDelta> {
        let within = TimeDelta::from_std(self.account.capability(self.claimed.head.channel)?.receipt_within?).ok()?;
        let fallback = self.request().and_then(|request| request.content.fallback.as_deref());
        let sooner = fallback.filter(|_| self.claimed.head.has_fallback).and_then(|f| f.no_receipt_s);
        Some(sooner.map_or(within, |s| within.min(TimeDelta::seconds(i64::from(s)))))
    }

    /// The request to the provider; None if the message has no such content.
    pub(super) fn request(&self) -> Option<SendRequest<'_>> {
        Some(SendRequest {
            key: self.claimed.key,
            attempt: self.claimed.head.attempt,
            channel: self.claimed.head.channel,
            kind: &self.message.kind,
            to: &self.claimed.recipient,
            content: self.message.detail.contents.get(usize::try_from(self.claimed.content).ok()?)?,
            created_at: self.message.created_at,
            extra: self.preparation.extra(),
        })
    }
}

/// A loaded claim: deliveries to call, and outcomes of those that cannot be called.
pub struct LoadedClaim {
    /// Deliveries to call.
    pub held: Vec<HeldDelivery>,
    /// Settles of deliveries that are not called: no provider can take them now, or their content could not be read.
    pub given_back: Vec<Settle>,
}

/// Loads contents, prepares channels and records beginnings of calls, for a whole claim at once. Never fails: a
/// delivery that cannot be loaded is given back.
pub async fn load(hub: &Hub, claim: Claim) -> LoadedClaim {
    let Claim { rows: claimed, routes, holder } = claim;
    may_die_holding("hold.before", |recipient| claimed.iter().any(|c| c.recipient == recipient));
    let wanted: BTreeSet<(i16, Tsid)> = claimed.iter().map(|c| (c.key.shard, c.key.message_id)).collect();
    let wanted: Vec<(i16, Tsid)> = wanted.into_iter().collect();
    let Some(channel) = claimed.first().map(|c| c.head.channel) else {
        return LoadedClaim { held: Vec::new(), given_back: Vec::new() };
    };
    let db = hub.store.pool_for(channel);
    let contents = store::message::contents(db, &hub.keyring, &wanted).await.unwrap_or_else(|e| {
        tracing::warn!(
            error = %e, deliveries = claimed.len(),
            "the contents of claimed deliveries could not be read; the deliveries are given back"
        );
        Vec::new()
    });
    let contents: HashMap<Tsid, Option<Arc<StoredMessage>>> =
        contents.into_iter().map(|(id, message)| (id, message.map(Arc::new))).collect();
    let mut prepared = channel::prepare(hub, &claimed, &contents).await;
    let (mut held, mut given_back) = (Vec::with_capacity(claimed.len()), Vec::new());
    for (claimed, route) in claimed.into_iter().zip(routes) {
        let message = contents.get(&claimed.key.message_id).cloned();
        let preparation = prepared.take(&claimed);
        let outcome = match (message, route) {
            (Some(Some(message)), Ok((account, reservation))) => match preparation {
                Ok(preparation) => {
                    let channel = claimed.head.channel;
                    let begins_recorded = hub.providers.on_unknown(channel, &hub.settings.retry) > OnUnknown::Retry;
                    let on_unknown = account.on_unknown(channel, &hub.settings.retry);
                    held.push(HeldDelivery {
                        claimed,
                        message,
                        account,
                        on_unknown,
                        begins_recorded,
                        holder,
                        preparation,
                        reservation,
                        tried_for: Duration::ZERO,
                    });
                    continue;
                }
                Err(outcome) => outcome,
            },
            // A row that cannot be read must not delay the others, nor be retried for ever.
            (Some(None), _) => Outcome::Rejected {
                class: ErrorClass::Content,
                code: "content_unreadable".into(),
                detail: "the stored content cannot be read by this version of the hub".into(),
                retry_after: None,
            },
            (Some(Some(_)), Err(outcome)) => outcome,
            (None, _) => Outcome::Postponed,
        };
        given_back.push(settle_of(hub, &claimed, holder, outcome, None));
    }
    let (held, late) = record_beginnings(hub, holder, held).await;
    given_back.extend(late);
    LoadedClaim { held, given_back }
}

/// Records the beginning of each call whose unknown outcome must not lead to a second copy; it is durable before the
/// call. Returns the deliveries to call, and the settles of those whose lease is nearly over, which are given back.
async fn record_beginnings(
    hub: &Hub,
    holder: LeaseHolder,
    held: Vec<HeldDelivery>,
) -> (Vec<HeldDelivery>, Vec<Settle>) {
    let beginnings: Vec<(DeliveryKey, i16, String)> = held
        .iter()
        .filter(|h| h.begins_recorded)
        .map(|h| (h.claimed.key, h.claimed.head.attempt, h.account.name().to_owned()))
        .collect();
    let Some(first) = held.first().filter(|_| !beginnings.is_empty()) else { return (held, Vec::new()) };
    let LeaseHolder { worker, claimed_at, .. } = holder;
    let call_budget = hub.settings.timing.call_budget();
    let db = hub.store.pool_for(first.claimed.head.channel);
    match store::attempt::record_begin(db, &beginnings, worker, claimed_at, hub.clock.now(), call_budget).await {
        Ok(begun) => {
            may_die_at("begin.after_commit");
            let begun: HashSet<DeliveryKey> = begun.into_iter().collect();
            let (held, late): (Vec<HeldDelivery>, Vec<HeldDelivery>) =
                held.into_iter().partition(|h| !h.begins_recorded || begun.contains(&h.claimed.key));
            let late = late.iter().map(|h| settle_of(hub, &h.claimed, holder, Outcome::Postponed, None)).collect();
            (held, late)
        }
        Err(e) => {
            // The transaction may have committed. These deliveries are not called; the reaper takes them back and reads
            // whether the beginning was recorded.
            tracing::warn!(
                error = %e, deliveries = beginnings.len(),
                "the beginnings of calls could not be recorded; the deliveries are not called"
            );
            (held.into_iter().filter(|h| !h.begins_recorded).collect(), Vec::new())
        }
    }
}
