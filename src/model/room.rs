//! Rooms: where users of one partner talk. Who may do what in a room is decided here and nowhere else.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::json::TextRule;
use crate::id::Tsid;

/// Characters of a room's title.
pub const TITLE_CHARS: usize = 100;
/// The reading rule of a room's title.
pub const TITLE: TextRule = TextRule::line(TITLE_CHARS);
/// Fewest, most and usual members of a room.
pub const MEMBERS: std::ops::RangeInclusive<i64> = 2..=5_000;
pub const MEMBERS_DEFAULT: i32 = 500;
/// Most seconds between two messages of a member in slow mode.
pub const SLOW_MODE_MOST_S: i64 = 3_600;
/// Bytes of a room's metadata.
pub const METADATA_BYTES: usize = 2_048;

/// Declares an enumeration with its stable words in the database and the API.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $all:ident: $($(#[$case_doc:meta])* $case:ident = $word:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$case_doc])* $case),+ }

        /// Every one of them, in the database's order.
        pub const $all: [$name; [$($word),+].len()] = [$($name::$case),+];

        impl $name {
            /// The stable word in the database and the API.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$case => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<$name, ()> {
                $all.into_iter().find(|word| word.as_str() == text).ok_or(())
            }
        }
    };
}

words! {
    /// The kind of a room.
    RoomKind, ROOM_KINDS:
    /// The one room of two users.
    Individual = "INDIVIDUAL",
    Group = "GROUP"
}

words! {
    /// Who finds a room.
    Visibility, VISIBILITIES:
    /// Every user of the partner may find and enter it.
    Public = "PUBLIC",
    /// Only those who were invited.
    Private = "PRIVATE"
}

words! {
    /// The role of a member, the most powerful first.
    MemberRole, MEMBER_ROLES: Owner = "OWNER", Admin = "ADMIN", Member = "MEMBER"
}

words! {
    /// Which messages a member is notified of.
    Notify, NOTIFIES: All = "ALL", Mentions = "MENTIONS", Nothing = "NONE"
}

words! {
    /// Who may mention all members at once.
    MentionAll, MENTION_ALLS: Admin = "ADMIN", Member = "MEMBER", Nobody = "NOBODY"
}

words! {
    /// Who may enter a public room by itself.
    JoinPolicy, JOIN_POLICIES: Open = "OPEN", Invite = "INVITE"
}

/// A room.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    pub shard: i16,
    pub room_id: Tsid,
    pub partner_id: Tsid,
    pub kind: RoomKind,
    pub visibility: Visibility,
    pub title: Option<String>,
    pub settings: RoomSettings,
    pub metadata: Map<String, Value>,
    pub retention_days: Option<i16>,
    pub encrypted: bool,
    pub created_by: Tsid,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub closed_at: Option<DateTime<Utc>>,
    pub head: RoomHead,
}

/// The head of a room's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomHead {
    /// The number of the last event.
    pub seq: i64,
    /// The number of messages.
    pub no: i64,
    /// The number of the last message; 0: there is none.
    pub last_seq: i64,
    /// The id of the last message, or the room's while there is none. Its time is that of the last activity.
    pub last_id: Tsid,
    pub members: i32,
    pub most_members: i32,
}

/// What the owner and admins of a room decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomSettings {
    /// Absent members are notified.
    pub alarm: bool,
    pub typing: bool,
    /// Members see who has read a message.
    pub receipts: bool,
    pub presence: bool,
    /// Least seconds between two messages of a member; 0: none.
    pub slow_mode_s: i32,
    /// MEMBER or ADMIN: who may write.
    pub send_role: MemberRole,
    pub mention_all: MentionAll,
    /// A new member sees what was written before.
    pub history_for_new: bool,
    pub join_policy: JoinPolicy,
}

/// Changes to the settings of a room. None leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SettingsChange {
    pub alarm: Option<bool>,
    pub typing: Option<bool>,
    pub receipts: Option<bool>,
    pub presence: Option<bool>,
    pub slow_mode_s: Option<i32>,
    pub send_role: Option<MemberRole>,
    pub mention_all: Option<MentionAll>,
    pub history_for_new: Option<bool>,
    pub join_policy: Option<JoinPolicy>,
}

