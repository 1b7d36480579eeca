//! Authentication: reads the bearer token, looks up its account, and counts the request against the partner's rate
//! limit.

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
use crate::limits;
use crate::model::access::permit::{OwnerPermit, forbidden};
use crate::model::access::principal::{Actor, Origin, Principal, View};
use crate::model::access::user::UserCaller;
use crate::model::partner::{DEFAULT_REGION, Partner, PartnerScope};
use crate::store;

/// An authenticated caller. A partner's request is counted against its rate limit; a request of staff that reads
/// partners' data is recorded in the audit log.
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
            Principal::Staff(_) if parts.method.is_safe() && staff_view::will_answer(parts, &actor) => {
                staff_view::record_view(parts, hub, &actor).await?;
            }
            Principal::Staff(_) => (),
        }
        Ok(Authenticated(actor))
    }
}

/// Charges `cost` requests to the partner's rate limit, and sets the rate limit headers of the current answer. A cost
/// of 0 is free.
///
/// # Errors
/// `Error::Limited` if the limit is exceeded.
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
    // Outside of a request there are no headers to set.
    let _outside_request = RATE_STATUS.try_with(|cell| cell.set(Some(rate_status)));
    spent.map(drop)
}

/// The bearer token. The header must be given exactly once.
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

/// The address that a request came from, and the id that it is logged under.
fn origin(parts: &Parts, hub: &Hub) -> Origin {
    Origin { address: address(parts, hub), request_id: REQUEST_ID.try_with(Clone::clone).ok() }
}

/// The caller's address: the peer of the connection, or behind a proxy the address in the proxy's header. None if that
/// header cannot be read: the proxy's own address would stand for all callers, so that one of them could have all
/// others limited.
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
                "a request has no caller's address in the proxy's header, so limits by address do not apply to it: \
                 configure the proxy to write the header, or name its header in --proxy-header"
            );
        });
    }
    address
}

/// The origin of a request without authentication, such as a sign-in.
pub struct RequestOrigin(pub Origin);

impl FromRequestParts<Hub> for RequestOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<RequestOrigin, Problem> {
        Ok(RequestOrigin(origin(parts, hub)))
    }
}

/// An authenticated partner. Staff is refused.
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

/// The service that a person signs up or signs in at: the header `X-Partner`, if it is given.
pub struct PartnerName(pub Option<String>);

impl FromRequestParts<Hub> for PartnerName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _hub: &Hub) -> Result<PartnerName, Problem> {
        let name = header_value(&parts.headers, "x-partner", "the name or id of the service")?;
        // No partner has a name that is not UTF-8.
        Ok(PartnerName(name.map(|name| String::from_utf8_lossy(name).into_owned())))
    }
}

/// A header's value, given once. None if it is empty or not given. `what`: what to send.
fn header_value<'h>(headers: &'h HeaderMap, name: &'static str, what: &str) -> Result<Option<&'h [u8]>> {
    let mut given = headers.get_all(name).iter();
    let Some(value) = given.next() else { return Ok(None) };
    match given.next() {
        None => Ok(Some(value.as_bytes()).filter(|value| !value.is_empty())),
        Some(_) => Err(Refusal::new(400, "header_unreadable", format!("send {name} once, with {what}")).into()),
    }
}

/// The token in `Authorization: Bearer`, whatever it is; None if the header is not given.
pub struct BearerText(pub Option<String>);

impl FromRequestParts<Hub> for BearerText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _hub: &Hub) -> Result<BearerText, Problem> {
        match parts.headers.contains_key(header::AUTHORIZATION) {
            true => Ok(BearerText(Some(bearer_token(&parts.headers)?.to_owned()))),
            false => Ok(BearerText(None)),
        }
    }
}

/// The header with which a partner's own token acts on behalf of one of its users.
const ON_BEHALF: &str = "x-user";

