//! Statistics: how a delivery is counted, and how a status change alters the count. A delivery is counted on the day of
//! its `settled_at` in its partner's time zone. Every status change writes its delta in the same commit, so the sum of
//! all deltas always equals a recount; `fsck` compares the two.

use super::delivery::Status;

/// What one delivery adds to each counter, or the difference made by a status change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub total: i16,
    pub success: i16,
    pub failed: i16,
}

/// The count of a delivery with this status. Deliveries that are not settled, and canceled ones, count nothing.
/// UNDETERMINED counts in the total alone, because its success is unknown.
pub fn counts_of(status: Status) -> Counts {
    let (total, success, failed) = match status {
        Status::Scheduled | Status::Pending | Status::Processing | Status::Canceled => (0, 0, 0),
        Status::Sent | Status::Delivered => (1, 1, 0),
        Status::Failed | Status::Expired => (1, 0, 1),
        Status::Undetermined => (1, 0, 0),
    };
    Counts { total, success, failed }
}

/// The difference that a transition makes to the day on which the delivery is counted.
pub fn count_delta(was: Status, is: Status) -> Counts {
    let (before, after) = (counts_of(was), counts_of(is));
    Counts {
        total: after.total - before.total,
        success: after.success - before.success,
        failed: after.failed - before.failed,
    }
}

/// Sums over many deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountTotals {
    pub total: i64,
    pub success: i64,
    pub failed: i64,
}

impl CountTotals {
    /// Deliveries that ended UNDETERMINED.
    pub fn undetermined(self) -> i64 {
        self.total - self.success - self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::super::delivery::{STATUSES, TRANSITIONS};
    use super::*;

    fn counts(total: i16, success: i16, failed: i16) -> Counts {
        Counts { total, success, failed }
    }

    #[test]
    fn each_settled_status_counts_once() {
        for status in STATUSES {
            let Counts { total, success, failed } = counts_of(status);
            assert!([0, 1].contains(&total) && success + failed <= total, "{status}");
            assert_eq!(total == 1, status.is_settled() && status != Status::Canceled, "{status}");
            assert_eq!(success == 1, status.is_success(), "{status}");
        }
    }

    #[test]
    fn count_deltas_of_real_transitions() {
        assert_eq!(count_delta(Status::Processing, Status::Sent), counts(1, 1, 0));
        assert_eq!(count_delta(Status::Processing, Status::Failed), counts(1, 0, 1));
        assert_eq!(count_delta(Status::Pending, Status::Expired), counts(1, 0, 1));
        assert_eq!(count_delta(Status::Scheduled, Status::Canceled), counts(0, 0, 0));
        assert_eq!(count_delta(Status::Processing, Status::Undetermined), counts(1, 0, 0));
        assert_eq!(count_delta(Status::Undetermined, Status::Sent), counts(0, 1, 0));
        assert_eq!(count_delta(Status::Sent, Status::Delivered), counts(0, 0, 0));
        assert_eq!(count_delta(Status::Failed, Status::Pending), counts(-1, 0, -1));
    }

    /// On every path of a delivery the deltas add up to the count of its last status.
    #[test]
    fn count_deltas_add_up_along_every_path() {
        let add = |a: Counts, b: Counts| counts(a.total + b.total, a.success + b.success, a.failed + b.failed);
        for (first, second, _) in TRANSITIONS {
            for (_, third, _) in TRANSITIONS.iter().filter(|(from, _, _)| *from == second) {
                let sum = add(counts_of(first), add(count_delta(first, second), count_delta(second, *third)));
                assert_eq!(sum, counts_of(*third), "{first}, {second}, {third}");
            }
        }
    }
}
