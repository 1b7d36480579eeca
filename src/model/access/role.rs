//! Roles of keys, as the database, tokens and the audit log store them. Neither type can be compared: code matches them
//! exhaustively, so a new role has no rights until every place names it.

/// The role of a key.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// A partner's key: acts on its own messages.
    Partner,
    /// An operator's or admin's key; it belongs to no partner.
    Staff(StaffRole),
}

/// The role of a key that belongs to no partner.
#[derive(Debug, Clone, Copy)]
pub enum StaffRole {
    /// Reads every partner's messages and acts on deliveries.
    Operator,
    /// Changes partners, keys and settings, and has all rights of an operator.
    Admin,
}

/// Every role.
pub const ROLES: [Role; 3] = [Role::Partner, Role::Staff(StaffRole::Operator), Role::Staff(StaffRole::Admin)];

impl Role {
    /// The stable word: `PARTNER`, `OPERATOR` or `ADMIN`.
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