/// An authenticated user: by its own token, or by its partner's with the header `X-User`. A request on behalf of a user
/// is counted against the partner's rate limit.
pub struct User(pub UserCaller);

impl FromRequestParts<Hub> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<User, Problem> {
        if let Some(name) = header_value(&parts.headers, ON_BEHALF, "your own id of the user, or its userId")? {
            // No user has a name that is not UTF-8.
            let name = String::from_utf8(name.to_vec()).map_err(|_| Error::NotFound)?;
            let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
            let partner = match &actor.principal {
                Principal::Partner(partner) => partner.clone(),
                Principal::Staff(_) => return Err(forbidden("a partner's key, or a user's token").into()),
            };
            return Ok(User(flow::user::access::on_behalf(hub, actor, partner, &name).await?));
        }
        let token = bearer_token(&parts.headers)?;
        let caller = flow::user::access::by_token(hub, token, origin(parts, hub)).await?;
        if !hub.user_requests().take(caller.user_id().0, hub.clock.now()) {
            let detail = format!("a user may make {} requests a second", limits::USER_REQUESTS);
            return Err(Error::Limited { reason: "rate_limited", detail, retry_after_s: 1 }.into());
        }
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.signed_in();
        }
        flow::presence::touch(hub, caller.key());
        Ok(User(caller))
    }
}

/// An authenticated user that opens a stream: as `User`, or by `?ticket=` or `?token=` where no header can be set. The
/// handler takes these two from the query.
pub struct LiveUser(pub UserCaller);

impl LiveUser {
    /// Takes the parameters that this extractor has read.
    pub fn take_parameters(query: &mut Query) {
        query.take("ticket");
        query.take("token");
    }
}

impl FromRequestParts<Hub> for LiveUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<LiveUser, Problem> {
        let mut query = Query::from_request_parts(parts, hub).await?;
        let from = origin(parts, hub);
        let caller = match (query.take("ticket"), query.take("token")) {
            (Some(ticket), _) => flow::user::ticket::redeem(hub, &ticket, from).await?,
            (None, Some(token)) => flow::user::access::by_token(hub, &token, from).await?,
            (None, None) => return Ok(LiveUser(User::from_request_parts(parts, hub).await?.0)),
        };
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.signed_in();
        }
        Ok(LiveUser(caller))
    }
}

