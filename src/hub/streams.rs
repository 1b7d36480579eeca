//! Streams of which this process has live connections: who listens, and up to which number each stream was sent. A
//! connection joins with the number that it has; from then on it gets every further event, in order, once.
//!
//! Hints make it fast: after a commit the writer notes the number that a stream has reached, and other processes get it
//! by NOTIFY. A hint may be lost: a sweep compares all heads every two seconds.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::inbox::InboxCounts;
use crate::model::stream::{ResetReason, StreamEvent, StreamHints, StreamKey, StreamKind, StreamNews};

/// Streams with listeners here, and hints that were not sent to other processes yet.
#[derive(Default)]
pub struct Streams {
    listened: Mutex<Listened>,
    for_others: Mutex<StreamHints>,
    /// Notified when `take_for_others` has something.
    pub for_others_notify: Notify,
    /// Notified when a stream is due to be read.
    pub due_notify: Notify,
    /// The epoch as it was last read, and when.
    epoch: Mutex<Option<(Arc<str>, Instant)>>,
}

#[derive(Default)]
struct Listened {
    streams: HashMap<StreamKey, StreamState>,
    next_listener: u64,
}

struct StreamState {
    /// Every listener has the events up to this number.
    sent: i64,
    /// More than `sent` may be there.
    is_due: bool,
    listeners: Vec<(u64, mpsc::Sender<StreamNews>)>,
}

/// The news of one stream for one connection. Leaves the stream when dropped.
pub struct Listener {
    streams: Arc<Streams>,
    key: StreamKey,
    id: u64,
    /// The connection has the events up to this number.
    has: i64,
    news: mpsc::Receiver<StreamNews>,
}

