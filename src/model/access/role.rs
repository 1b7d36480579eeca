//! The words for what a key may do, as the database, tokens and the audit log keep them. Neither type can be compared:
//! code decides by a `match` without a rest, so that a role that is added is refused until each place names it.

#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// A partner's key: its own messages.
    Partner,
    /// A key of those who run the hub; it belongs to no partner.
    Staff(StaffRole),
}

#[derive(Debug, Clone, Copy)]
pub enum StaffRole {
    /// Sees every partner's messages, and acts on deliveries.
    Operator,
    /// Changes partners, keys and settings, and may do all an operator may.
    Admin,
}

pub const ROLES: [Role; 3] = [Role::Partner, Role::Staff(StaffRole::Operator), Role::Staff(StaffRole::Admin)];

impl Role {
    /// The word for it: `PARTNER`, `OPERATOR` or `ADMIN`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Partner => "PARTNER",
            Role::Staff(StaffRole::Operator) => "OPERATOR",
            Role::Staff(StaffRole::Admin) => "ADMIN",
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
