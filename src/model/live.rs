//! Live notes: what happens in a room and is stored nowhere. They are lost if no connection listens, or if too many
//! come at once.

use super::user::{PRESENCES, Presence};
use crate::id::Tsid;

/// Something that happens in a room now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveNote {
    pub room_id: Tsid,
    pub user_id: Tsid,
    pub what: LiveWhat,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveWhat {
    Typing(bool),
    /// The user looks at the room, or no longer.
    Active {
        on: bool,
        status: Presence,
        /// The user has just come: others who are there show themselves to it.
        asks: bool,
    },
    /// The user has no live connection any more.
    Offline,
    /// The user has read up to the message with this number in the room's stream.
    Read(i64),
}

impl LiveNote {
    /// The note in a notification to other processes: `{kind}{room}:{user}:{value}`.
    pub fn encode(&self) -> String {
        let (kind, value) = match self.what {
            LiveWhat::Typing(on) => ('t', i64::from(on)),
            LiveWhat::Active { on, status, asks } => {
                let n = PRESENCES.iter().position(|one| *one == status).unwrap_or_default();
                ('a', i64::from(on) + 2 * i64::from(asks) + 4 * i64::try_from(n).unwrap_or_default())
            }
            LiveWhat::Offline => ('o', 0),
            LiveWhat::Read(seq) => ('r', seq),
        };
        format!("{kind}{}:{}:{value}", self.room_id.0, self.user_id.0)
    }

    /// Reads a note. None for a text that is none, or of a newer program.
    pub fn parse(text: &str) -> Option<LiveNote> {
        let mut parts = text.get(1..)?.splitn(3, ':').map(str::parse::<i64>);
        let (room_id, user_id, value) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        let what = match text.chars().next()? {
            't' => LiveWhat::Typing(value != 0),
            'a' => {
                let status = *PRESENCES.get(usize::try_from(value / 4).ok()?)?;
                LiveWhat::Active { on: value & 1 == 1, asks: value & 2 == 2, status }
            }
            'o' => LiveWhat::Offline,
            'r' => LiveWhat::Read(value),
            _ => return None,
        };
        Some(LiveNote { room_id: Tsid(room_id), user_id: Tsid(user_id), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note is read as it was written, and nothing else is one.
    #[test]
    fn note_is_read_as_it_is_written() {
        let active = [(true, true, Presence::Online), (false, false, Presence::Busy)];
        let active = active.map(|(on, asks, status)| LiveWhat::Active { on, status, asks });
        for what in [LiveWhat::Typing(true), active[0], active[1], LiveWhat::Offline, LiveWhat::Read(7)] {
            let note = LiveNote { room_id: Tsid(5), user_id: Tsid(6), what };
            assert_eq!(LiveNote::parse(&note.encode()), Some(note));
        }
        for wrong in ["", "t", "t1:2", "x1:2:3", "t1:2:x", "a1:2:16", "a1:2:-4", "é"] {
            assert_eq!(LiveNote::parse(wrong), None, "{wrong}");
        }
    }
}
