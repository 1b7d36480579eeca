//! Messages that callers of this process watch. One loop reads the events of all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::event::EventPayload;

/// The events of a message that were read together, and whether the message has ended with them.
#[derive(Debug, Clone)]
pub struct MessageNews {
    pub events: Arc<Vec<EventPayload>>,
    pub is_over: bool,
}

/// The watched messages, by shard and id.
#[derive(Default)]
pub struct Watches(Mutex<Watched>);

/// Watches of one message, by their ids.
type Watchers = Vec<(u64, mpsc::Sender<MessageNews>)>;

#[derive(Default)]
struct Watched {
    messages: HashMap<(i16, Tsid), Watchers>,
    next: u64,
}

/// One caller's watch. The message is no longer watched by it when this is dropped.
pub struct Watch {
    watches: Arc<Watches>,
    message: (i16, Tsid),
    id: u64,
    news: mpsc::Receiver<MessageNews>,
}

impl Watch {
    /// Waits for the next events, which may repeat earlier ones. None: the caller took too little. Cancel-safe.
    pub async fn next(&mut self) -> Option<MessageNews> {
        self.news.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&self.watches.0);
        if let Some(watchers) = watched.messages.get_mut(&self.message) {
            watchers.retain(|(id, _)| *id != self.id);
            if watchers.is_empty() {
                watched.messages.remove(&self.message);
            }
        }
    }
}

impl Watches {
    /// Watches a message. None if this process watches as many as it may.
    pub fn watch(self: &Arc<Watches>, message: (i16, Tsid)) -> Option<Watch> {
        let mut watched = lock(&self.0);
        if watched.messages.len() >= limits::WATCHED_MESSAGES && !watched.messages.contains_key(&message) {
            return None;
        }
        watched.next += 1;
        let (id, (sender, news)) = (watched.next, mpsc::channel(limits::STREAM_NEWS));
        watched.messages.entry(message).or_default().push((id, sender));
        Some(Watch { watches: self.clone(), message, id, news })
    }

    /// All watched messages.
    pub fn all(&self) -> Vec<(i16, Tsid)> {
        lock(&self.0).messages.keys().copied().collect()
    }

    /// Passes news to those who watch the message. A caller that has no room is dropped.
    pub fn send(&self, message: (i16, Tsid), news: &MessageNews) {
        if let Some(watchers) = lock(&self.0).messages.get_mut(&message) {
            watchers.retain(|(_, sender)| sender.try_send(news.clone()).is_ok());
        }
    }
}
