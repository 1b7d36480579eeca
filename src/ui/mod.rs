//! Pages for people: HTML without scripts, made from what the other layers know.

pub mod docs;
pub mod generated;
mod markdown;
