//! Failed sign-ins, counted by client and address, and by address. A secret of 256 bits is not guessed: this keeps those
//! who try from costing us anything, and tells them apart from one whose settings are wrong.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

/// Failures a minute, after which even the right secret waits …
const MOST_OF_CLIENT: u32 = 10;
/// … and from one address, whoever it claims to be.
const MOST_OF_ADDRESS: u32 = 100;
const PERIOD: TimeDelta = TimeDelta::seconds(60);
/// So many are remembered at most.
const REMEMBERED: usize = 20_000;

#[derive(Debug, Default)]
pub struct Strikes {
    counts: HashMap<(String, String), (DateTime<Utc>, u32)>,
}

impl Strikes {
    /// Seconds to wait, if there were too many.
    pub fn wait_s(&self, client_id: &str, address: &str, now: DateTime<Utc>) -> Option<u32> {
        let over = |client: &str, most: u32| {
            let (since, count) = self.counts.get(&key(client, address))?;
            let left = (*since + PERIOD - now).num_seconds();
            (*count >= most && *since <= now && left > 0).then(|| u32::try_from(left).unwrap_or(1).max(1))
        };
        over(client_id, MOST_OF_CLIENT).max(over("", MOST_OF_ADDRESS))
    }

    pub fn failed(&mut self, client_id: &str, address: &str, now: DateTime<Utc>) {
        if self.counts.len() >= REMEMBERED {
            self.counts.retain(|_, (since, _)| *since <= now && now < *since + PERIOD);
        }
        let clients = if client_id.is_empty() { &[""][..] } else { &[client_id, ""] };
        for client in clients {
            if self.counts.len() >= REMEMBERED && !self.counts.contains_key(&key(client, address)) {
                continue;
            }
            let count = self.counts.entry(key(client, address)).or_insert((now, 0));
            if now >= count.0 + PERIOD || now < count.0 {
                *count = (now, 0);
            }
            count.1 += 1;
        }
    }
}

/// Names are cut: what somebody claims to be is not worth much memory.
fn key(client_id: &str, address: &str) -> (String, String) {
    (client_id.chars().take(64).collect(), address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_often_waits_and_nobody_else() {
        let now: DateTime<Utc> = "2027-03-05T00:30:00Z".parse().unwrap();
        let mut strikes = Strikes::default();
        for _ in 0..MOST_OF_CLIENT {
            assert_eq!(strikes.wait_s("a", "1.1.1.1", now), None);
            strikes.failed("a", "1.1.1.1", now);
        }
        assert_eq!(strikes.wait_s("a", "1.1.1.1", now), Some(60));
        assert_eq!(strikes.wait_s("a", "2.2.2.2", now), None, "its owner elsewhere is not locked out");
        assert_eq!(strikes.wait_s("b", "1.1.1.1", now), None);
        assert_eq!(strikes.wait_s("a", "1.1.1.1", now + TimeDelta::seconds(59)), Some(1));
        assert_eq!(strikes.wait_s("a", "1.1.1.1", now + PERIOD), None);
        for n in 0..MOST_OF_ADDRESS {
            strikes.failed(&n.to_string(), "3.3.3.3", now);
        }
        assert_eq!(strikes.wait_s("never seen", "3.3.3.3", now), Some(60));
        for n in 0..2 * REMEMBERED {
            strikes.failed(&n.to_string(), &n.to_string(), now);
        }
        assert!(strikes.counts.len() <= REMEMBERED);
        strikes.failed("late", "9.9.9.9", now + PERIOD);
        assert!(strikes.counts.len() <= 2, "what is over is forgotten");
    }
}
