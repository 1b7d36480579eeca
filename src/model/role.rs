//! Who acts, and what it may. A flow that only some may run takes a permit, which only this module can make. Roles are
//! matched without a rest: one that is added may nothing until it is named at each place.

use super::partner::Partner;
use crate::error::{Code, Error, Refusal, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its own messages.
    Partner,
    /// Sees everything, and acts on deliveries.
    Operator,
    /// Partners, keys, settings; and all an operator may.
    Admin,
}

pub const ROLES: [Role; 3] = [Role::Partner, Role::Operator, Role::Admin];

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Partner => "PARTNER",
            Role::Operator => "OPERATOR",
            Role::Admin => "ADMIN",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Role, String> {
        let found = ROLES.into_iter().find(|r| r.as_str() == text);
        found.ok_or_else(|| format!("no such role; there are {}", ROLES.map(Role::as_str).join(", ")))
    }
}

/// Who does something, as the audit log names it.
#[derive(Debug, Clone)]
pub struct Actor {
    /// A client id, or who runs a command on which host.
    pub who: String,
    pub role: Role,
    /// Where the request came from.
    pub address: Option<String>,
    pub request_id: Option<String>,
}

/// Proof of being an operator, or an admin.
#[derive(Debug, Clone, Copy)]
pub struct Operating<'a>(&'a Actor);

/// Proof of being an admin.
#[derive(Debug, Clone, Copy)]
pub struct Administering<'a>(&'a Actor);

/// Proof of speaking for a partner: of being that partner, or an admin.
#[derive(Debug, Clone, Copy)]
pub struct Owning<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
}

impl Actor {
    /// Somebody with a shell on this machine and the database's address: there is nothing left to keep from them.
    pub fn at_the_machine(who: String) -> Actor {
        Actor { who, role: Role::Admin, address: None, request_id: None }
    }

    pub fn operating(&self) -> Result<Operating<'_>> {
        match self.role {
            Role::Operator | Role::Admin => Ok(Operating(self)),
            Role::Partner => Err(forbidden("an operator")),
        }
    }

    pub fn administering(&self) -> Result<Administering<'_>> {
        match self.role {
            Role::Admin => Ok(Administering(self)),
            Role::Partner | Role::Operator => Err(forbidden("an admin")),
        }
    }

    /// For what is `partner`'s; `own` is the partner that the actor's key speaks for.
    pub fn owning<'a>(&'a self, own: Option<&Partner>, partner: &'a Partner) -> Result<Owning<'a>> {
        match self.role {
            Role::Operator => Err(forbidden("the partner's own key, or an admin's")),
            Role::Partner if own.is_none_or(|own| own.partner_id != partner.partner_id) => Err(Error::NotFound),
            Role::Partner | Role::Admin => Ok(Owning { actor: self, partner }),
        }
    }
}

impl<'a> Owning<'a> {
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    pub fn partner(self) -> &'a Partner {
        self.partner
    }
}

impl<'a> Operating<'a> {
    pub fn actor(self) -> &'a Actor {
        self.0
    }
}

impl<'a> Administering<'a> {
    pub fn actor(self) -> &'a Actor {
        self.0
    }
}

/// Not allowed for who is signed in; `who` would be.
pub fn forbidden(who: &str) -> Error {
    Refusal::new(403, "forbidden", format!("this needs {who}")).with_code(Code::E002).into()
}
