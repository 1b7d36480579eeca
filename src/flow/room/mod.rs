//! Rooms: users of a partner make them, come and go, and write. Whatever happens in a room takes the next number of its
//! stream under the lock of its gate; after the commit the number is noted, so that live connections get it.

// These name no other flow here.
mod event;
pub mod tail;

// Who may do what.
pub mod access;

// What users do in rooms.
pub mod change;
pub mod history;
pub mod make;
pub mod send;

// These name one of those.
pub mod mark;
pub mod member;
pub mod message;
