//! Intake: a message, its deliveries and its idempotency key become durable together or not at all, and the caller is
//! answered only after the commit.
//!
//! Listed in groups, as in `flow`: a module names only modules of the groups above its own.

// A parsed message becomes rows to write.
pub mod prepare;

// The rows are written by the cheapest statement that writes all they need.
pub mod insert;

// The answer to each message, new or repeated, and the wake-up of workers.
pub mod announce;
pub mod judge;

// Group commit of single messages.
pub mod writer;

// One message through the writers, or a batch in a transaction of its own.
pub mod accept;
