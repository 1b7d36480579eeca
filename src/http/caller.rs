//! Who is asking: a bearer token is read, its account looked up, and the request counted against the partner's limit.

use std::sync::{Arc, Once};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::context::{REQUEST_ID, STANDING};
use super::problem::Problem;
use super::query::Query;
use super::server::Peer;
use super::{forwarded, look};
use crate::error::{Error, Refusal, Result};
use crate::flow::{self, rate::Standing, sign_in::unauthenticated};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::partner::{Account, DEFAULT_REGION, Partner, Scope};
use crate::model::role::{Actor, Owning, Role, forbidden};
use crate::store;

/// Somebody who signed in.
pub struct Signed {
    pub account: Arc<Account>,
    pub actor: Actor,
}

impl FromRequestParts<Hub> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Signed, Problem> {
        let account = flow::sign_in::bearer(hub, bearer_token(&parts.headers)?).await?;
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.signed_in();
        }
        let actor = Actor { who: account.client_id.clone(), role: account.role, ..somebody(parts, hub) };
        let signed = Signed { account, actor };
        match signed.own()? {
            Some(partner) => count(hub, partner, 1).await?,
            // What tells of the hub as a whole tells of nobody.
            None if parts.method.is_safe() && look::may_reveal(parts, &signed.actor) => {
                look::note(parts, hub, &signed.actor).await?;
            }
            None => (),
        }
        Ok(signed)
    }
}

impl Signed {
    /// The partner that the caller speaks for and whose own is all it sees; none for staff, who sees everybody's.
    ///
    /// # Errors
    /// The role and the partner of the key do not belong together.
    pub fn own(&self) -> Result<Option<&Arc<Partner>>> {
        match (self.account.role, &self.account.partner) {
            (Role::Partner, Some(partner)) => Ok(Some(partner)),
            (Role::Operator | Role::Admin, None) => Ok(None),
            (Role::Partner, None) | (Role::Operator | Role::Admin, Some(_)) => {
                Err(forbidden("a key that is either a partner's or staff's"))
            }
        }
    }
}

/// Counts a request that costs so much.
pub async fn count(hub: &Hub, partner: &Partner, cost: usize) -> Result<()> {
    if cost == 0 {
        return Ok(());
    }
    let cost = i32::try_from(cost).unwrap_or(i32::MAX);
    let standing = flow::rate::spend(hub, partner, cost).await;
    let told = match &standing {
        Ok(standing) => *standing,
        Err(_) => Standing { limit: partner.rate_limit_tps, remaining: 0 },
    };
    // Outside of a request there is nobody to tell.
    let _told = STANDING.try_with(|cell| cell.set(Some(told)));
    standing.map(drop)
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

/// Who asks, before it is known who that is.
pub fn somebody(parts: &Parts, hub: &Hub) -> Actor {
    Actor {
        who: String::new(),
        role: Role::Partner,
        address: address(parts, hub),
        request_id: REQUEST_ID.try_with(Clone::clone).ok(),
    }
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
    let address = forwarded::last(&parts.headers, &api.proxy_header);
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
pub struct From(pub Actor);

impl FromRequestParts<Hub> for From {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<From, Problem> {
        Ok(From(somebody(parts, hub)))
    }
}

/// A partner that signed in.
pub struct Caller {
    pub partner: Arc<Partner>,
}

impl FromRequestParts<Hub> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Caller, Problem> {
        let signed = Signed::from_request_parts(parts, hub).await?;
        let partner = signed.own()?.cloned().ok_or_else(|| forbidden("a partner's key"))?;
        Ok(Caller { partner })
    }
}

/// Whoever may look: a partner at its own, an operator at everybody's.
pub struct Reader {
    actor: Actor,
    /// None: staff, who sees everybody's.
    own: Option<Arc<Partner>>,
}

impl FromRequestParts<Hub> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Reader, Problem> {
        let signed = Signed::from_request_parts(parts, hub).await?;
        Ok(Reader { own: signed.own()?.cloned(), actor: signed.actor })
    }
}

