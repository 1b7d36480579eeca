//! Who is asking: a bearer token is read, its account looked up, and the request counted against the partner's limit.

use std::sync::{Arc, Once};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::context::{RATE_STATUS, REQUEST_ID};
use super::page::PartnerParam;
use super::problem::Problem;
use super::query::Query;
use super::server::Peer;
use super::{forwarded, staff_view};
use crate::error::{Error, Refusal, Result};
use crate::flow::{self, rate::RateStatus, sign_in::unauthenticated};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::{OwnerPermit, forbidden};
use crate::model::access::principal::{Actor, Origin, Principal, View};
use crate::model::partner::{DEFAULT_REGION, Partner, PartnerScope};
use crate::store;

/// A caller that signed in. Its request is counted, and if it is staff's and reveals what is partners', written down.
pub struct Authenticated(Actor);

impl FromRequestParts<Hub> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Authenticated, Problem> {
        let account = flow::sign_in::authenticate(hub, bearer_token(&parts.headers)?).await?;
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.signed_in();
        }
        let (who, principal) = (account.client_id.clone(), account.principal.clone());
        let actor = Actor { name: who, principal, origin: origin(parts, hub) };
        match &actor.principal {
            Principal::Partner(partner) => charge_rate_limit(hub, partner, 1).await?,
            // What tells of the hub as a whole tells of nobody.
            Principal::Staff(_) if parts.method.is_safe() && staff_view::will_answer(parts, &actor) => {
                staff_view::record_view(parts, hub, &actor).await?;
            }
            Principal::Staff(_) => (),
        }
        Ok(Authenticated(actor))
    }
}

/// Counts a request that costs so much.
pub async fn charge_rate_limit(hub: &Hub, partner: &Partner, cost: usize) -> Result<()> {
    if cost == 0 {
        return Ok(());
    }
    let cost = i32::try_from(cost).unwrap_or(i32::MAX);
    let spent = flow::rate::spend(hub, partner, cost).await;
    let rate_status = match &spent {
        Ok(spent) => *spent,
        Err(_) => RateStatus { limit: partner.rate_limit_tps, remaining: 0 },
    };
    // Outside of a request there is nobody to tell.
    let _outside_request = RATE_STATUS.try_with(|cell| cell.set(Some(rate_status)));
    spent.map(drop)
}

/// The one token of the one Authorization header.
fn bearer_token(headers: &HeaderMap) -> Result<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (given.next(), given.next()) else {
        return Err(unauthenticated(
            "send Authorization: Bearer with an access token, once; POST /v1/auth/token gives one",
        ));
    };
    let text = one.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => Ok(token.trim()),
        _ => Err(unauthenticated("send Authorization: Bearer with an access token")),
    }
}

/// Where a request came from, and under which id it is logged.
fn origin(parts: &Parts, hub: &Hub) -> Origin {
    Origin { address: address(parts, hub), request_id: REQUEST_ID.try_with(Clone::clone).ok() }
}

/// Where a request came from: the other end of its connection, or what our own proxy wrote. Where that cannot be read
/// the address is unknown: the proxy's own would stand for all its callers, and one of them could have all others
/// limited.
fn address(parts: &Parts, hub: &Hub) -> Option<String> {
    static WARNED: Once = Once::new();
    let api = &hub.settings.api;
    if !api.behind_proxy {
        return parts.extensions.get::<Peer>().map(|peer| peer.address.to_string());
    }
    let address = forwarded::caller_address(&parts.headers, &api.proxy_header);
    if address.is_none() {
        let header = &api.proxy_header;
        WARNED.call_once(|| {
            tracing::warn!(
                header,
                "a request came without a caller's address in the proxy's header; limits by address do not hold for \
                 such requests: have the proxy write it, or name its header in --proxy-header"
            );
        });
    }
    address
}

/// Where a request to sign in came from.
pub struct RequestOrigin(pub Origin);

impl FromRequestParts<Hub> for RequestOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<RequestOrigin, Problem> {
        Ok(RequestOrigin(origin(parts, hub)))
    }
}

/// A partner that signed in.
pub struct Caller {
    pub partner: Arc<Partner>,
}

impl FromRequestParts<Hub> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Caller, Problem> {
        let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
        match actor.principal {
            Principal::Partner(partner) => Ok(Caller { partner }),
            Principal::Staff(_) => Err(forbidden("a partner's key").into()),
        }
    }
}

/// Whoever may look: a partner at its own, an operator at everybody's.
pub struct Reader {
    actor: Actor,
    view: View,
}

impl FromRequestParts<Hub> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Reader, Problem> {
        let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
        Ok(Reader { view: actor.principal.view(), actor })
    }
}

impl Reader {
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The partner whose own is all that the caller sees; none where it sees every partner's.
    pub fn own_partner_id(&self) -> Option<Tsid> {
        match &self.view {
            View::Own(partner) => Some(partner.partner_id),
            View::All => None,
        }
    }