/// A caller with read access: a partner sees its own data, staff sees the data of all partners.
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
    /// The caller, for permits and the audit log.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The caller's own partner.
    ///
    /// # Errors
    /// `forbidden` for staff.
    pub fn own_partner(&self) -> Result<&Partner> {
        match &self.view {
            View::Own(partner) => Ok(partner),
            View::All => Err(forbidden("a partner's own key")),
        }
    }

    /// The id of the caller's own partner; none for staff, which sees all partners.
    pub fn own_partner_id(&self) -> Option<Tsid> {
        match &self.view {
            View::Own(partner) => Some(partner.partner_id),
            View::All => None,
        }
    }

    /// Whether the caller sees the data of all partners, so that answers name the partner of each item.
    pub fn sees_all(&self) -> bool {
        self.own_partner_id().is_none()
    }

    /// The id of an item's partner as answers show it: to staff only.
    pub fn partner_id_for_staff(&self, partner_id: Tsid) -> Option<String> {
        self.sees_all().then(|| partner_id.to_string())
    }

    /// The partner that owns a message. A partner finds a message for as long as its look-back allows, and unfinished
    /// messages for longer.
    ///
    /// # Errors
    /// `Error::NotFound` if there is no such message, or the caller may not see it; `Error::Unavailable` if the
    /// database cannot be reached.
    pub async fn owner_of_message(&self, hub: &Hub, message_id: Tsid) -> Result<Arc<Partner>> {
        if let View::Own(partner) = &self.view {
            let (now, db) = (hub.clock.now(), hub.store.api());
            // A message that was posted long ago for a later day is visible until it is finished, and for the look-back
            // after that.
            let is_visible = message_id >= partner.oldest_visible_id(now)
                || store::delivery::visible(
                    db,
                    partner.partner_id,
                    partner.shard,
                    message_id,
                    partner.visible_since(now),
                )
                .await?;
            return if is_visible { Ok(partner.clone()) } else { Err(Error::NotFound) };
        }
        let db = hub.store.api();
        let shards = store::partner::shards(db).await?;
        let owner = store::partner::of_message(db, &shards, message_id).await?.ok_or(Error::NotFound)?;
        Ok(Arc::new(store::partner::get(db, owner).await?.ok_or(Error::NotFound)?))
    }

    /// The partner to look for an endpoint in: for a partner itself, without checking that the endpoint exists; for
    /// staff the
    /// endpoint's owner.
    ///
    /// # Errors
    /// `Error::NotFound` if staff asks for an endpoint that does not exist; `Error::Unavailable` if the database cannot
    /// be reached.
    pub async fn owner_of_endpoint(&self, hub: &Hub, endpoint_id: Tsid) -> Result<Arc<Partner>> {
        if let View::Own(partner) = &self.view {
            return Ok(partner.clone());
        }
        let db = hub.store.api();
        let owner = store::endpoint::partner_of(db, endpoint_id).await?.ok_or(Error::NotFound)?;
        Ok(Arc::new(store::partner::get(db, owner).await?.ok_or(Error::NotFound)?))
    }

    /// The partner of a list that covers one partner. Staff names it in `?partnerId=`.
    ///
    /// # Errors
    /// `query_required` if staff does not name a partner; `partner_unknown` if the partner does not exist, or is not
    /// the caller's own; `Error::Unavailable` if the database cannot be reached.
    pub async fn partner_of_list(&self, hub: &Hub, query: &mut Query) -> Result<Arc<Partner>> {
        if let View::Own(partner) = &self.view {
            check_is_own(partner, PartnerParam::read(query)?.partner_id)?;
            return Ok(partner.clone());
        }
        let missing = || Refusal::new(400, "query_required", "operators and admins must name the partner: ?partnerId=");
        let id = PartnerParam::read(query)?.partner_id.ok_or_else(missing)?;
        let partner = store::partner::get(hub.store.api(), id).await?;
        Ok(Arc::new(partner.ok_or_else(flow::partner::unknown)?))
    }

    /// The partners that a list covers. Staff may narrow it with `?partnerId=`.
    ///
    /// # Errors
    /// `query_invalid` for a `partnerId` that is not an id; `partner_unknown` if the partner does not exist, or is not
    /// the caller's own; `Error::Unavailable` if the database cannot be reached.
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

/// A caller that may change a partner's data: the partner itself, or an admin.
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
    /// The permit to change what belongs to `partner`.
    ///
    /// # Errors
    /// `Error::Refused` with 403 if the caller may not.
    pub fn permit<'a>(&'a self, partner: &'a Partner) -> Result<OwnerPermit<'a>> {
        self.actor().owner_permit(partner)
    }
}

/// Refuses another partner's id with the same answer as an id that does not exist, so that ids cannot be probed.
fn check_is_own(partner: &Partner, asked: Option<Tsid>) -> Result<()> {
    if asked.is_some_and(|id| id != partner.partner_id) { Err(flow::partner::unknown()) } else { Ok(()) }
}

/// An authenticated admin.
pub struct Admin(pub Actor);

impl FromRequestParts<Hub> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Admin, Problem> {
        let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
        actor.admin_permit()?;
        Ok(Admin(actor))
    }
}

/// An authenticated operator or admin.
pub struct Operator(pub Actor);

impl FromRequestParts<Hub> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Operator, Problem> {
        let Authenticated(actor) = Authenticated::from_request_parts(parts, hub).await?;
        actor.operator_permit()?;
        Ok(Operator(actor))
    }
}
