//! What every door that speaks HTTP shares: the server, what surrounds a request, who asks, how answers and errors are
//! written. It knows no noun.

pub mod answer;
pub mod caller;
pub mod context;
pub mod field;
pub mod forwarded;
mod framing;
pub mod page;
pub mod problem;
pub mod query;
pub mod request;
pub mod server;
pub mod staff_view;
pub mod stream;
mod wire;
pub mod words;