    /// Whether the caller sees several partners', so that answers name the partner of each thing.
    pub fn sees_all(&self) -> bool {
        self.own_partner_id().is_none()
    }

    /// Whose something is, for those who see several partners'.
    pub fn partner_id_for_staff(&self, partner_id: Tsid) -> Option<String> {
        self.sees_all().then(|| partner_id.to_string())
    }

    /// Whose message that is. One that the caller may not see is not there for it.
    pub async fn owner_of_message(&self, hub: &Hub, message_id: Tsid) -> Result<Arc<Partner>> {
        if let View::Own(partner) = &self.view {
            let (now, db) = (hub.clock.now(), hub.store.api());
            // What was posted long ago for a later day is seen until it is done, and for as long again.
            let seen = message_id >= partner.oldest_visible_id(now)
                || store::delivery::visible(
                    db,
                    partner.partner_id,
                    partner.shard,
                    message_id,
                    partner.visible_since(now),
                )
                .await?;
            return if seen { Ok(partner.clone()) } else { Err(Error::NotFound) };
        }
        let db = hub.store.api();
        let shards = store::partner::shards(db).await?;
        let owner = store::partner::of_message(db, &shards, message_id).await?.ok_or(Error::NotFound)?;
        Ok(Arc::new(store::partner::get(db, owner).await?.ok_or(Error::NotFound)?))
    }

    /// Whose endpoint that is. One that the caller may not see is not there for it: its own it has to look for itself.
    pub async fn owner_of_endpoint(&self, hub: &Hub, endpoint_id: Tsid) -> Result<Arc<Partner>> {
        if let View::Own(partner) = &self.view {
            return Ok(partner.clone());
        }
        let db = hub.store.api();
        let owner = store::endpoint::partner_of(db, endpoint_id).await?.ok_or(Error::NotFound)?;
        Ok(Arc::new(store::partner::get(db, owner).await?.ok_or(Error::NotFound)?))
    }

    /// The partner whose own a list is, for lists of one partner only: an operator says whose.
    pub async fn partner_of_list(&self, hub: &Hub, query: &mut Query) -> Result<Arc<Partner>> {
        if let View::Own(partner) = &self.view {
            check_is_own(partner, PartnerParam::read(query)?.partner_id)?;
            return Ok(partner.clone());
        }
        let missing = || Refusal::new(400, "query_required", "who runs the hub says whose: ?partnerId=");
        let id = PartnerParam::read(query)?.partner_id.ok_or_else(missing)?;
        let partner = store::partner::get(hub.store.api(), id).await?;
        Ok(Arc::new(partner.ok_or_else(flow::partner::unknown)?))
    }

    /// Whose messages a list is of: an operator may say `?partnerId=`.
    pub async fn scope(&self, hub: &Hub, query: &mut Query) -> Result<PartnerScope> {
        if let View::Own(partner) = &self.view {
            check_is_own(partner, PartnerParam::read(query)?.partner_id)?;
            return Ok(PartnerScope::of_partner(partner, partner.oldest_visible_id(hub.clock.now())));
        }
        let db = hub.store.api();
        match PartnerParam::read(query)?.partner_id {
            Some(id) => {
                let partner = store::partner::get(db, id).await?.ok_or_else(flow::partner::unknown)?;
                Ok(PartnerScope::of_partner(&partner, Tsid(0)))
            }
            None => {
                let owners = store::partner::ids_and_shards(db).await?;
                Ok(PartnerScope {
                    partners: owners,
                    oldest_id: Tsid(0),
                    cursor_owner: Tsid(0),
                    region: DEFAULT_REGION.into(),
                })
            }
        }
    }
}

/// Whoever may change what is a partner's: that partner, or an admin for it.
pub struct Writer(Reader);

impl FromRequestParts<Hub> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Writer, Problem> {
        let reader = Reader::from_request_parts(parts, hub).await?;
        reader.actor.check_may_own()?;
        Ok(Writer(reader))
    }
}

impl std::ops::Deref for Writer {
    type Target = Reader;
    fn deref(&self) -> &Reader {
        &self.0
    }
}

impl Writer {
    pub fn permit<'a>(&'a self, partner: &'a Partner) -> Result<OwnerPermit<'a>> {
        self.actor().owner_permit(partner)
    }
}

/// Another partner is told of like one that does not exist.
fn check_is_own(partner: &Partner, asked: Option<Tsid>) -> Result<()> {
    if asked.is_some_and(|id| id != partner.partner_id) { Err(flow::partner::unknown()) } else { Ok(()) }
}

/// An admin that signed in.
pub struct Admin(pub Actor);

impl FromRequestParts<Hub> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Admin, Problem> {
        let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
        actor.admin_permit()?;
        Ok(Admin(actor))
    }
}

/// An operator or an admin that signed in.
pub struct Operator(pub Actor);

impl FromRequestParts<Hub> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Operator, Problem> {
        let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
        actor.operator_permit()?;
        Ok(Operator(actor))
    }
}
