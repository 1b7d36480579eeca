//! The user on whose behalf a request runs. A user's requests see only what that user may see; nothing that belongs to
//! a partner as such is reachable with one.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::principal::{Actor, Origin};
use crate::error::{Code, Error, Refusal};
use crate::id::Tsid;
use crate::model::partner::Partner;
use crate::model::user::User;

/// The role word of users in the audit log.
pub const USER_ROLE: &str = "USER";

/// How a request proved on whose behalf it runs.
#[derive(Debug, Clone)]
pub enum Door {
    /// A token of this hub. `sid`: the family of refresh tokens of the sign-in; `None`: the partner's server asked for
    /// the token.
    Token { sid: Option<Tsid> },
    /// A token that the partner's server signed with the partner's user key.
    Subscriber,
    /// The partner's own token, with the header `X-User`. The actor is the partner's key.
    OnBehalf(Box<Actor>),
}

/// An authenticated user. Flows that act on a user's own data take it as proof of who the user is.
#[derive(Debug, Clone)]
pub struct UserCaller {
    pub partner: Arc<Partner>,
    /// The user as it was read at most ten seconds ago.
    pub user: Arc<User>,
    pub door: Door,
    /// When the token ends. None: the request is on behalf of the user.
    pub until: Option<DateTime<Utc>>,
    pub origin: Origin,
}

impl UserCaller {
    /// The user's key: its shard and id.
    pub fn key(&self) -> (i16, Tsid) {
        (self.user.shard, self.user.user_id)
    }

    /// The partner that the user belongs to.
    pub fn partner_id(&self) -> Tsid {
        self.partner.partner_id
    }

    /// The shard of all that belongs to the user.
    pub fn shard(&self) -> i16 {
        self.user.shard
    }

    /// The user's id.
    pub fn user_id(&self) -> Tsid {
        self.user.user_id
    }

    /// The family of refresh tokens of the sign-in that the request belongs to, if it has one.
    pub fn sid(&self) -> Option<Tsid> {
        match &self.door {
            Door::Token { sid } => *sid,
            Door::Subscriber | Door::OnBehalf(_) => None,
        }
    }

    /// The name that the audit log records: the user's, and the key's that acts on its behalf.
    pub fn audit_name(&self) -> String {
        match &self.door {
            Door::Token { .. } | Door::Subscriber => client_name(self.user_id()),
            Door::OnBehalf(by) => format!("{} by {}", client_name(self.user_id()), by.name),
        }
    }
}

/// A user's name where clients are named: as the owner of refresh tokens and in the audit log.
pub fn client_name(user_id: Tsid) -> String {
    format!("u.{user_id}")
}

/// The user that a name of a client stands for. None: it is a client's.
pub fn user_of_client(client_id: &str) -> Option<Tsid> {
    client_id.strip_prefix("u.")?.parse().ok()
}

/// The error of a user that is blocked.
pub fn blocked() -> Error {
    Refusal::new(403, "user_blocked", "this user is blocked").with_code(Code::E002).into()
}
