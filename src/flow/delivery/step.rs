//! Step: makes the settle that follows from an outcome (`model::delivery::next_transition`), not yet written.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::OnUnknown;
use crate::model::delivery::{Outcome, Status, next_transition};
use crate::model::provider_text::clean;
use crate::model::retry::Profile;
use crate::store::delivery::{ClaimedDelivery, EndedAttempt, Settle};

use super::claim::LeaseHolder;
use crate::flow::channel::{self, Preparation};

/// Details of a call that was made or prepared.
pub(super) struct CallDetails<'a> {
    pub(super) partner_id: Tsid,
    pub(super) provider: &'a str,
    pub(super) profile: Option<Profile>,
    pub(super) on_unknown: OnUnknown,
    pub(super) begins_recorded: bool,
    pub(super) called_at: Option<DateTime<Utc>>,
    /// How long to wait for a receipt if the provider accepts the delivery.
    pub(super) receipt_within: Option<TimeDelta>,
    pub(super) waited: Duration,
    /// What the channel prepared for it.
    pub(super) preparation: &'a Preparation,
}

/// Makes the settle that follows from an outcome. `call` is None for a delivery that was not prepared.
pub(super) fn settle_of(
    hub: &Hub,
    claimed: &ClaimedDelivery,
    holder: LeaseHolder,
    outcome: Outcome,
    call: Option<CallDetails<'_>>,
) -> Settle {
    let of_channel = || hub.providers.on_unknown(claimed.head.channel, &hub.settings.retry);
    let on_unknown = call.as_ref().map_or_else(of_channel, |c| c.on_unknown);
    let begun = call.as_ref().is_some_and(|c| c.begins_recorded);
    let called_at = call.as_ref().and_then(|c| c.called_at);
    let profile = call.as_ref().and_then(|c| c.profile);
    let receipt_within = call.as_ref().and_then(|c| c.receipt_within);
    let partner_id = call.as_ref().map(|c| c.partner_id);
    let now = hub.clock.now();
    let waited = call.as_ref().map_or(Duration::ZERO, |c| c.waited);
    let policy = hub.settings.retry.policy(claimed.head.channel, claimed.head.has_fallback);
    let policy = policy.with_profile(profile).after_waiting(waited);
    let step = next_transition(&claimed.head, &outcome, &policy, on_unknown, now, rand::random());
    Settle {
        release_limit: channel::followers(hub, claimed, call.as_ref().map(|c| c.preparation)),
        receipt_due: receipt_within.filter(|_| step.status == Status::Sent).map(|within| now + within),
        key: claimed.key,
        lane: claimed.lane,
        head: claimed.head,
        step,
        provider: call.filter(|_| called_at.is_some()).map(|c| c.provider.to_owned()),
        ended_attempt: Some(attempt_result(outcome, begun, holder.worker, holder.claimed_at, called_at)),
        event_message_id: hub.next_id(),
        suspect: None,
        partner_id,
    }
}

/// The outcome as it is stored on the attempt.
pub(super) fn attempt_result(
    outcome: Outcome,
    begun: bool,
    worker: Tsid,
    claimed_at: DateTime<Utc>,
    called_at: Option<DateTime<Utc>>,
) -> EndedAttempt {
    let kind = outcome.kind();
    let (code, detail, provider_ref) = match outcome {
        Outcome::Accepted { provider_ref } => (None, None, provider_ref),
        Outcome::Arrived => (None, None, None),
        Outcome::Rejected { code, detail, .. } => (Some(code), Some(detail), None),
        Outcome::Unknown { code, detail } => (Some(code.to_owned()), Some(detail), None),
        Outcome::Released => (Some("released".to_owned()), None, None),
        Outcome::Postponed => (Some("postponed".to_owned()), None, None),
        Outcome::Deferred { reason, .. } => (Some(reason.to_owned()), None, None),
        Outcome::Expired => (Some("expired".to_owned()), None, None),
        Outcome::Canceled => (Some("canceled".to_owned()), None, None),
    };
    EndedAttempt {
        outcome: kind,
        has_in_flight_row: begun,
        worker,
        claimed_at,
        called_at,
        code: code.and_then(clean),
        detail: detail.and_then(clean),
        provider_ref: provider_ref.and_then(clean),
    }
}
