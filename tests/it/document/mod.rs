//! Documents: /openapi.json, the pages, and the list of requirements, each held to the code.

mod body;
mod openapi;
mod page;
mod requirements;
