//! Principals: on whose behalf a request or a command runs. Code that depends on the kind of principal matches
//! `Principal` exhaustively, so the compiler lists every such place when a kind is added.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::role::{Role, StaffRole};
use crate::model::partner::Partner;

/// On whose behalf an action runs.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A partner, signed in with its own key.
    Partner(Arc<Partner>),
    /// An operator or admin: a key that belongs to no partner, or a command on this machine.
    Staff(StaffRole),
}

/// The messages, deliveries and endpoints that a principal sees.
#[derive(Debug, Clone)]
pub enum View {
    /// Those of this partner. Other partners' do not exist for it.
    Own(Arc<Partner>),
    /// Those of every partner.
    All,
}

impl Principal {
    /// The role as tokens and the audit log store it.
    pub fn role(&self) -> Role {
        match self {
            Principal::Partner(_) => Role::Partner,
            Principal::Staff(role) => Role::Staff(*role),
        }
    }

    /// The messages, deliveries and endpoints that it sees.
    pub fn view(&self) -> View {
        match self {
            Principal::Partner(own) => View::Own(own.clone()),
            Principal::Staff(StaffRole::Operator | StaffRole::Admin) => View::All,
        }
    }

    /// Whether its actions on messages and deliveries are written to the audit log. A partner's actions on its own are
    /// not: the log records actions on what belongs to others.
    pub fn is_audited(&self) -> bool {
        match self {
            Principal::Partner(_) => false,
            Principal::Staff(StaffRole::Operator | StaffRole::Admin) => true,
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The caller's address; `None`: unknown, or no request.
    pub address: Option<String>,
    pub request_id: Option<String>,
}

/// A principal with the name and origin that the audit log records.
#[derive(Debug, Clone)]
pub struct Actor {
    /// A client id, or the user and host of a command.
    pub name: String,
    pub principal: Principal,
    pub origin: Origin,
}

impl Actor {
    /// The actor of a command on this machine: an admin, because a person with a shell and the database URL can do
    /// everything anyway. `name`: user and host for the audit log.
    pub fn local_admin(name: String) -> Actor {
        Actor { name, principal: Principal::Staff(StaffRole::Admin), origin: Origin::default() }
    }
}

/// The account that a key signs in to.
#[derive(Debug, Clone)]
pub struct Account {
    pub client_id: String,
    pub principal: Principal,
    /// Tokens of an earlier epoch are invalid …
    pub epoch: i32,
    /// … except those of the previous one until this time, while the previous secret is valid.
    pub previous_epoch_until: Option<DateTime<Utc>>,
    pub revoked: bool,
}

impl Account {
    /// Whether tokens of this epoch are still valid.
    pub fn accepts_epoch(&self, epoch: i32, now: DateTime<Utc>) -> bool {
        let former = self.previous_epoch_until.is_some_and(|until| now < until);
        !self.revoked && (epoch == self.epoch || (former && epoch == self.epoch - 1))
    }
}
