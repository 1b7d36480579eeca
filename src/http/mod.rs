//! What all parts that speak HTTP share: the server, the layer around each request, authentication, and the format of
//! answers and errors. It knows no noun of the domain.

pub mod answer;
pub mod caller;
pub mod context;
pub mod cors;
pub mod field;
pub mod forwarded;
mod framing;
pub mod page;
pub mod problem;
pub mod query;
pub mod request;
pub mod server;
pub mod sockjs;
pub mod sse;
pub mod staff_view;
pub mod stream;
mod wire;
pub mod words;
