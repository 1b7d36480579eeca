//! Users: how a request proves on whose behalf it runs, and what users do with what is theirs.
//!
//! Three doors lead to the same users. A partner's server signs a token for its own user, or acts on behalf of one with
//! its own access token ([`access`]); and people sign up where the partner allows it. Users of the first two doors are
//! made at their first use ([`make`]).

// These name no other flow here.
pub mod change;
pub mod make;

// The doors.
pub mod access;

// What opens a stream where no header can be set.
pub mod ticket;