impl SettingsChange {
    /// The settings with these changes.
    pub fn apply(self, to: RoomSettings) -> RoomSettings {
        RoomSettings {
            alarm: self.alarm.unwrap_or(to.alarm),
            typing: self.typing.unwrap_or(to.typing),
            receipts: self.receipts.unwrap_or(to.receipts),
            presence: self.presence.unwrap_or(to.presence),
            slow_mode_s: self.slow_mode_s.unwrap_or(to.slow_mode_s),
            send_role: self.send_role.unwrap_or(to.send_role),
            mention_all: self.mention_all.unwrap_or(to.mention_all),
            history_for_new: self.history_for_new.unwrap_or(to.history_for_new),
            join_policy: self.join_policy.unwrap_or(to.join_policy),
        }
    }
}

impl Default for RoomSettings {
    fn default() -> RoomSettings {
        RoomSettings {
            alarm: true,
            typing: true,
            receipts: true,
            presence: true,
            slow_mode_s: 0,
            send_role: MemberRole::Member,
            mention_all: MentionAll::Admin,
            history_for_new: false,
            join_policy: JoinPolicy::Open,
        }
    }
}

impl RoomSettings {
    /// The settings as the database and the API have them.
    pub fn to_json(self) -> Value {
        json!({
            "alarm": self.alarm, "typing": self.typing, "receipts": self.receipts, "presence": self.presence,
            "slowModeSeconds": self.slow_mode_s, "sendRole": self.send_role.as_str(),
            "mentionAll": self.mention_all.as_str(), "historyForNew": self.history_for_new,
            "joinPolicy": self.join_policy.as_str(),
        })
    }

    /// Whether only owners and admins may write.
    pub fn admins_write(self) -> bool {
        self.send_role != MemberRole::Member
    }

    /// The settings from the database. What is missing or not understood is as by default.
    pub fn from_json(value: &Value) -> RoomSettings {
        let default = RoomSettings::default();
        let flag = |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
        let word = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        RoomSettings {
            alarm: flag("alarm", default.alarm),
            typing: flag("typing", default.typing),
            receipts: flag("receipts", default.receipts),
            presence: flag("presence", default.presence),
            slow_mode_s: value
                .get("slowModeSeconds")
                .and_then(Value::as_i64)
                .and_then(|s| i32::try_from(s).ok())
                .unwrap_or(default.slow_mode_s),
            send_role: word("sendRole").parse().unwrap_or(default.send_role),
            mention_all: word("mentionAll").parse().unwrap_or(default.mention_all),
            history_for_new: flag("historyForNew", default.history_for_new),
            join_policy: word("joinPolicy").parse().unwrap_or(default.join_policy),
        }
    }
}

/// A user in a room, or one that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub room_id: Tsid,
    pub user_id: Tsid,
    pub role: MemberRole,
    pub joined_at: DateTime<Utc>,
    /// Sees the messages whose number is above.
    pub from_no: i64,
    /// Has read, and was handed, the messages up to this number.
    pub read_no: i64,
    pub delivered_no: i64,
    pub read_at: Option<DateTime<Utc>>,
    pub left_at: Option<DateTime<Utc>>,
    /// The number of the event with which it left.
    pub left_seq: Option<i64>,
    pub banned_at: Option<DateTime<Utc>>,
    pub notify: Notify,
    pub muted_until: Option<DateTime<Utc>>,
    pub silenced_until: Option<DateTime<Utc>>,
}

impl Member {
    /// Whether it is in the room now.
    pub fn is_in(&self) -> bool {
        self.left_at.is_none()
    }

    /// How many messages it has not read in a room with this head.
    pub fn unread(&self, head: &RoomHead) -> i64 {
        (head.no - self.read_no.max(self.from_no)).max(0)
    }
}

/// What a member wants to do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Read, write, mark as read, leave; edit and delete one's own messages.
    TakePart,
    DeleteOthersMessage,
    Invite,
    /// Change title, settings, metadata.
    Change,
    Silence,
    /// Remove or ban a member with this role.
    Remove(MemberRole),
    /// Give roles, hand over.
    SetRole,
    Close,
    /// Change how long messages are kept.
    SetRetention,
}

