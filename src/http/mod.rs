//! What every door that speaks HTTP shares: the server, what surrounds a request, who asks, how answers and errors are
//! written. It knows no route and no noun.

pub mod field;
pub mod forwarded;
mod framing;
pub mod server;
mod wire;
