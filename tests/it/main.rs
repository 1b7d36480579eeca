//! One test binary: every test goes through the front door, against a real PostgreSQL (`bin/test` starts one). Each
//! test's doc line names the checklist items it proves.

mod support;

mod messages;
