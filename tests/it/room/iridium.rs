//! crates.io's iridium-stomp talks in a room. It speaks over TCP alone, so a pipe stands between it and the WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use iridium_stomp::{AckMode, ConnectOptions, Connection, Frame, ReceivedFrame, Subscription};
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::room::send;
use crate::room::stomp::two;
use crate::support::app::App;
use crate::support::hubs::start_live;
use crate::support::wait::PATIENCE;

/// Carries the bytes of TCP connections in messages of the hub's WebSocket, few in each, so that frames are cut
/// anywhere. Returns the address for the client.
async fn pipe(hub: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Shutdown::new();
    tasks.clone().spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let hub_side = TcpStream::connect(hub).await.unwrap();
            let (socket, _) = client_async(format!("ws://{hub}/ws"), hub_side).await.unwrap();
            let (mut to_hub, mut from_hub) = socket.split();
            let (mut from_client, mut to_client) = client.into_split();
            tasks.spawn(async move {
                let mut bytes = [0; 7];
                while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
                    let _gone = to_hub.send(Message::binary(bytes[..n].to_vec())).await;
                }
                let _gone = to_hub.close().await;
            });
            tasks.spawn(async move {
                while let Some(Ok(Message::Text(text))) = from_hub.next().await {
                    let _gone = to_client.write_all(text.as_bytes()).await;
                }
            });
        }
    });
    address
}

async fn connect(address: SocketAddr, token: &str) -> Connection {
    let options = ConnectOptions::new().accept_version("1.0,1.1,1.2").connect_timeout(PATIENCE);
    let address = address.to_string();
    Connection::connect_with_options(&address, "", token, "10000,10000", options).await.unwrap()
}

async fn next(events: &mut Subscription) -> (Frame, Value) {
    let frame = timeout(PATIENCE, events.next()).await.expect("a frame").expect("the subscription goes on");
    let body = serde_json::from_slice(&frame.body).unwrap();
    (frame, body)
}

/// S4-43, S4-161: a client that was written against other brokers negotiates the version, gets a RECEIPT for its
/// message after its commit, acknowledges each message, finds an ERROR with its reason, and disconnects with a RECEIPT.
#[tokio::test]
async fn iridium_stomp_talks_through_a_pipe() {
    let app = App::new().await;
    start_live(&app.hub);
    let address = pipe(app.address).await;
    let (room, one, two) = two(&app).await;
    let (writer, reader) = (connect(address, &one).await, connect(address, &two).await);
    let exchange = format!("/exchange/chat.exchange/chat.channel.{room}.message");
    let mut events = reader.subscribe(&exchange, AckMode::ClientIndividual).await.unwrap();
    // Comes after the subscription.
    let typing = Frame::new("SEND").header("destination", "/app/typing").set_body("{}");
    reader.send_frame_confirmed(typing, PATIENCE).await.unwrap();

    let body = json!({"roomId": room, "tempId": "a: 1", "content": "안녕: \\o/\n"}).to_string();
    let message = Frame::new("SEND").header("destination", "/app/chat").set_body(body);
    writer.send_frame_confirmed(message, PATIENCE).await.unwrap();
    assert_eq!(app.count("select count(*) from chat_messages").await, 1);
    let (frame, event) = next(&mut events).await;
    assert_eq!((frame.get_header("x-seq"), frame.get_header("x-prev")), (Some("2"), Some("1")));
    assert_eq!(event["data"]["content"], "안녕: \\o/");
    events.ack_frame(&frame).await.unwrap();
    send(&app, "u-1", &room, "next").await.expect(201);
    let (frame, event) = next(&mut events).await;
    assert_eq!((frame.get_header("x-seq"), &event["data"]["content"]), (Some("3"), &json!("next")));
    events.ack_frame(&frame).await.unwrap();
    events.unsubscribe().await.unwrap();

    let never = app.hub.next_id();
    let refused = connect(address, &two).await;
    let _subscription = refused.subscribe(&format!("/topic/rooms/{never}"), AckMode::Auto).await.unwrap();
    let error = timeout(PATIENCE, refused.next_frame()).await.expect("a frame");
    let Some(ReceivedFrame::Error(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.message, "not_found");
    reader.close().await.unwrap();
    writer.close().await.unwrap();
    app.done().await;
}
