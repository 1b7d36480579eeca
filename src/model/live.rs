//! Live notes: what happens in a room and is stored nowhere. They are lost if no connection listens, or if too many
//! come at once.

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
    Active(bool),
    /// The user has read up to the message with this number in the room's stream.
    Read(i64),
}

impl LiveNote {
    /// The note in a notification to other processes: `{kind}{room}:{user}:{value}`.
    pub fn encode(&self) -> String {
        let (kind, value) = match self.what {
            LiveWhat::Typing(on) => ('t', i64::from(on)),
            LiveWhat::Active(on) => ('a', i64::from(on)),
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
            'a' => LiveWhat::Active(value != 0),
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
        for what in [LiveWhat::Typing(true), LiveWhat::Active(false), LiveWhat::Read(7)] {
            let note = LiveNote { room_id: Tsid(5), user_id: Tsid(6), what };
            assert_eq!(LiveNote::parse(&note.encode()), Some(note));
        }
        for wrong in ["", "t", "t1:2", "x1:2:3", "t1:2:x", "é"] {
            assert_eq!(LiveNote::parse(wrong), None, "{wrong}");
        }
    }
}
