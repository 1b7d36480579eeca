//! Who is asking: a bearer token is read, its account looked up, and the request counted against the partner's limit.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::error::{Problem, REQUEST_ID};
use crate::error::Result;
use crate::flow::{self, rate::Standing, sign_in::unauthenticated};
use crate::hub::Hub;
use crate::model::partner::{Account, Partner};
use crate::model::role::{Actor, Role, forbidden};
use crate::store::{self, audit::Deed};

tokio::task_local! {
    /// How the caller stands with its limit; the layer around all handlers tells it in the answer's headers.
    pub static STANDING: Cell<Option<Standing>>;
}

/// The other end of a connection, put into each of its requests by the server.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Somebody who signed in.
pub struct Signed {
    pub account: Arc<Account>,
    pub actor: Actor,
}

impl FromRequestParts<Hub> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Signed, Problem> {
        let account = flow::sign_in::bearer(hub, bearer_token(&parts.headers)?).await?;
        let actor = Actor { who: account.client_id.clone(), role: account.role, ..somebody(parts, hub) };
        match &account.partner {
            Some(partner) => count(hub, partner, 1).await?,
            None if parts.method.is_safe() => {
                // Looking is a deed too when what is looked at is somebody else's. What changes something says so itself.
                let deed = Deed {
                    action: "look".into(),
                    object: Some(parts.uri.path_and_query().map_or("", |p| p.as_str()).chars().take(500).collect()),
                    ..Deed::default()
                };
                store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), &actor, &deed).await?;
            }
            None => (),
        }
        Ok(Signed { account, actor })
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
        address: address(parts, hub).map(|a| a.to_string()),
        request_id: REQUEST_ID.try_with(Clone::clone).ok(),
    }
}

/// Where a request came from: the other end of its connection, or what our own proxy says of it.
fn address(parts: &Parts, hub: &Hub) -> Option<IpAddr> {
    let peer = parts.extensions.get::<Peer>().map(|p| p.0.to_canonical());
    if !hub.settings.api.behind_proxy {
        return peer;
    }
    // The last entry is the one that our proxy added; those before it are the caller's own word.
    let said = parts.headers.get_all("x-forwarded-for").iter().next_back().and_then(|v| v.to_str().ok());
    said.and_then(|list| list.rsplit(',').next()?.trim().parse().ok()).or(peer)
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
        let partner = signed.account.partner.clone().ok_or_else(|| forbidden("a partner's key"))?;
        Ok(Caller { partner })
    }
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
