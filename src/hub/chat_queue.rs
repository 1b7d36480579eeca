//! Queues between the callers that write into rooms and the writers that write in groups (`flow::room::send`): one for
//! each writer, so that a room's messages keep their order.

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;
use crate::shutdown::Shutdown;
use crate::store::chat_message::{NewChatMessage, Sent};

/// The callers' ends of the queues.
pub struct ChatQueue(Vec<mpsc::Sender<ChatRequest>>);

/// A message that waits to be written, and the caller that waits for the answer.
pub struct ChatRequest {
    pub message: NewChatMessage,
    answer: oneshot::Sender<Result<Option<Sent>>>,
}

impl ChatRequest {
    /// Answers the caller. An answer to a caller that went away is dropped: it sends again with its tempId.
    pub fn answer(self, answer: Result<Option<Sent>>) {
        let _gone = self.answer.send(answer);
    }
}

/// A writer's end of its queue.
pub struct ChatRequests(mpsc::Receiver<ChatRequest>);

impl ChatQueue {
    /// Makes empty queues for this many writers, at most `limits::CHAT_QUEUE` requests each, and returns both ends.
    pub fn new(writers: u16) -> (ChatQueue, Vec<ChatRequests>) {
        let queues = (0..writers.max(1)).map(|_| mpsc::channel(limits::CHAT_QUEUE));
        let (senders, receivers): (Vec<_>, Vec<_>) = queues.unzip();
        (ChatQueue(senders), receivers.into_iter().map(ChatRequests).collect())
    }

    /// Queues a message and waits until it is durable. None: it was not written, because it is there already or its
    /// sender may not write there.
    ///
    /// # Errors
    /// `Error::Busy` if the queue is full; nothing was written. `Error::Unavailable` if the writer stopped before it
    /// answered; the message may have been written. Otherwise the error with which the writer answered.
    pub async fn write(&self, message: NewChatMessage) -> Result<Option<Sent>> {
        let (answer, answered) = oneshot::channel();
        let queue = self.of(message.room_id);
        let sent = queue.map(|queue| queue.try_send(ChatRequest { message, answer }));
        if !matches!(sent, Some(Ok(()))) {
            return Err(Error::Busy("too many messages wait to be written"));
        }
        answered.await.map_err(|_| Error::Unavailable("the writer stopped before it answered".into()))?
    }

    fn of(&self, room_id: Tsid) -> Option<&mpsc::Sender<ChatRequest>> {
        // The low bits of an id count ids of one millisecond: mixed, so that rooms spread over the writers.
        let mixed = room_id.0.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.0.get(usize::try_from(mixed).unwrap_or(0) % self.0.len().max(1))
    }
}

impl ChatRequests {
    /// Waits for requests and takes up to `limits::CHAT_GROUP`, oldest first. When the process stops, the queue takes
    /// no further request, and the groups that it still holds are returned; None once it is empty.
    pub async fn next_group(&mut self, shutdown: &Shutdown) -> Option<Vec<ChatRequest>> {
        let mut group = Vec::new();
        tokio::select! {
            // Requests that already wait are taken before the signal to stop is looked at.
            biased;
            taken = self.0.recv_many(&mut group, limits::CHAT_GROUP) => return (taken > 0).then_some(group),
            () = shutdown.stopping() => self.0.close(),
        }
        let taken = self.0.recv_many(&mut group, limits::CHAT_GROUP).await;
        (taken > 0).then_some(group)
    }
}
