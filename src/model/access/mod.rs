//! Access control: principals, users, roles, permits, access tokens, and the limits of failed sign-ins.

pub mod permit;
pub mod principal;
pub mod role;
pub mod sign_in_throttle;
pub mod token;
pub mod user;
