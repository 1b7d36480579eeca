//! Permits. A flow that only some principals may run takes a permit as an argument; only this file can create one.

use super::principal::{Actor, Principal};
use super::role::StaffRole;
use crate::error::{Code, Error, Refusal, Result};
use crate::model::channel::Channel;
use crate::model::partner::Partner;

/// Proof that the actor is an operator or an admin.
#[derive(Debug, Clone, Copy)]
pub struct OperatorPermit<'a>(&'a Actor);

/// Proof that the actor is an admin.
#[derive(Debug, Clone, Copy)]
pub struct AdminPermit<'a>(&'a Actor);

/// Proof that the actor is this partner or an admin.
#[derive(Debug, Clone, Copy)]
pub struct OwnerPermit<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
}

/// Proof that the actor may cancel this partner's messages.
#[derive(Debug, Clone, Copy)]
pub struct CancelPermit<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
}

/// Proof that the actor may redrive this partner's deliveries: those of every channel, or webhooks only.
#[derive(Debug, Clone, Copy)]
pub struct RedrivePermit<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
    webhooks_only: bool,
}

impl Actor {
    /// A permit to act on deliveries of every partner.
    ///
    /// # Errors
    /// `forbidden` unless the actor is an operator or an admin.
    pub fn operator_permit(&self) -> Result<OperatorPermit<'_>> {
        match &self.principal {
            Principal::Staff(StaffRole::Operator | StaffRole::Admin) => Ok(OperatorPermit(self)),
            Principal::Partner(_) => Err(forbidden("an operator")),
        }
    }

    /// A permit to change partners, keys and settings.
    ///
    /// # Errors
    /// `forbidden` unless the actor is an admin.
    pub fn admin_permit(&self) -> Result<AdminPermit<'_>> {
        match &self.principal {
            Principal::Staff(StaffRole::Admin) => Ok(AdminPermit(self)),
            Principal::Partner(_) | Principal::Staff(StaffRole::Operator) => Err(forbidden("an admin")),
        }
    }

    /// Checks that `owner_permit` can succeed for some partner.
    ///
    /// # Errors
    /// `forbidden` unless the actor is a partner or an admin.
    pub fn check_may_own(&self) -> Result<()> {
        match &self.principal {
            Principal::Partner(_) | Principal::Staff(StaffRole::Admin) => Ok(()),
            Principal::Staff(StaffRole::Operator) => Err(forbidden("the partner's own key, or an admin's")),
        }
    }

    /// A permit to change what belongs to `partner`.
    ///
    /// # Errors
    /// `forbidden` unless the actor is a partner or an admin; `Error::NotFound` for another partner.
    pub fn owner_permit<'a>(&'a self, partner: &'a Partner) -> Result<OwnerPermit<'a>> {
        self.check_may_own()?;
        self.check_reaches(partner)?;
        Ok(OwnerPermit { actor: self, partner })
    }

    /// A permit to cancel `partner`'s messages.
    ///
    /// # Errors
    /// `forbidden` for a partner without that right; `Error::NotFound` for another partner.
    pub fn cancel_permit<'a>(&'a self, partner: &'a Partner) -> Result<CancelPermit<'a>> {
        self.check_reaches(partner)?;
        match &self.principal {
            Principal::Partner(own) if !own.may_cancel => {
                Err(forbidden("the right to cancel, which this partner does not have"))
            }
            Principal::Partner(_) | Principal::Staff(StaffRole::Operator | StaffRole::Admin) => {
                Ok(CancelPermit { actor: self, partner })
            }
        }
    }

    /// A permit to redrive `partner`'s deliveries: those of every channel for staff, webhooks only for the partner
    /// itself.
    ///
    /// # Errors
    /// `Error::NotFound` for another partner.
    pub fn redrive_permit<'a>(&'a self, partner: &'a Partner) -> Result<RedrivePermit<'a>> {
        self.check_reaches(partner)?;
        let webhooks_alone = match &self.principal {
            Principal::Partner(_) => true,
            Principal::Staff(StaffRole::Operator | StaffRole::Admin) => false,
        };
        Ok(RedrivePermit { actor: self, partner, webhooks_only: webhooks_alone })
    }

    /// A partner may act on itself alone, and other partners do not exist for it. Staff may act on every partner.
    fn check_reaches(&self, partner: &Partner) -> Result<()> {
        match &self.principal {
            Principal::Partner(own) if own.partner_id != partner.partner_id => Err(Error::NotFound),
            Principal::Partner(_) | Principal::Staff(StaffRole::Operator | StaffRole::Admin) => Ok(()),
        }
    }
}

impl<'a> OperatorPermit<'a> {
    /// The actor that the permit was given to.
    pub fn actor(self) -> &'a Actor {
        self.0
    }
}

impl<'a> AdminPermit<'a> {
    /// The actor that the permit was given to.
    pub fn actor(self) -> &'a Actor {
        self.0
    }
}

impl<'a> OwnerPermit<'a> {
    /// The actor that the permit was given to.
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    /// The partner that the permit is for.
    pub fn partner(self) -> &'a Partner {
        self.partner
    }
}

impl<'a> CancelPermit<'a> {
    /// The actor that the permit was given to.
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    /// The partner that the permit is for.
    pub fn partner(self) -> &'a Partner {
        self.partner
    }
}

impl<'a> RedrivePermit<'a> {
    /// The actor that the permit was given to.
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    /// The partner that the permit is for.
    pub fn partner(self) -> &'a Partner {
        self.partner
    }

    /// Checks that the permit covers a delivery over this channel.
    ///
    /// # Errors
    /// `forbidden` for a partner and any channel but WEBHOOK.
    pub fn check_channel(self, channel: Channel) -> Result<()> {
        if self.webhooks_only && channel != Channel::Webhook {
            return Err(forbidden("an operator; a partner may redrive only its own webhooks"));
        }
        Ok(())
    }
}

/// The error of a caller without a right. `needed`: the right that is required, as the end of the sentence "this needs
/// …".
pub fn forbidden(needed: &str) -> Error {
    Refusal::new(403, "forbidden", format!("this needs {needed}")).with_code(Code::E002).into()
}
