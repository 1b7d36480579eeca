//! Statistics: what a delivery counts, and how that changes when its status does. A delivery is counted on the day of its
//! `settled_at`, in its partner's time zone. Whatever changes a status writes the change in the same commit, so that at
//! any time the sum of all changes is what a recount gives; `fsck` compares the two.

use super::delivery::Status;

/// What one delivery counts, or by how much that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub total: i16,
    pub success: i16,
    pub failed: i16,
}

/// What has not ended is not counted yet, and what was canceled was never sent. What we asked for and cannot know is in
/// the total alone: of that we never say that it failed.
pub fn counts_of(status: Status) -> Counts {
    let (total, success, failed) = match status {
        Status::Scheduled | Status::Pending | Status::Processing | Status::Canceled => (0, 0, 0),
        Status::Sent | Status::Delivered => (1, 1, 0),
        Status::Failed | Status::Expired => (1, 0, 1),
        Status::Undetermined => (1, 0, 0),
    };
    Counts { total, success, failed }
}

/// What a transition adds to, or takes from, the day on which the delivery is counted.
pub fn count_delta(was: Status, is: Status) -> Counts {
    let (before, after) = (counts_of(was), counts_of(is));
    Counts {
        total: after.total - before.total,
        success: after.success - before.success,
        failed: after.failed - before.failed,
    }
}

/// Many deliveries'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountTotals {
    pub total: i64,
    pub success: i64,
    pub failed: i64,
}

impl CountTotals {
    /// Those we asked for and cannot know.
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
    fn each_ending_counts_once_and_on_one_side_at_most() {
        for status in STATUSES {
            let Counts { total, success, failed } = counts_of(status);
            assert!([0, 1].contains(&total) && success + failed <= total, "{status}");
            assert_eq!(total == 1, status.is_settled() && status != Status::Canceled, "{status}");
            assert_eq!(success == 1, status.is_success(), "{status}");
        }
    }

    #[test]
    fn the_changes_that_happen() {
        assert_eq!(count_delta(Status::Processing, Status::Sent), counts(1, 1, 0));
        assert_eq!(count_delta(Status::Processing, Status::Failed), counts(1, 0, 1));
        assert_eq!(count_delta(Status::Pending, Status::Expired), counts(1, 0, 1));
        assert_eq!(count_delta(Status::Scheduled, Status::Canceled), counts(0, 0, 0));
        assert_eq!(count_delta(Status::Processing, Status::Undetermined), counts(1, 0, 0));
        assert_eq!(count_delta(Status::Undetermined, Status::Sent), counts(0, 1, 0));
        assert_eq!(count_delta(Status::Sent, Status::Delivered), counts(0, 0, 0));
        assert_eq!(count_delta(Status::Failed, Status::Pending), counts(-1, 0, -1));
    }

    /// Whatever way a delivery takes, the changes on it add up to what its last status counts.
    #[test]
    fn changes_add_up_along_every_way() {
        let add = |a: Counts, b: Counts| counts(a.total + b.total, a.success + b.success, a.failed + b.failed);
        for (first, second, _) in TRANSITIONS {
            for (_, third, _) in TRANSITIONS.iter().filter(|(from, _, _)| *from == second) {
                let sum = add(counts_of(first), add(count_delta(first, second), count_delta(second, *third)));
                assert_eq!(sum, counts_of(*third), "{first}, {second}, {third}");
            }
        }
    }
}
