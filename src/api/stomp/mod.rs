//! STOMP over WebSocket: users talk in rooms and get what happens there, live. `handshake` opens connections, `socket`
//! has one with its framing, `driver` joins a session with the flows, `body` reads what clients send, and `frame`
//! writes what happens.

mod body;
mod codec;
mod destination;
mod driver;
mod frame;
mod handshake;
mod session;
mod socket;

use axum::Router;
use axum::routing::get;

use crate::hub::Hub;

/// Adds the paths of WebSockets, and of SockJS below them. `docs/live-protocol.md` describes them; OpenAPI has no words
/// for them.
pub fn with_sockets(router: Router<Hub>) -> Router<Hub> {
    let mut router = router;
    for at in ["/ws", "/ws/chat"] {
        router = router
            .route(at, get(handshake::plain))
            .route(&format!("{at}/websocket"), get(handshake::plain))
            .route(&format!("{at}/info"), get(handshake::info))
            .route(&format!("{at}/{{server}}/{{session}}/{{transport}}"), get(handshake::sockjs));
    }
    router
}
