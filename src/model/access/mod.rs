//! Access control: principals, users, roles, permits, access tokens, passwords, and the limits of sign-ins and
//! sign-ups.

pub mod password;
pub mod permit;
pub mod principal;
pub mod role;
pub mod sign_in_throttle;
pub mod sign_up_throttle;
pub mod token;
pub mod user;
