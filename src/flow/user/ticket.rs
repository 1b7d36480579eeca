//! Tickets: a client that cannot set a header, such as a browser's EventSource, asks for a ticket with its token and
//! opens a stream with it, once. A ticket in a log or a history is of no use to anyone: it is used up, or half a minute
//! old.

use chrono::{DateTime, Utc};

use crate::crypt;
use crate::error::Result;
use crate::flow::sign_in::unauthenticated;
use crate::hub::Hub;
use crate::limits;
use crate::model::access::principal::Origin;
use crate::model::access::user::UserCaller;
use crate::store;
use crate::store::ticket::TicketUser;

use super::access;

/// Prefix of tickets, by which scanners of code and logs recognise them.
pub const TICKET_PREFIX: &str = "nht_";

/// Makes a ticket for a user. It is valid for `limits::TICKET_VALID`, and once.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn make(hub: &Hub, caller: &UserCaller) -> Result<String> {
    let ticket = crypt::secret(TICKET_PREFIX);
    let (shard, user_id) = caller.key();
    let user = TicketUser {
        shard,
        user_id,
        partner_id: caller.partner_id(),
        sid: caller.sid(),
        token_until: caller.until,
        valid_until: hub.clock.now() + limits::TICKET_VALID,
    };
    store::ticket::insert(hub.store.api(), &hashed(hub, &ticket), &user).await?;
    Ok(ticket)
}

/// Takes a ticket and identifies its user. The ticket is used up, whatever follows.
///
/// # Errors
/// `Error::Refused` with 401 if there is no such ticket, or its token or its user is no longer valid; with 403 if the
/// user is blocked or the partner inactive. `Error::Unavailable` if the database cannot be reached.
pub async fn redeem(hub: &Hub, ticket: &str, origin: Origin) -> Result<UserCaller> {
    let now = hub.clock.now();
    let known = store::ticket::take(hub.store.api(), &hashed(hub, ticket), now).await?;
    let wrong = || unauthenticated("the ticket is not valid; ask for another one");
    let user = known.filter(|user| user.token_until.is_none_or(|until| now < until)).ok_or_else(wrong)?;
    let issued: DateTime<Utc> = user.valid_until - limits::TICKET_VALID;
    access::by_ticket(hub, &user, issued.timestamp(), origin).await
}

fn hashed(hub: &Hub, ticket: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, ticket.as_bytes())
}
