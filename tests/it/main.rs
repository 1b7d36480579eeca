//! One test binary: every test goes through the front door, against a real PostgreSQL (`bin/test` starts one). Each
//! test's doc line names the items of `src/docs/requirements.md` that it proves.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its expectation does")]

mod support;

mod access;
mod delivery;
mod document;
mod fsck;
mod http;
mod inbox;
mod intake;
mod laws;
mod maintenance;
mod program;
mod provider;
mod receipt;
mod room;
mod store;
mod user;
mod webhook;