/// Every deed, for tests that walk them.
pub const DEEDS: [Deed; 11] = [
    Deed::TakePart,
    Deed::DeleteOthersMessage,
    Deed::Invite,
    Deed::Change,
    Deed::Silence,
    Deed::Remove(MemberRole::Owner),
    Deed::Remove(MemberRole::Admin),
    Deed::Remove(MemberRole::Member),
    Deed::SetRole,
    Deed::Close,
    Deed::SetRetention,
];

/// Whether a member with this role may do it in a room of this kind and visibility.
pub fn may(role: MemberRole, kind: RoomKind, visibility: Visibility, deed: Deed) -> bool {
    use MemberRole::{Admin, Member, Owner};
    match (kind, deed) {
        (_, Deed::TakePart) => true,
        // The room of two has no one above the other, and no third.
        (RoomKind::Individual, _) => false,
        (RoomKind::Group, Deed::Invite) => role <= Admin || visibility == Visibility::Public,
        (RoomKind::Group, Deed::DeleteOthersMessage | Deed::Change | Deed::Silence | Deed::Remove(Member)) => {
            role <= Admin
        }
        (RoomKind::Group, Deed::Remove(Admin) | Deed::SetRole | Deed::Close | Deed::SetRetention) => role == Owner,
        // An owner hands over first.
        (RoomKind::Group, Deed::Remove(Owner)) => false,
    }
}

/// Why a user may not enter a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryRefusal {
    Closed,
    Banned,
    /// The room is not public, or is entered by invitation only.
    NotInvited,
    Full,
}

/// Every reason why a user may not enter a room by itself, in a fixed order. `member`: its row, if it was in the room.
pub fn may_enter(room: &Room, member: Option<&Member>) -> Vec<EntryRefusal> {
    let is_open = room.visibility == Visibility::Public && room.settings.join_policy == JoinPolicy::Open;
    [
        (room.closed_at.is_some(), EntryRefusal::Closed),
        (member.is_some_and(|member| member.banned_at.is_some()), EntryRefusal::Banned),
        (room.kind == RoomKind::Individual || !is_open, EntryRefusal::NotInvited),
        (room.head.members >= room.head.most_members, EntryRefusal::Full),
    ]
    .into_iter()
    .filter_map(|(holds, why)| holds.then_some(why))
    .collect()
}

/// Why a member may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendRefusal {
    NotAMember,
    Closed,
    Banned,
    /// The other of a room of two has blocked the writer.
    Blocked,
    Silenced,
    /// Only owners and admins write.
    AdminsOnly,
    /// The last message was less than this many seconds ago.
    SlowMode(i32),
}

/// Every reason why a user may not write in a room, in a fixed order. `blocked`: the other of a room of two has blocked
/// it; `last_sent_at`: when it last wrote there.
pub fn may_send(
    room: &Room,
    member: Option<&Member>,
    blocked: bool,
    last_sent_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Vec<SendRefusal> {
    let Some(member) = member else { return vec![SendRefusal::NotAMember] };
    let slow = room.settings.slow_mode_s;
    let too_soon = last_sent_at.is_some_and(|last| now < last + chrono::TimeDelta::seconds(i64::from(slow)));
    [
        (room.closed_at.is_some(), SendRefusal::Closed),
        (member.banned_at.is_some(), SendRefusal::Banned),
        (!member.is_in() && member.banned_at.is_none(), SendRefusal::NotAMember),
        (blocked, SendRefusal::Blocked),
        (member.silenced_until.is_some_and(|until| now < until), SendRefusal::Silenced),
        (room.settings.admins_write() && member.role == MemberRole::Member, SendRefusal::AdminsOnly),
        (slow > 0 && too_soon, SendRefusal::SlowMode(slow)),
    ]
    .into_iter()
    .filter_map(|(holds, why)| holds.then_some(why))
    .collect()
}

/// The key of the room of two users.
pub fn pair_key(one: Tsid, other: Tsid) -> String {
    let (low, high) = (one.min(other), one.max(other));
    format!("{low}:{high}")
}
