//! HTML pages for people, without scripts.

pub mod docs;
pub mod generated;
mod markdown;
