//! HTML pages for people; only those of the inbox and of rooms have scripts.

pub mod chat;
pub mod docs;
pub mod generated;
pub mod inbox;
mod markdown;
mod page;
