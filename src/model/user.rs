//! A user: one of a partner's own people. A user belongs to one partner and lives on its shard; users of two partners
//! never meet. The people who run the hub are not users.

use chrono::{DateTime, Utc};
use unicode_normalization::UnicodeNormalization as _;

use super::json::TextRule;
use crate::id::Tsid;
use crate::limits;

/// Characters of a nickname.
pub const NICKNAME_CHARS: usize = 30;
/// Fewest and most characters of a username.
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=30;
/// Characters of the partner's own id of a user.
pub const EXTERNAL_ID_CHARS: usize = 128;
/// Bytes of a web address.
pub const URL_BYTES: usize = 2_048;
/// Characters of a locale: a language tag (BCP 47).
pub const LOCALE_CHARS: usize = 35;

/// The reading rule of the partner's own id of a user.
pub const EXTERNAL_ID: TextRule = TextRule::line(EXTERNAL_ID_CHARS).as_posted();
/// The reading rule of a nickname.
pub const NICKNAME: TextRule = TextRule::line(NICKNAME_CHARS);

/// The state of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    Active,
    /// May neither sign in nor use its tokens.
    Blocked,
    /// Withdrawn or erased: only the id is left.
    Deleted,
}

/// Every state, in the database's order.
pub const USER_STATES: [UserState; 3] = [UserState::Active, UserState::Blocked, UserState::Deleted];

impl UserState {
    /// The stable word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            UserState::Active => "ACTIVE",
            UserState::Blocked => "BLOCKED",
            UserState::Deleted => "DELETED",
        }
    }
}

impl std::str::FromStr for UserState {
    type Err = ();
    fn from_str(text: &str) -> Result<UserState, ()> {
        USER_STATES.into_iter().find(|s| s.as_str() == text).ok_or(())
    }
}

/// Whether a user is there, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Online,
    Away,
    Busy,
    Offline,
}

/// Every presence.
pub const PRESENCES: [Presence; 4] = [Presence::Online, Presence::Away, Presence::Busy, Presence::Offline];

impl Presence {
    /// The stable word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Presence::Online => "ONLINE",
            Presence::Away => "AWAY",
            Presence::Busy => "BUSY",
            Presence::Offline => "OFFLINE",
        }
    }
}

impl std::str::FromStr for Presence {
    type Err = ();
    fn from_str(text: &str) -> Result<Presence, ()> {
        PRESENCES.into_iter().find(|p| p.as_str() == text).ok_or(())
    }
}

/// A user with its profile.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub shard: i16,
    pub user_id: Tsid,
    pub partner_id: Tsid,
    /// The partner's own id of the user; `None`: the user signed up, or is deleted.
    pub external_id: Option<String>,
    /// The name to sign in with; `None`: the user never signed up, or is deleted.
    pub username: Option<String>,
    /// Empty if the user is deleted.
    pub nickname: String,
    /// By which others find the user.
    pub user_code: String,
    /// As the user wants to be shown; `None`: as it is.
    pub shown_as: Option<Presence>,
    pub bio: Option<String>,
    pub profile_image_url: Option<String>,
    pub background_image_url: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub locale: Option<String>,
    pub time_zone: Option<String>,
    pub state: UserState,
    /// Tokens issued before this are void.
    pub tokens_after: Option<DateTime<Utc>>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// The presence that others see. Without a live connection a user is OFFLINE, unless it chose otherwise.
    pub fn presence(&self) -> Presence {
        self.shown_as.unwrap_or(Presence::Offline)
    }

    /// The presence that others see, as `presence_of`.
    pub fn presence_with(&self, active_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Presence {
        let active_at = active_at.map(|active_at| self.last_seen_at.map_or(active_at, |seen| seen.max(active_at)));
        presence_of(self.shown_as, active_at, now)
    }

    /// Whether a token that was issued at `iat` (Unix seconds) is still valid.
    pub fn accepts_token_of(&self, iat: i64) -> bool {
        self.tokens_after.is_none_or(|after| DateTime::from_timestamp(iat, 0).is_some_and(|issued| issued >= after))
    }

    /// The Unix second that a token issued at `now` names as its time of issue: never before `tokens_after`.
    pub fn issue_second(&self, now: DateTime<Utc>) -> i64 {
        let first = self
            .tokens_after
            .map_or(i64::MIN, |after| after.timestamp() + i64::from(after.timestamp_subsec_nanos() > 0));
        now.timestamp().max(first)
    }
}

