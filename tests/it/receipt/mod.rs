//! Receipts: what providers report later about attempts.

mod callback;
mod deadline;
mod poll;