impl Reader {
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Who sees several partners' has to be told whose each is.
    pub fn is_staff(&self) -> bool {
        self.own.is_none()
    }

    /// Whose something is, for those who see several partners'.
    pub fn tells(&self, partner_id: Tsid) -> Option<String> {
        self.is_staff().then(|| partner_id.to_string())
    }

    /// Whose message that is. One that the caller may not see is not there for it.
    pub async fn owner(&self, hub: &Hub, message_id: Tsid) -> Result<Arc<Partner>> {
        if let Some(partner) = &self.own {
            let (now, db) = (hub.clock.now(), hub.store.api());
            // What was posted long ago for a later day is seen until it is done, and for as long again.
            let seen = message_id >= partner.oldest_seen(now)
                || store::delivery::seen(db, partner.partner_id, partner.shard, message_id, partner.sees_since(now))
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
        if let Some(partner) = &self.own {
            return Ok(partner.clone());
        }
        let db = hub.store.api();
        let owner = store::endpoint::owner(db, endpoint_id).await?.ok_or(Error::NotFound)?;
        Ok(Arc::new(store::partner::get(db, owner).await?.ok_or(Error::NotFound)?))
    }

    /// The partner whose own a list is, for lists of one partner only: an operator says whose.
    pub async fn partner(&self, hub: &Hub, query: &mut Query) -> Result<Arc<Partner>> {
        if let Some(partner) = &self.own {
            is_own(partner, partner_id(query)?)?;
            return Ok(partner.clone());
        }
        let missing = || Refusal::new(400, "query_required", "who runs the hub says whose: ?partnerId=");
        let id = partner_id(query)?.ok_or_else(missing)?;
        let partner = store::partner::get(hub.store.api(), id).await?;
        Ok(Arc::new(partner.ok_or_else(flow::partner::unknown)?))
    }

    /// Whose messages a list is of: an operator may say `?partnerId=`.
    pub async fn scope(&self, hub: &Hub, query: &mut Query) -> Result<Scope> {
        if let Some(partner) = &self.own {
            is_own(partner, partner_id(query)?)?;
            return Ok(Scope::of(partner, partner.oldest_seen(hub.clock.now())));
        }
        let db = hub.store.api();
        match partner_id(query)? {
            Some(id) => {
                let partner = store::partner::get(db, id).await?.ok_or_else(flow::partner::unknown)?;
                Ok(Scope::of(&partner, Tsid(0)))
            }
            None => {
                let owners = store::partner::owners(db).await?;
                Ok(Scope { owners, oldest: Tsid(0), whose: Tsid(0), region: DEFAULT_REGION.into() })
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
        match reader.actor.role {
            Role::Partner | Role::Admin => Ok(Writer(reader)),
            Role::Operator => Err(forbidden("the partner's own key, or an admin's").into()),
        }
    }
}

impl std::ops::Deref for Writer {
    type Target = Reader;
    fn deref(&self) -> &Reader {
        &self.0
    }
}

impl Writer {
    pub fn permit<'a>(&'a self, partner: &'a Partner) -> Result<Owning<'a>> {
        self.actor().owning(self.0.own.as_deref(), partner)
    }
}

/// Another partner is told of like one that does not exist.
fn is_own(partner: &Partner, asked: Option<Tsid>) -> Result<()> {
    if asked.is_some_and(|id| id != partner.partner_id) { Err(flow::partner::unknown()) } else { Ok(()) }
}

fn partner_id(query: &mut Query) -> Result<Option<Tsid>, Refusal> {
    query.parse("partnerId", "a partner's id", |text| text.parse().ok())
}

/// An admin that signed in.
pub struct Admin(pub Actor);

impl FromRequestParts<Hub> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Admin, Problem> {
        let signed = Signed::from_request_parts(parts, hub).await?;
        signed.actor.administering()?;
        Ok(Admin(signed.actor))
    }
}

/// An operator or an admin that signed in.
pub struct Operator(pub Actor);

impl FromRequestParts<Hub> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Operator, Problem> {
        let signed = Signed::from_request_parts(parts, hub).await?;
        signed.actor.operating()?;
        Ok(Operator(signed.actor))
    }
}
