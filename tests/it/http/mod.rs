//! HTTP itself: connections and streams.

mod connection;
mod stream;
