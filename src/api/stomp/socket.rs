//! The WebSocket of a session: plain or SockJS framing, and the close.

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use tokio::time::timeout;

use crate::http::sockjs;
use crate::limits;

/// How frames of STOMP lie in WebSocket messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Plain,
    SockJs,
}

/// What a client sent.
pub enum Received {
    /// Bytes of STOMP.
    Bytes(Vec<u8>),
    /// Nothing for STOMP: a ping, or an empty message.
    Nothing,
    /// The connection has ended.
    End,
    /// The message is no frame of SockJS.
    Broken,
    /// The message has more than `limits::SOCKET_MESSAGE_BYTES`.
    TooLarge,
}

/// A WebSocket with its framing.
pub struct Socket {
    socket: WebSocket,
    framing: Framing,
}

impl Socket {
    /// A connection that was upgraded.
    pub fn new(socket: WebSocket, framing: Framing) -> Socket {
        Socket { socket, framing }
    }

    /// Greets a client of SockJS. False if it has gone.
    pub async fn greet(&mut self) -> bool {
        match self.framing {
            Framing::Plain => true,
            Framing::SockJs => self.write(sockjs::OPEN.to_owned()).await,
        }
    }

    /// Waits for a message. Cancel-safe.
    pub async fn receive(&mut self) -> Received {
        let Some(Ok(message)) = self.socket.recv().await else { return Received::End };
        match (message, self.framing) {
            (Message::Text(text), _) if text.len() > limits::SOCKET_MESSAGE_BYTES => Received::TooLarge,
            (Message::Binary(bytes), _) if bytes.len() > limits::SOCKET_MESSAGE_BYTES => Received::TooLarge,
            (Message::Text(text), Framing::Plain) => Received::Bytes(text.as_bytes().to_vec()),
            (Message::Binary(bytes), Framing::Plain) => Received::Bytes(bytes.to_vec()),
            (Message::Text(text), Framing::SockJs) => match sockjs::read(text.as_str()) {
                Ok(messages) if messages.is_empty() => Received::Nothing,
                Ok(messages) => Received::Bytes(messages.concat().into_bytes()),
                Err(sockjs::Broken) => Received::Broken,
            },
            (Message::Binary(_), Framing::SockJs) => Received::Broken,
            (Message::Ping(_) | Message::Pong(_), _) => Received::Nothing,
            (Message::Close(_), _) => Received::End,
        }
    }

    /// Sends a text: one frame or several. False if the client does not take it in time, or has gone.
    pub async fn send(&mut self, text: String) -> bool {
        let text = match self.framing {
            Framing::Plain => text,
            Framing::SockJs => sockjs::message(&text),
        };
        self.write(text).await
    }

    async fn write(&mut self, text: String) -> bool {
        let sent = timeout(limits::SOCKET_WRITE_TIMEOUT, self.socket.send(Message::Text(text.into()))).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Keeps a SockJS connection alive, whose clients expect it.
    pub async fn heart_beat(&mut self) -> bool {
        match self.framing {
            Framing::Plain => true,
            Framing::SockJs => self.write(sockjs::HEART_BEAT.to_owned()).await,
        }
    }

    /// Closes the connection, and waits for the client's close.
    pub async fn close(mut self, code: u16, reason: &str) {
        if self.framing == Framing::SockJs && !self.write(sockjs::close(code, reason)).await {
            return;
        }
        let frame = CloseFrame { code, reason: reason.to_owned().into() };
        let close = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
            while let Some(Ok(_)) = self.socket.recv().await {}
        };
        let _best_effort = timeout(limits::LINGER_STOPPING, close).await;
    }
}
