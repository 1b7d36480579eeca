//! Intake: a message, its deliveries and its key become durable together, or not at all, and its caller is answered
//! only after the commit.
//!
//! Listed in groups, as in `flow`: a module names only modules of the groups above its own.

// A message that was read becomes the rows that are to be written.
pub mod prepare;

// Written, or written before: the answer to each message, and those who wait for it to be written.
pub mod announce;
pub mod judge;

// Requests that arrive during a commit are written together in the next one.
pub mod writer;

// One message by way of the writers, or a batch by itself.
pub mod accept;
