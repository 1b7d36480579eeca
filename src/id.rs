//! TSID: 42 bits of milliseconds since 2020, 10 bits of node, 12 bits of counter. Written as 13 characters of Crockford
//! base32, stored as bigint. It sorts by time, so it is partition key, primary key and list order at once.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

/// 2020-01-01T00:00:00Z in milliseconds since 1970: 42 bits from here last until 2089 with the sign bit clear.
const EPOCH_MILLIS: i64 = 1_577_836_800_000;
const NODE_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Number of nodes. A process takes the next number at its start, modulo this.
pub const NODES: i64 = 1 << NODE_BITS;

/// An id; its order is the order of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsid(pub i64);

impl Tsid {
    /// Returns the smallest id of that moment: the bound of a partition or of a time window.
    pub fn floor(at: DateTime<Utc>) -> Tsid {
        let millis = (at.timestamp_millis() - EPOCH_MILLIS).clamp(0, (1 << 41) - 1);
        Tsid(millis << (NODE_BITS + COUNTER_BITS))
    }

    /// Returns by how much ids grow in this time.
    pub fn span(time: chrono::TimeDelta) -> i64 {
        time.num_milliseconds() << (NODE_BITS + COUNTER_BITS)
    }

    /// Returns the time of creation, to the millisecond.
    pub fn time(self) -> DateTime<Utc> {
        let millis = (self.0 >> (NODE_BITS + COUNTER_BITS)) + EPOCH_MILLIS;
        DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 13];
        for (i, byte) in text.iter_mut().enumerate() {
            let index = (self.0 >> (60 - 5 * i)) & 31;
            *byte = ALPHABET[usize::try_from(index).unwrap_or(0)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a TSID. Callers answer `not_found`, as for any id that does not exist.
#[derive(Debug, PartialEq, Eq)]
pub struct NotATsid;

impl FromStr for Tsid {
    type Err = NotATsid;

    fn from_str(text: &str) -> Result<Tsid, NotATsid> {
        if text.len() != 13 {
            return Err(NotATsid);
        }
        let mut value: i64 = 0;
        for (i, byte) in text.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|&c| c == byte.to_ascii_uppercase()).ok_or(NotATsid)?;
            if i == 0 && digit > 7 {
                return Err(NotATsid);
            }
            value = (value << 5) | i64::try_from(digit).map_err(|_| NotATsid)?;
        }
        Ok(Tsid(value))
    }
}

/// Generator of ids. They always rise: after 4,096 ids in one millisecond, or when the clock was set back, it uses the
/// following milliseconds.
pub struct Tsids {
    node: u64,
    /// `milliseconds << COUNTER_BITS | counter` of the last id.
    last: AtomicU64,
}

impl Tsids {
    /// Makes a generator. `node` must differ between processes that live at the same time; the database hands it out.
    pub fn new(node: i64) -> Tsids {
        Tsids { node: node.rem_euclid(NODES).unsigned_abs(), last: AtomicU64::new(0) }
    }

    /// Returns the next id; `now_unix_millis` is milliseconds since 1970.
    pub fn next(&self, now_unix_millis: i64) -> Tsid {
        let now = (now_unix_millis - EPOCH_MILLIS).max(0).unsigned_abs() << COUNTER_BITS;
        let mut given = 0;
        // `fetch_update` fails only when the closure returns None, and it never does.
        let _always = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            given = now.max(last + 1);
            Some(given)
        });
        let (millis, counter) = (given >> COUNTER_BITS, given & ((1 << COUNTER_BITS) - 1));
        let id = (millis << (NODE_BITS + COUNTER_BITS)) | (self.node << COUNTER_BITS) | counter;
        Tsid(i64::try_from(id & (i64::MAX.unsigned_abs())).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S0-50, S0-51, S0-52: 13 characters of base32, sortable by time, unique within and between nodes.
    #[test]
    fn ids_are_thirteen_characters_sort_by_time_and_never_repeat() {
        let (a, b) = (Tsids::new(1), Tsids::new(2));
        let t = 1_800_000_000_000;
        let mut all: Vec<Tsid> = Vec::new();
        for tick in 0..3 {
            for _ in 0..6000 {
                all.push(a.next(t + tick));
                all.push(b.next(t + tick));
            }
        }
        let of_a: Vec<Tsid> = all.iter().copied().step_by(2).collect();
        assert!(of_a.is_sorted(), "ids of one process rise, also past 4,096 in a millisecond");
        let as_text: Vec<String> = of_a.iter().map(Tsid::to_string).collect();
        assert!(as_text.is_sorted(), "and so do their texts");
        assert!(as_text.iter().all(|s| s.len() == 13));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 36_000);
    }

    #[test]
    fn a_clock_set_back_does_not_repeat_ids() {
        let ids = Tsids::new(0);
        let later = ids.next(1_800_000_000_000);
        assert!(ids.next(1_700_000_000_000) > later);
    }

    #[test]
    fn text_and_number_are_the_same_id() {
        for n in [0, 1, 31, 32, 1 << 22, 700_000_000_000_000_000, i64::MAX] {
            assert_eq!(Tsid(n).to_string().parse(), Ok(Tsid(n)));
        }
        for bad in ["", "0", "8000000000000", "000000000000U", "00000000000000", "0000000000é0"] {
            assert_eq!(bad.parse::<Tsid>(), Err(NotATsid), "{bad}");
        }
        let at = DateTime::from_timestamp_millis(1_800_000_000_123).unwrap();
        assert_eq!(Tsid::floor(at).time(), at);
    }
}
