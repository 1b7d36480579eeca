//! Principals: on whose behalf a request or a command runs. Everything that depends on it matches a `Principal` without
//! a rest: the compiler lists each of these places when a kind of caller is added.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::role::{Role, StaffRole};
use crate::model::partner::Partner;

/// On whose behalf something is done.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A partner, by its own key.
    Partner(Arc<Partner>),
    /// An operator or admin, by a key that belongs to no partner, or at the machine.
    Staff(StaffRole),
}

/// Whose messages, deliveries and endpoints a principal sees.
#[derive(Debug, Clone)]
pub enum View {
    /// This partner's alone. Another partner's do not exist for it.
    Own(Arc<Partner>),
    /// Every partner's.
    All,
}

impl Principal {
    /// The role that tokens and the audit log name.
    pub fn role(&self) -> Role {
        match self {
            Principal::Partner(_) => Role::Partner,
            Principal::Staff(role) => Role::Staff(*role),
        }
    }

    /// Whose messages, deliveries and endpoints it sees.
    pub fn view(&self) -> View {
        match self {
            Principal::Partner(own) => View::Own(own.clone()),
            Principal::Staff(StaffRole::Operator | StaffRole::Admin) => View::All,
        }
    }

    /// Whether its actions on messages and deliveries are written to the audit log. A partner's actions on its own are
    /// not: the log is of those who act on what belongs to others.
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
    /// None: unknown, or no request.
    pub address: Option<String>,
    pub request_id: Option<String>,
}

/// A principal as the audit log names it.
#[derive(Debug, Clone)]
pub struct Actor {
    /// A client id, or the user and host of a command.
    pub name: String,
    pub principal: Principal,
    pub origin: Origin,
}

impl Actor {
    /// A person with a shell on this machine and the database's address, from whom nothing can be kept: an admin.
    /// `who`: user and host, as the audit log names them.
    pub fn local_admin(who: String) -> Actor {
        Actor { name: who, principal: Principal::Staff(StaffRole::Admin), origin: Origin::default() }
    }
}

/// A key that signs in.
#[derive(Debug, Clone)]
pub struct Account {
    pub client_id: String,
    pub principal: Principal,
    /// Tokens of an earlier one are void …
    pub epoch: i32,
    /// … but those of the one before, while the secret that gave them is good.
    pub previous_epoch_until: Option<DateTime<Utc>>,
    pub revoked: bool,
}

impl Account {
    /// Whether tokens of this epoch are good yet.
    pub fn accepts_epoch(&self, epoch: i32, now: DateTime<Utc>) -> bool {
        let former = self.previous_epoch_until.is_some_and(|until| now < until);
        !self.revoked && (epoch == self.epoch || (former && epoch == self.epoch - 1))
    }
}