/// The presence that others see. `shown_as`: what the user chose. `active_at`: when it last did something or opened a
/// connection; None: it has no live connection. A user of whom nothing came for `AWAY_AFTER` is AWAY, unless it chose
/// otherwise.
pub fn presence_of(shown_as: Option<Presence>, active_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Presence {
    let Some(active_at) = active_at else { return Presence::Offline };
    let is_away = active_at < now - limits::AWAY_AFTER;
    shown_as.unwrap_or(if is_away { Presence::Away } else { Presence::Online })
}

/// The nickname of a new user without one: the partner's own id of it, cut to the length of a nickname.
pub fn default_nickname(external_id: &str) -> String {
    external_id.chars().take(NICKNAME_CHARS).collect()
}

/// The form in which usernames are compared: compatibility forms and capitals are one name.
pub fn username_key(username: &str) -> String {
    username.nfkc().flat_map(char::to_lowercase).collect()
}

/// Whether a text may be a username.
pub fn is_username(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    USERNAME_CHARS.contains(&text.len()) && text.bytes().all(is_allowed)
}

/// A user code from 40 random bits.
pub fn user_code(random: [u8; 5]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = random.iter().fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    (0..8).map(|n| char::from(ALPHABET[usize::try_from((bits >> (35 - 5 * n)) & 31).unwrap_or(0)])).collect()
}

/// Whether a text may be the partner's own id of a user: 1 to 128 printable characters.
pub fn is_external_id(text: &str) -> bool {
    let is_printable = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    (1..=EXTERNAL_ID_CHARS).contains(&text.chars().count()) && text.chars().all(is_printable) && text.trim() == text
}

/// Whether a text is an https address that a client may load an image from.
pub fn is_image_url(text: &str) -> bool {
    let is_plain = text.len() <= URL_BYTES && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    is_plain
        && url::Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https" && url.has_host() && url.username().is_empty() && url.password().is_none()
        })
}

/// A user for tests.
#[cfg(test)]
pub fn sample() -> User {
    let at = DateTime::UNIX_EPOCH;
    User {
        shard: 0,
        user_id: Tsid(1),
        partner_id: Tsid(2),
        external_id: None,
        username: None,
        nickname: "Kim".into(),
        user_code: user_code([0; 5]),
        shown_as: None,
        bio: None,
        profile_image_url: None,
        background_image_url: None,
        email: None,
        phone: None,
        locale: None,
        time_zone: None,
        state: UserState::Active,
        tokens_after: None,
        last_seen_at: None,
        created_at: at,
        updated_at: at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(tokens_after: Option<&str>) -> User {
        User { tokens_after: tokens_after.map(|at| at.parse().unwrap()), ..sample() }
    }

    /// A token issued in the same second before `tokens_after` is void, one issued after it is not.
    #[test]
    fn token_of_the_second_of_a_sign_out_is_void_and_a_new_one_is_not() {
        let user = user(Some("2027-03-05T00:30:00.5Z"));
        let out = user.tokens_after.unwrap();
        assert!(!user.accepts_token_of(out.timestamp()));
        assert!(user.accepts_token_of(out.timestamp() + 1));
        let later = out + chrono::TimeDelta::milliseconds(100);
        assert_eq!(user.issue_second(later), out.timestamp() + 1);
        assert!(user.accepts_token_of(user.issue_second(later)));
        assert!(sample().accepts_token_of(0));
        assert_eq!(sample().issue_second(later), later.timestamp());
    }

    #[test]
    fn user_code_is_eight_characters_of_all_bits() {
        assert_eq!(user_code([0; 5]), "00000000");
        assert_eq!(user_code([255; 5]), "ZZZZZZZZ");
        assert_eq!(user_code([0, 0, 0, 0, 1]), "00000001");
        assert_eq!(user_code([128, 0, 0, 0, 0]), "G0000000");
    }

    #[test]
    fn names_that_look_alike_are_one_username() {
        assert_eq!(username_key("ＫｉＭ"), username_key("kim"));
        assert_ne!(username_key("kim"), username_key("kin"));
    }

    #[test]
    fn external_id_is_printable_and_trimmed() {
        assert!(is_external_id("u-1") && is_external_id("김민수@shop") && is_external_id(&"x".repeat(128)));
        for bad in ["", " u", "u ", "u\n1", "u\u{0}", "\u{feff}u", &"x".repeat(129)] {
            assert!(!is_external_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn image_url_is_https_without_credentials() {
        assert!(is_image_url("https://cdn.example.com/a.png?x=1"));
        for bad in ["http://a.example/x", "javascript:alert(1)", "https://", "https://u:p@a.example/", "https://a b/"] {
            assert!(!is_image_url(bad), "{bad}");
        }
    }
}
