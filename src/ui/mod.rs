//! HTML pages for people; only those of the inbox have scripts.

pub mod docs;
pub mod generated;
pub mod inbox;
mod markdown;
