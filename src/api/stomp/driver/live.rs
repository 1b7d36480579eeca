//! What a connection knows of what happens now.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::hub::live_notes::NoteListener;
use crate::id::Tsid;
use crate::limits;
use crate::model::live::LiveNote;
use crate::model::room::Room;
use crate::model::user::Presence;

/// Which live notes a room allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoomRules {
    pub(super) typing: bool,
    pub(super) presence: bool,
}

/// What a connection knows of what happens now.
pub(super) struct Live {
    notes: mpsc::Receiver<LiveNote>,
    pub(super) sender: mpsc::Sender<LiveNote>,
    pub(super) listening: HashMap<Tsid, NoteListener>,
    /// Whether the user looks at a room, as it said.
    pub(super) said: HashMap<Tsid, bool>,
    /// Rooms that it looks at, as others see it.
    pub(super) shown: HashSet<Tsid>,
    pub(super) rules: HashMap<Tsid, (RoomRules, Instant)>,
    /// Who types, by room and user: until when, unless it goes on.
    pub(super) typing: HashMap<(Tsid, Tsid), Instant>,
    /// Rooms in which someone came lately, who is shown that the user is there.
    pub(super) asked: HashSet<Tsid>,
    /// When that is shown.
    pub(super) answer_at: Option<Instant>,
    /// What others saw last of the user.
    pub(super) status: Option<Presence>,
    /// Users of whom nothing is shown, nor anything of the user to them. None: not read, nothing is shown.
    pub(super) blocks: Option<HashSet<Tsid>>,
    pub(super) nicknames: HashMap<Tsid, String>,
}

impl Default for Live {
    fn default() -> Live {
        let (sender, notes) = mpsc::channel(limits::LIVE_NOTES);
        Live {
            notes,
            sender,
            listening: HashMap::new(),
            said: HashMap::new(),
            shown: HashSet::new(),
            rules: HashMap::new(),
            typing: HashMap::new(),
            asked: HashSet::new(),
            answer_at: None,
            status: None,
            blocks: None,
            nicknames: HashMap::new(),
        }
    }
}

impl Live {
    /// The next note. Cancel-safe.
    pub(super) async fn note(&mut self) -> LiveNote {
        match self.notes.recv().await {
            Some(note) => note,
            None => pending().await,
        }
    }

    /// When someone who typed types no more.
    pub(super) fn typing_over(&self) -> Option<Instant> {
        self.typing.values().min().copied()
    }

    /// Remembers what a room allows. In a large room too much would happen.
    pub(super) fn note_rules(&mut self, room: &Room) -> RoomRules {
        let is_small = i64::from(room.head.members) <= limits::PARTICIPANTS_SHOWN;
        let rules =
            RoomRules { typing: is_small && room.settings.typing, presence: is_small && room.settings.presence };
        self.rules.insert(room.room_id, (rules, Instant::now()));
        rules
    }

    /// Forgets what a room allows: it has changed.
    pub(super) fn forget_rules(&mut self, room_id: Tsid) {
        self.rules.remove(&room_id);
    }

    /// Forgets a room that the user has left.
    pub(super) fn forget(&mut self, room_id: Tsid) {
        self.said.remove(&room_id);
        self.rules.remove(&room_id);
        self.typing.retain(|(of, _), _| *of != room_id);
    }
}