impl Listener {
    /// Waits for news. None: the connection took too little, or the stream's reader gave it up; it has to resume.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<StreamNews> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As `next`, for a task that waits for several streams.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamNews>> {
        loop {
            match ready!(self.news.poll_recv(cx)) {
                Some(StreamNews::Events { mut events, counts }) => {
                    events.retain(|event| event.seq > self.has);
                    let Some(last) = events.last() else { continue };
                    self.has = last.seq;
                    return Poll::Ready(Some(StreamNews::Events { events, counts }));
                }
                Some(reset @ StreamNews::Reset { .. }) => {
                    self.has = 0;
                    return Poll::Ready(Some(reset));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listened = lock(&self.streams.listened);
        if let Some(state) = listened.streams.get_mut(&self.key) {
            state.listeners.retain(|(id, _)| *id != self.id);
            if state.listeners.is_empty() {
                listened.streams.remove(&self.key);
            }
        }
    }
}

impl Streams {
    /// Joins a stream as a connection that has its events up to `has`.
    ///
    /// # Errors
    /// The number up to which the others have it, if that is more: read on to there, and join again.
    pub fn join(self: &Arc<Streams>, key: StreamKey, has: i64) -> Result<Listener, i64> {
        let mut listened = lock(&self.listened);
        let Listened { streams, next_listener } = &mut *listened;
        // A hint may have come between the read and now, when there was no listener: the stream is read once more.
        let state = streams.entry(key).or_insert_with(|| {
            self.due_notify.notify_one();
            StreamState { sent: has, is_due: true, listeners: Vec::new() }
        });
        if state.sent > has {
            return Err(state.sent);
        }
        *next_listener += 1;
        let (sender, news) = mpsc::channel(limits::STREAM_NEWS);
        state.listeners.push((*next_listener, sender));
        Ok(Listener { streams: self.clone(), key, id: *next_listener, has, news })
    }

    /// Notes numbers that streams have reached by commits of this process, for listeners here and in other processes.
    /// Call it after the commit.
    pub fn note(&self, heads: impl IntoIterator<Item = (StreamKey, i64)>) {
        let mut hints = StreamHints::default();
        heads.into_iter().for_each(|(key, seq)| hints.add(key, seq));
        if hints.heads.is_empty() {
            return;
        }
        let mut for_others = lock(&self.for_others);
        hints.heads.iter().for_each(|(key, seq)| for_others.add(*key, *seq));
        drop(for_others);
        self.for_others_notify.notify_one();
        self.note_here(&hints);
    }

    /// Notes numbers that streams have reached, for listeners here. Returns how many streams are due because of it.
    pub fn note_here(&self, hints: &StreamHints) -> usize {
        let mut listened = lock(&self.listened);
        let (mut due, mut is_any_due) = (0, false);
        for (key, seq) in &hints.heads {
            if let Some(state) = listened.streams.get_mut(key).filter(|state| state.sent < *seq) {
                due += usize::from(!state.is_due);
                (state.is_due, is_any_due) = (true, true);
            }
        }
        if hints.hints_lost {
            listened.streams.values_mut().for_each(|state| state.is_due = true);
            is_any_due = !listened.streams.is_empty();
        }
        if is_any_due {
            self.due_notify.notify_one();
        }
        due
    }

    /// Takes the hints that were not sent to other processes yet.
    pub fn take_for_others(&self) -> StreamHints {
        std::mem::take(&mut *lock(&self.for_others))
    }

    /// Takes up to `most` streams that are due to be read, each with the number after which to read.
    pub fn take_due(&self, most: usize) -> Vec<(StreamKey, i64)> {
        let mut listened = lock(&self.listened);
        let due = listened.streams.iter_mut().filter(|(_, state)| state.is_due).take(most);
        due.map(|(key, state)| {
            state.is_due = false;
            (*key, state.sent)
        })
        .collect()
    }

    /// Marks streams as due that could not be read.
    pub fn put_back(&self, due: &[(StreamKey, i64)]) {
        let mut listened = lock(&self.listened);
        for (key, _) in due {
            if let Some(state) = listened.streams.get_mut(key) {
                state.is_due = true;
            }
        }
    }

    /// All streams with listeners, each with the number up to which it was sent.
    pub fn listened(&self) -> Vec<(StreamKey, i64)> {
        lock(&self.listened).streams.iter().map(|(key, state)| (*key, state.sent)).collect()
    }

    /// Sends events of a stream to its listeners: those that follow the last one sent, in order. Events below it were
    /// sent before; one above the next waits for a read of the stream. A listener that has no room is dropped: it
    /// resumes. Returns how many events were handed over, counting each once for each listener, and how many listeners
    /// were dropped.
    pub fn send(&self, key: StreamKey, events: &[Arc<StreamEvent>], counts: Option<InboxCounts>) -> (usize, usize) {
        let mut listened = lock(&self.listened);
        let Some(state) = listened.streams.get_mut(&key) else { return (0, 0) };
        let next: Vec<Arc<StreamEvent>> = events.iter().skip_while(|event| event.seq <= state.sent).cloned().collect();
        let is_next = (state.sent + 1..).zip(&next).all(|(expected, event)| expected == event.seq);
        let Some(last) = next.last() else { return (0, 0) };
        if !is_next {
            state.is_due = true;
            self.due_notify.notify_one();
            return (0, 0);
        }
        state.sent = last.seq;
        let (events, before) = (next.len(), state.listeners.len());
        let is_left = state.tell(&StreamNews::Events { events: next, counts });
        let after = state.listeners.len();
        if !is_left {
            listened.streams.remove(&key);
        }
        (events * after, before - after)
    }

    /// Tells the listeners of a stream that its numbers do not go on. They go on from `head`.
    pub fn reset(&self, key: StreamKey, head: i64, reason: ResetReason, counts: Option<InboxCounts>) {
        let mut listened = lock(&self.listened);
        let Some(state) = listened.streams.get_mut(&key) else { return };
        state.sent = head;
        if !state.tell(&StreamNews::Reset { reason, head, counts }) {
            listened.streams.remove(&key);
        }
    }

    /// The epoch as it was last read, if that is not long ago.
    pub fn fresh_epoch(&self, now: Instant) -> Option<Arc<str>> {
        let known = lock(&self.epoch).clone();
        known.filter(|(_, read)| now.saturating_duration_since(*read) < limits::SWEEP_EVERY).map(|(epoch, _)| epoch)
    }

    /// The epoch as it was last read, however long ago.
    pub fn known_epoch(&self) -> Option<Arc<str>> {
        lock(&self.epoch).as_ref().map(|(epoch, _)| epoch.clone())
    }

    /// Notes the epoch that was read at `now`.
    pub fn set_epoch(&self, epoch: Arc<str>, now: Instant) {
        *lock(&self.epoch) = Some((epoch, now));
    }

    /// Ends the streams of a user here, because its tokens may be void: the connections resume, and prove themselves
    /// anew.
    pub fn end_of_user(&self, user_id: Tsid) {
        lock(&self.listened).streams.retain(|key, _| key.kind != StreamKind::User || key.id != user_id);
    }

    /// Ends the streams of all users here, as `end_of_user`.
    pub fn end_of_users(&self) {
        lock(&self.listened).streams.retain(|key, _| key.kind != StreamKind::User);
    }

    /// Ends all streams here: the connections resume, and learn that their epoch is over.
    pub fn end_all(&self) {
        lock(&self.listened).streams.clear();
    }
}

impl StreamState {
    /// Returns whether a listener is left.
    fn tell(&mut self, news: &StreamNews) -> bool {
        self.listeners.retain(|(_, sender)| match sender.try_send(news.clone()) {
            Ok(()) => true,
            // A slow client costs its own connection; one that is gone leaves by itself.
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        });
        !self.listeners.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::model::stream::EventBody;

    fn events(seqs: std::ops::RangeInclusive<i64>) -> Vec<Arc<StreamEvent>> {
        seqs.map(|seq| Arc::new(StreamEvent::new(seq, EventBody::Nothing))).collect()
    }

    /// What has arrived for it.
    fn got(listener: &mut Listener) -> Vec<i64> {
        let mut all = Vec::new();
        while let Some(Some(StreamNews::Events { events, .. })) = listener.next().now_or_never() {
            all.extend(events.iter().map(|event| event.seq));
        }
        all
    }

    /// L3: each listener gets every event after the number that it joined with, in order, whatever was sent to others
    /// before and however often events are offered.
    #[test]
    fn listeners_get_every_further_event_once_and_in_order() {
        let (streams, key) = (Arc::new(Streams::default()), StreamKey::user(1, Tsid(7)));
        let mut first = streams.join(key, 3).ok().unwrap();
        assert_eq!(streams.take_due(9), [(key, 3)], "a hint may have been missed before the first listener");
        streams.send(key, &events(2..=5), None);
        assert_eq!(streams.join(key, 4).err(), Some(5), "it has less than the others: it reads on first");
        let mut second = streams.join(key, 5).ok().unwrap();
        streams.send(key, &events(7..=8), None);
        assert_eq!(streams.take_due(9), [(key, 5)], "6 is missing: the stream is read");
        streams.send(key, &events(6..=8), None);
        streams.send(key, &events(6..=8), None);
        assert_eq!((got(&mut first), got(&mut second)), (vec![4, 5, 6, 7, 8], vec![6, 7, 8]));
        let mut ahead = streams.join(key, 10).ok().unwrap();
        streams.send(key, &events(9..=11), None);
        assert_eq!((got(&mut first), got(&mut ahead)), (vec![9, 10, 11], vec![11]), "it read further by itself");
        drop(ahead);
        drop(first);
        assert_eq!(streams.listened(), [(key, 11)]);
        drop(second);
        assert_eq!(streams.listened(), []);
    }

    /// L10: a listener that takes nothing is dropped, and the others get everything.
    #[test]
    fn listener_without_room_is_dropped_alone() {
        let (streams, key) = (Arc::new(Streams::default()), StreamKey::user(1, Tsid(7)));
        let (mut slow, mut fast) = (streams.join(key, 0).ok().unwrap(), streams.join(key, 0).ok().unwrap());
        let most = i64::try_from(limits::STREAM_NEWS).unwrap();
        let mut seen = Vec::new();
        for seq in 1..=most + 5 {
            streams.send(key, &events(seq..=seq), None);
            seen.extend(got(&mut fast));
        }
        assert_eq!(seen, (1..=most + 5).collect::<Vec<_>>());
        assert_eq!(got(&mut slow), (1..=most).collect::<Vec<_>>());
        assert_eq!(slow.next().now_or_never(), Some(None), "it has to resume");
    }
}
