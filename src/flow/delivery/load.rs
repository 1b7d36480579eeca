//! Hold: what is to be sent is loaded, and where an unknown outcome must not lead to a second copy the beginning of the
//! call is recorded.

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

/// A delivery this process holds, with what is to be sent.
pub struct HeldDelivery {
    pub claimed: ClaimedDelivery,
    pub(super) message: Arc<StoredMessage>,
    pub(super) account: Arc<Account>,
    pub(super) on_unknown: OnUnknown,
    /// The beginning of its call is recorded: its claim said so.
    pub(super) begins_recorded: bool,
    pub(super) holder: LeaseHolder,
    /// What its channel adds to its call.
    pub(super) preparation: Preparation,
    /// Where its provider has a limit, or is in trouble.
    pub(super) reservation: Option<Reservation>,
    /// For how long it has been tried, where its provider says that it was asked too fast.
    pub(super) tried_for: Duration,
}

impl HeldDelivery {
    pub fn key(&self) -> DeliveryKey {
        self.claimed.key
    }

    /// Whether the provider is asked what it has before it is sent anything.
    pub(super) fn looks_up_first(&self) -> bool {
        self.claimed.head.possibly_sent && self.on_unknown == OnUnknown::Lookup
    }

    /// What did not go the first time may be what the provider does not take: with others it would keep these, too. And
    /// whether a provider has something is asked of one thing at a time.
    pub(super) fn is_sent_alone(&self) -> bool {
        self.claimed.provider.is_some() || self.claimed.head.possibly_sent
    }

    /// How long a receipt is waited for, before it is given up or something else takes its place.
    pub(super) fn receipt_within(&self) -> Option<TimeDelta> {
        let within = TimeDelta::from_std(self.account.capability(self.claimed.head.channel)?.receipt_within?).ok()?;
        let fallback = self.request().and_then(|letter| letter.content.fallback.as_deref());
        let sooner = fallback.filter(|_| self.claimed.head.has_fallback).and_then(|f| f.no_receipt_s);
        Some(sooner.map_or(within, |s| within.min(TimeDelta::seconds(i64::from(s)))))
    }

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

/// What became of a claim: deliveries to call, and those given back because what to send could not be read.
pub struct LoadedClaim {
    pub held: Vec<HeldDelivery>,
    pub given_back: Vec<Settle>,
}

/// Loads contents and records beginnings.
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
        tracing::warn!(error = %e, deliveries = claimed.len(), "claimed, but what to send could not be read");
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
            // One row that cannot be understood must not hold up the others, nor come back for ever.
            (Some(None), _) => Outcome::Rejected {
                class: ErrorClass::Content,
                code: "content_unreadable".into(),
                detail: "its content in the database cannot be understood by this program".into(),
                retry_after: None,
            },
            (Some(Some(_)), Err(outcome)) => outcome,
            (None, _) => Outcome::Postponed,
        };
        given_back.push(settle_of(hub, &claimed, holder, outcome, None));
    }
    let (held, late) = begin(hub, holder, held).await;
    given_back.extend(late);
    LoadedClaim { held, given_back }
}

/// Where an unknown outcome must not lead to a second copy, the beginning of a call is durable before the call. Returns
/// what may be called, and what is given back: its lease is nearly over, because the hub is late.
async fn begin(hub: &Hub, holder: LeaseHolder, held: Vec<HeldDelivery>) -> (Vec<HeldDelivery>, Vec<Settle>) {
    let calls: Vec<(DeliveryKey, i16, String)> = held
        .iter()
        .filter(|h| h.begins_recorded)
        .map(|h| (h.claimed.key, h.claimed.head.attempt, h.account.name().to_owned()))
        .collect();
    let Some(first) = held.first().filter(|_| !calls.is_empty()) else { return (held, Vec::new()) };
    let LeaseHolder { worker, claimed_at, .. } = holder;
    let lasting = hub.settings.timing.call_budget();
    let db = hub.store.pool_for(first.claimed.head.channel);
    match store::attempt::record_begin(db, &calls, worker, claimed_at, hub.clock.now(), lasting).await {
        Ok(begun) => {
            may_die_at("begin.after_commit");
            let begun: HashSet<DeliveryKey> = begun.into_iter().collect();
            let (held, late): (Vec<HeldDelivery>, Vec<HeldDelivery>) =
                held.into_iter().partition(|h| !h.begins_recorded || begun.contains(&h.claimed.key));
            let late = late.iter().map(|h| settle_of(hub, &h.claimed, holder, Outcome::Postponed, None)).collect();
            (held, late)
        }
        Err(e) => {
            // Perhaps it was recorded: whoever takes it back looks.
            tracing::warn!(error = %e, deliveries = calls.len(), "claimed, but the beginning could not be recorded");
            (held.into_iter().filter(|h| !h.begins_recorded).collect(), Vec::new())
        }
    }
}
