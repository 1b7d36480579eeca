//! Access: on whose behalf a request runs, what it may do, and what sign-in is judged by.

pub mod permit;
pub mod principal;
pub mod role;
pub mod sign_in_throttle;
pub mod token;
