//! A partner: a domain service that posts messages. The tenant: whatever it posts is seen by nobody else, and what one
//! does hurts no other.

use chrono::{DateTime, TimeDelta, Utc};

use super::channel::Channel;
use crate::id::Tsid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartnerStatus {
    Active,
    /// May not sign in, nor do anything with a token it has. What it posted before is delivered.
    Inactive,
}

impl PartnerStatus {
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

/// Where a phone number without a country is from, unless its partner says otherwise.
pub const DEFAULT_REGION: &str = "KR";

#[derive(Debug, Clone, PartialEq)]
pub struct Partner {
    pub partner_id: Tsid,
    pub name: String,
    /// Where all it posts lives, for good.
    pub shard: i16,
    pub status: PartnerStatus,
    /// Requests a second; a batch counts each of its messages.
    pub rate_limit_tps: i32,
    /// How many days back it sees its messages.
    pub lookup_days: i16,
    /// Content is erased after so many days; none: when its partition goes.
    pub retention_days: Option<i16>,
    /// Whose days its statistics are of; an IANA name, fixed for good.
    pub time_zone: String,
    /// Where a phone number without a country is from; two letters of ISO 3166.
    pub region: String,
    /// What it may send over; none: everything.
    pub channels: Option<Vec<Channel>>,
    pub may_schedule: bool,
    pub may_cancel: bool,
    pub encrypt_content: bool,
    /// Its endpoints may be given what its messages say.
    pub may_receive_content: bool,
}

impl Partner {
    /// With everything that is not said as it is by default (S0-34, S0-47).
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
        }
    }

    pub fn may_use(&self, channel: Channel) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(&channel))
    }

    /// It may look at what was posted, or ended, since then (S0-47, C12), and at what is open however old.
    pub fn visible_since(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now - TimeDelta::days(i64::from(self.lookup_days))
    }

    /// The oldest message in its lists now.
    pub fn oldest_visible_id(&self, now: DateTime<Utc>) -> Tsid {
        Tsid::floor(self.visible_since(now))
    }
}

/// Names of the hub's own partner, whose messages alerts are.
pub const RESERVED_NAMES: [&str; 2] = ["notihub", "notihub-alerts"];

/// Whether a partner may not have this name, in any letters.
pub fn is_reserved_name(name: &str) -> bool {
    RESERVED_NAMES.iter().any(|own| own.eq_ignore_ascii_case(name.trim()))
}

/// The shard of a new partner, of `shards`. From a hash, because the low bits of an id are a counter that is nearly always
/// 0: partners made seconds apart would share two shards of eight.
pub fn shard_of(partner_id: Tsid, shards: i16) -> i16 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(partner_id.0.to_be_bytes());
    i16::from_be_bytes([hash[0] & 0x7f, hash[1]]) % shards.max(1)
}

/// Whose messages a list is of.
#[derive(Debug, Clone)]
pub struct PartnerScope {
    /// Partners, and where each lives: one's own, or all of them for an operator.
    pub partners: Vec<(Tsid, i16)>,
    /// What is older is not seen.
    pub oldest_id: Tsid,
    /// To what a cursor is bound: the partner, or 0 for all.
    pub cursor_owner: Tsid,
    /// Where a phone number without a country is from.
    pub region: String,
}

impl PartnerScope {
    /// A partner's own.
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
