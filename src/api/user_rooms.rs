//! The rooms of a user, as a live connection has them: what is unread in each, and its last message, whenever that
//! changes. Changes that come together are read together.

use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::chat_message::{UNTIL_TEXT, text_of};
use crate::error::Result;
use crate::flow;
use crate::hub::Hub;
use crate::hub::live_notes::NoteListener;
use crate::hub::streams::Listener;
use crate::id::Tsid;
use crate::limits;
use crate::model::live::{LiveNote, LiveWhat};
use crate::model::stream::StreamKey;
use crate::store::room::UnreadRoom;

/// The rooms of a user.
pub struct UserRooms {
    hub: Hub,
    user: (i16, Tsid),
    known: HashMap<Tsid, UnreadRoom>,
    listeners: HashMap<Tsid, (Listener, NoteListener)>,
    own: Listener,
    notes: mpsc::Receiver<LiveNote>,
    note_sender: mpsc::Sender<LiveNote>,
    is_due: bool,
    /// The next read is not before.
    not_before: Instant,
    /// Notes may be lost: the next read is not after.
    at_last: Instant,
}

/// A room that has changed.
pub struct ChangedRoom {
    pub room_id: Tsid,
    pub unread: i64,
    /// The beginning of the last message's text; empty if there is none.
    pub last_message: String,
    /// The user is no longer in it.
    pub is_gone: bool,
}

impl UserRooms {
    /// Listens to a user's rooms, at most `limits::ROOMS_LIVE` of them. `own`: the user's stream.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails.
    pub async fn open(hub: &Hub, user: (i16, Tsid), own: Listener) -> Result<UserRooms> {
        let (note_sender, notes) = mpsc::channel(limits::LIVE_NOTES);
        let now = Instant::now();
        let mut rooms = UserRooms {
            hub: hub.clone(),
            user,
            known: HashMap::new(),
            listeners: HashMap::new(),
            own,
            notes,
            note_sender,
            is_due: false,
            not_before: now,
            at_last: now + limits::UNREAD_AGAIN,
        };
        rooms.refresh().await?;
        Ok(rooms)
    }

    /// Goes on after `wait` was false. `own`: the user's stream, opened anew.
    pub fn join_again(&mut self, own: Listener) {
        self.listeners.clear();
        (self.own, self.is_due) = (own, true);
    }

    /// What is unread in each room.
    pub fn unread(&self) -> impl Iterator<Item = (Tsid, i64)> {
        self.known.values().map(|room| (room.room_id, room.unread))
    }

    /// Reads the rooms anew, listens to those that are new, and returns what has changed.
    async fn refresh(&mut self) -> Result<Vec<UnreadRoom>> {
        // What changes from here on is read the next time.
        (self.is_due, self.not_before) = (false, Instant::now() + limits::ROOMS_AGAIN);
        self.at_last = Instant::now() + limits::UNREAD_AGAIN;
        let rooms = flow::room::history::unread(&self.hub, self.user).await?;
        let mut now: HashMap<Tsid, UnreadRoom> = rooms.into_iter().map(|room| (room.room_id, room)).collect();
        let changed: Vec<UnreadRoom> = now
            .values()
            .filter(|room| {
                let known = self.known.get(&room.room_id);
                known.is_none_or(|known| (known.unread, known.last_seq) != (room.unread, room.last_seq))
            })
            .copied()
            .collect();
        // A room that is gone has the number -1 for its last message from here on.
        let is_gone = |room: &&UnreadRoom| !now.contains_key(&room.room_id);
        let gone: Vec<UnreadRoom> = self.known.values().filter(is_gone).copied().collect();
        let gone = gone.into_iter().map(|room| UnreadRoom { unread: 0, last_seq: -1, ..room });
        let changed = changed.into_iter().chain(gone).collect();
        std::mem::swap(&mut self.known, &mut now);
        self.listeners.retain(|room_id, _| self.known.contains_key(room_id));
        let missing: Vec<Tsid> =
            self.known.keys().filter(|room_id| !self.listeners.contains_key(room_id)).copied().collect();
        for room_id in missing {
            let key = StreamKey::room(self.user.0, room_id);
            let listener = flow::stream::open_room(&self.hub, key, None).await?.listener;
            let notes = self.hub.live_notes.listen(room_id, self.note_sender.clone());
            self.listeners.insert(room_id, (listener, notes));
            // A message may have come between the read and now.
            self.is_due = true;
        }
        Ok(changed)
    }

    /// Waits until the rooms have to be read anew. False: a stream was given up, the client has to come back.
    /// Cancel-safe.
    pub async fn wait(&mut self) -> bool {
        let UserRooms { listeners, own, notes, user, is_due, not_before, at_last, .. } = self;
        loop {
            let rooms = poll_fn(|cx| {
                for (listener, _) in listeners.values_mut() {
                    if let Poll::Ready(news) = listener.poll_next(cx) {
                        return Poll::Ready(news.is_some());
                    }
                }
                Poll::Pending
            });
            tokio::select! {
                goes_on = rooms => match goes_on {
                    true => *is_due = true,
                    false => return false,
                },
                news = own.next() => match news {
                    Some(_) => *is_due = true,
                    None => return false,
                },
                Some(note) = notes.recv() => {
                    *is_due |= note.user_id == user.1 && matches!(note.what, LiveWhat::Read(_));
                }
                () = sleep_until(*not_before), if *is_due => return true,
                () = sleep_until(*at_last) => return true,
            }
        }
    }

    /// Reads what has changed. Call it after `wait`.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails; what has changed may be lost: give the connection up.
    pub async fn changes(&mut self) -> Result<Vec<ChangedRoom>> {
        let changed = self.refresh().await?;
        let newest = changed.iter().filter(|room| room.last_seq > 0);
        let keys: Vec<(i16, Tsid, i64)> = newest.map(|room| (self.user.0, room.room_id, room.last_seq)).collect();
        let lasts = flow::room::history::lasts(&self.hub, &keys).await?;
        let changed = changed.into_iter().map(|room| ChangedRoom {
            room_id: room.room_id,
            unread: room.unread,
            last_message: lasts
                .get(&room.room_id)
                .filter(|last| last.no > room.from_no)
                .map(|last| text_of(last, UNTIL_TEXT))
                .unwrap_or_default(),
            is_gone: room.last_seq < 0,
        });
        Ok(changed.collect())
    }
}
