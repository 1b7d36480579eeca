//! Live notes of rooms that connections here look at, and those that wait for other processes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc};

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
use crate::model::live::LiveNote;

/// Who listens to the notes of which rooms.
#[derive(Default)]
pub struct LiveNotes {
    listened: Mutex<Listened>,
    for_others: Mutex<Vec<LiveNote>>,
    /// Notified when `take_for_others` has something.
    pub for_others_notify: Notify,
}

#[derive(Default)]
struct Listened {
    rooms: HashMap<Tsid, Vec<(u64, mpsc::Sender<LiveNote>)>>,
    next: u64,
}

/// Listens to the notes of one room, until it is dropped.
pub struct NoteListener {
    notes: Arc<LiveNotes>,
    room_id: Tsid,
    id: u64,
}

impl Drop for NoteListener {
    fn drop(&mut self) {
        let mut listened = lock(&self.notes.listened);
        if let Some(listeners) = listened.rooms.get_mut(&self.room_id) {
            listeners.retain(|(id, _)| *id != self.id);
            if listeners.is_empty() {
                listened.rooms.remove(&self.room_id);
            }
        }
    }
}

impl LiveNotes {
    /// Sends the notes of a room to `to`; what it has no room for is dropped.
    pub fn listen(self: &Arc<LiveNotes>, room_id: Tsid, to: mpsc::Sender<LiveNote>) -> NoteListener {
        let mut listened = lock(&self.listened);
        listened.next += 1;
        let id = listened.next;
        listened.rooms.entry(room_id).or_default().push((id, to));
        NoteListener { notes: self.clone(), room_id, id }
    }

    /// Notes something, for listeners here and in other processes.
    pub fn note(&self, note: LiveNote) {
        self.note_here(note);
        let mut for_others = lock(&self.for_others);
        if for_others.len() < limits::LIVE_NOTES {
            for_others.push(note);
            drop(for_others);
            self.for_others_notify.notify_one();
        }
    }

    /// Notes something, for listeners here.
    pub fn note_here(&self, note: LiveNote) {
        let listened = lock(&self.listened);
        for (_, listener) in listened.rooms.get(&note.room_id).into_iter().flatten() {
            let _full = listener.try_send(note);
        }
    }

    /// Takes the notes that were not sent to other processes yet.
    pub fn take_for_others(&self) -> Vec<LiveNote> {
        std::mem::take(&mut *lock(&self.for_others))
    }
}
