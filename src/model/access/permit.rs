//! Permits: a flow that only some principals may run takes proof as an argument, which only this file can make.

use super::principal::{Actor, Principal};
use super::role::StaffRole;
use crate::error::{Code, Error, Refusal, Result};
use crate::model::channel::Channel;
use crate::model::partner::Partner;

/// Proof of being an operator, or an admin.
#[derive(Debug, Clone, Copy)]
pub struct OperatorPermit<'a>(&'a Actor);

/// Proof of being an admin.
#[derive(Debug, Clone, Copy)]
pub struct AdminPermit<'a>(&'a Actor);

/// Proof of speaking for a partner: of being that partner, or an admin.
#[derive(Debug, Clone, Copy)]
pub struct OwnerPermit<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
}

/// Proof of the right to cancel a partner's messages.
#[derive(Debug, Clone, Copy)]
pub struct CancelPermit<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
}

/// Proof of the right to redrive a partner's deliveries, of all channels or its webhooks alone.
#[derive(Debug, Clone, Copy)]
pub struct RedrivePermit<'a> {
    actor: &'a Actor,
    partner: &'a Partner,
    webhooks_only: bool,
}

impl Actor {
    /// Permission to act on deliveries of every partner.
    ///
    /// # Errors
    /// `forbidden` for all but operators and admins.
    pub fn operator_permit(&self) -> Result<OperatorPermit<'_>> {
        match &self.principal {
            Principal::Staff(StaffRole::Operator | StaffRole::Admin) => Ok(OperatorPermit(self)),
            Principal::Partner(_) => Err(forbidden("an operator")),
        }
    }

    /// Permission to change partners, keys and settings.
    ///
    /// # Errors
    /// `forbidden` for all but admins.
    pub fn admin_permit(&self) -> Result<AdminPermit<'_>> {
        match &self.principal {
            Principal::Staff(StaffRole::Admin) => Ok(AdminPermit(self)),
            Principal::Partner(_) | Principal::Staff(StaffRole::Operator) => Err(forbidden("an admin")),
        }
    }

    /// Whether `owning` can succeed, for whichever partner.
    ///
    /// # Errors
    /// `forbidden` for all but partners and admins.
    pub fn check_may_own(&self) -> Result<()> {
        match &self.principal {
            Principal::Partner(_) | Principal::Staff(StaffRole::Admin) => Ok(()),
            Principal::Staff(StaffRole::Operator) => Err(forbidden("the partner's own key, or an admin's")),
        }
    }

    /// Permission to change what is `partner`'s.
    ///
    /// # Errors
    /// `forbidden` for all but partners and admins. `Error::NotFound` for another partner.
    pub fn owner_permit<'a>(&'a self, partner: &'a Partner) -> Result<OwnerPermit<'a>> {
        self.check_may_own()?;
        self.check_reaches(partner)?;
        Ok(OwnerPermit { actor: self, partner })
    }

    /// Permission to cancel `partner`'s messages.
    ///
    /// # Errors
    /// `forbidden` for a partner without that right. `Error::NotFound` for another partner.
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

    /// Permission to redrive `partner`'s deliveries: any for staff, webhooks for the partner itself.
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

    /// A partner reaches its own alone, and another's is not there for it; staff reaches every partner's.
    fn check_reaches(&self, partner: &Partner) -> Result<()> {
        match &self.principal {
            Principal::Partner(own) if own.partner_id != partner.partner_id => Err(Error::NotFound),
            Principal::Partner(_) | Principal::Staff(StaffRole::Operator | StaffRole::Admin) => Ok(()),
        }
    }
}

impl<'a> OperatorPermit<'a> {
    pub fn actor(self) -> &'a Actor {
        self.0
    }
}

impl<'a> AdminPermit<'a> {
    pub fn actor(self) -> &'a Actor {
        self.0
    }
}

impl<'a> OwnerPermit<'a> {
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    pub fn partner(self) -> &'a Partner {
        self.partner
    }
}

impl<'a> CancelPermit<'a> {
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    pub fn partner(self) -> &'a Partner {
        self.partner
    }
}

impl<'a> RedrivePermit<'a> {
    pub fn actor(self) -> &'a Actor {
        self.actor
    }

    pub fn partner(self) -> &'a Partner {
        self.partner
    }

    /// Whether the permit is good for a delivery over this channel.
    ///
    /// # Errors
    /// `forbidden` for a partner and any channel but WEBHOOK.
    pub fn check_channel(self, channel: Channel) -> Result<()> {
        if self.webhooks_only && channel != Channel::Webhook {
            return Err(forbidden("an operator: a partner may redrive its own webhooks alone"));
        }
        Ok(())
    }
}

/// The caller lacks a right. `needed`: the one that would do, as the sentence "this needs …" ends.
pub fn forbidden(needed: &str) -> Error {
    Refusal::new(403, "forbidden", format!("this needs {needed}")).with_code(Code::E002).into()
}
