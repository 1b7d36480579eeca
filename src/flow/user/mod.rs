//! Users: how a request proves on whose behalf it runs, and what users do with what is theirs.
//!
//! Three doors lead to the same users. People sign up and sign in with a password where the partner allows it
//! ([`sign_up`], [`sign_in`]); a partner's server signs a token for its own user, or acts on behalf of one with its own
//! access token ([`access`]). Users of the last two doors are made at their first use ([`make`]).

// These name no other flow here.
pub mod change;
pub mod make;
pub mod partner;
pub mod password;

// The doors, and the sign-ins that tokens belong to.
pub mod access;
pub mod session;

// What users do, and what is done to them.
pub mod block;
pub mod device;
pub mod leave;
pub mod profile;
pub mod sign_in;
pub mod sign_up;
pub mod ticket;
