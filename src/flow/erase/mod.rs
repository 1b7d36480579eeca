//! Erase: removes a person's data: everything with an address of it, or a user with the messages to it.

mod address;
mod message;
mod result;
mod user;

pub use self::address::erase;
pub use self::result::{Erased, Progress};
pub use self::user::{erase_user, erase_users};
