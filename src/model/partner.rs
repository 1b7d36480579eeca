//! A partner: a domain service that posts messages. It is the tenant: other partners see none of its messages and are
//! not slowed by its load.

use chrono::{DateTime, TimeDelta, Utc};

use super::channel::Channel;
use crate::id::Tsid;

/// The status of a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartnerStatus {
    /// May sign in and post.
    Active,
    /// May neither sign in nor use its tokens. Messages accepted before are still delivered.
    Inactive,
}

impl PartnerStatus {
    /// The stable word in the database and the API: `ACTIVE` or `INACTIVE`.
    pub fn as_str(self) -> &'static str {
        match self {
            PartnerStatus::Active => "ACTIVE",
            PartnerStatus::Inactive => "INACTIVE",
        }
    }
}

impl std::str::FromStr for PartnerStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<PartnerStatus, ()> {
        [PartnerStatus::Active, PartnerStatus::Inactive].into_iter().find(|s| s.as_str() == text).ok_or(())
    }
}

/// The region of phone numbers without a country code, unless the partner has another.
pub const DEFAULT_REGION: &str = "KR";

/// A partner with its limits and rights.
#[derive(Debug, Clone, PartialEq)]
pub struct Partner {
    pub partner_id: Tsid,
    pub name: String,
    /// The shard of all its messages; never changes.
    pub shard: i16,
    pub status: PartnerStatus,
    /// Requests allowed in a second; a batch counts each of its messages.
    pub rate_limit_tps: i32,
    /// How many days back it may read its messages.
    pub lookup_days: i16,
    /// Days after which content is erased; `None`: with its partition.
    pub retention_days: Option<i16>,
    /// IANA time zone of the days of its statistics; never changes.
    pub time_zone: String,
    /// Region of phone numbers without a country code: two letters of ISO 3166.
    pub region: String,
    /// Channels it may send over; `None`: all.
    pub channels: Option<Vec<Channel>>,
    /// Whether `scheduledAt` may lie ahead.
    pub may_schedule: bool,
    /// Whether its own keys may cancel messages.
    pub may_cancel: bool,
    /// Whether content is encrypted in the database.
    pub encrypt_content: bool,
    /// Whether its endpoints may receive message content.
    pub may_receive_content: bool,
    /// Whether people may make a user for themselves.
    pub sign_up: bool,
}

impl Partner {
    /// A partner with default limits and rights (S0-34, S0-47).
    pub fn new(partner_id: Tsid, name: String, shard: i16) -> Partner {
        Partner {
            partner_id,
            name,
            shard,
            status: PartnerStatus::Active,
            rate_limit_tps: 1000,
            lookup_days: 1,
            retention_days: None,
            time_zone: "Asia/Seoul".into(),
            region: DEFAULT_REGION.into(),
            channels: None,
            may_schedule: true,
            may_cancel: true,
            encrypt_content: false,
            may_receive_content: false,
            sign_up: false,
        }
    }

    /// Whether it may send over this channel.
    pub fn may_use(&self, channel: Channel) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(&channel))
    }

    /// The time from which on it sees messages: those posted or settled since then (S0-47, C12), and unsettled ones of
    /// any age.
    pub fn visible_since(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now - TimeDelta::days(i64::from(self.lookup_days))
    }

    /// The lowest message id in its lists at `now`.
    pub fn oldest_visible_id(&self, now: DateTime<Utc>) -> Tsid {
        Tsid::floor(self.visible_since(now))
    }
}

/// Names of the hub's own partner, which sends alerts.
pub const RESERVED_NAMES: [&str; 2] = ["notihub", "notihub-alerts"];

/// Whether this name is reserved. Ignores case and surrounding blanks.
pub fn is_reserved_name(name: &str) -> bool {
    RESERVED_NAMES.iter().any(|own| own.eq_ignore_ascii_case(name.trim()))
}

/// The shard of a new partner, in 0..`shards`. From a hash, because the low bits of an id are a counter that is nearly
/// always 0: partners created seconds apart would share two shards of eight.
pub fn shard_of(partner_id: Tsid, shards: i16) -> i16 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(partner_id.0.to_be_bytes());
    i16::from_be_bytes([hash[0] & 0x7f, hash[1]]) % shards.max(1)
}

/// The partners whose messages a list shows.
#[derive(Debug, Clone)]
pub struct PartnerScope {
    /// (Partner, its shard): one partner, or every partner for an operator.
    pub partners: Vec<(Tsid, i16)>,
    /// Messages with a lower id are not shown.
    pub oldest_id: Tsid,
    /// The partner that a cursor is bound to, or 0 for all partners.
    pub cursor_owner: Tsid,
    /// Region of phone numbers without a country code in filters.
    pub region: String,
}

impl PartnerScope {
    /// The messages of one partner, from `oldest` on.
    pub fn of_partner(partner: &Partner, oldest: Tsid) -> PartnerScope {
        let owners = vec![(partner.partner_id, partner.shard)];
        PartnerScope {
            partners: owners,
            oldest_id: oldest,
            cursor_owner: partner.partner_id,
            region: partner.region.clone(),
        }
    }
}
