//! Checks a round of a fault: compares the answers that clients got with the database and with what the provider
//! received.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::id::Tsid;
use crate::model::delivery::Status;

/// The answers that clients got. Each message carries a unique token.
#[derive(Debug, Default)]
pub struct Promises {
    /// The message ids of accepted messages, by token.
    pub accepted: HashMap<String, Tsid>,
    /// Messages that were posted repeatedly until the end and never accepted.
    pub given_up: u64,
    /// The number of answers by status and code; `none` counts missing answers.
    pub answers: BTreeMap<String, u64>,
}

/// A delivery in the database.
#[derive(Debug, Clone)]
pub struct Ending {
    pub token: String,
    pub message_id: Tsid,
    pub status: Status,
    /// The number of attempts that the provider accepted or may have accepted, by the database.
    pub may_be_sent: i64,
}

/// The effects that a fault may have by the protocol. Other effects are objections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    pub duplicates: bool,
    pub undetermined: Doubt,
}

/// The deliveries that may end UNDETERMINED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doubt {
    #[default]
    OfNothing,
    /// Deliveries that the provider accepted and whose response was lost.
    OfTaken,
    /// Deliveries whose call may have begun.
    OfCalled,
}

/// The result of a check: numbers of messages or copies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Objections {
    pub accepted: u64,
    /// Accepted, but not in the database under that id.
    pub lost: u64,
    /// Tokens with several messages.
    pub accepted_twice: u64,
    /// Posted until the end and never accepted: nothing was lost, but the client was not served.
    pub refused: u64,
    /// Deliveries without a final status.
    pub stuck: u64,
    /// FAILED, EXPIRED or CANCELED, although the provider received it.
    pub denied: u64,
    /// SENT, although the provider did not receive it.
    pub invented: u64,
    pub undetermined: u64,
    /// Those of them that the provider did not receive.
    pub doubted: u64,
    pub failed: u64,
    /// Copies at the provider beyond the first.
    pub duplicates: u64,
    /// Copies beyond the attempts that may have been accepted.
    pub unexplained: u64,
}

/// Compares the accepted messages with the deliveries in the database and with the messages that the provider received.
/// `received`: the number of copies by token.
pub fn check(promises: &Promises, endings: &[Ending], received: &HashMap<String, u64>) -> Objections {
    let (accepted, refused) = (promises.accepted.len() as u64, promises.given_up);
    let mut found = Objections { accepted, refused, ..Objections::default() };
    let there: HashSet<Tsid> = endings.iter().map(|e| e.message_id).collect();
    found.lost = promises.accepted.values().filter(|id| !there.contains(id)).count() as u64;
    let mut by_token: HashMap<&str, Vec<&Ending>> = HashMap::new();
    endings.iter().for_each(|e| by_token.entry(&e.token).or_default().push(e));
    for (token, endings) in &by_token {
        let copies = received.get(*token).copied().unwrap_or(0);
        found.accepted_twice += endings.len() as u64 - 1;
        found.duplicates += copies.saturating_sub(1);
        let may_be_sent: i64 = endings.iter().map(|e| e.may_be_sent).sum();
        found.unexplained += copies.saturating_sub(may_be_sent.unsigned_abs());
        for ending in endings {
            match ending.status {
                Status::Scheduled | Status::Pending | Status::Processing => found.stuck += 1,
                Status::Sent | Status::Delivered => found.invented += u64::from(copies == 0),
                Status::Undetermined => {
                    found.undetermined += 1;
                    found.doubted += u64::from(copies == 0);
                }
                Status::Failed | Status::Expired | Status::Canceled => {
                    found.failed += 1;
                    found.denied += u64::from(copies > 0);
                }
            }
        }
    }
    // A call that the database does not contain.
    let unknown = received.iter().filter(|(token, _)| !by_token.contains_key(token.as_str()));
    found.unexplained += unknown.map(|(_, copies)| copies).sum::<u64>();
    found
}

impl Objections {
    /// The objections in words; empty if every promise was kept.
    pub fn objections(&self, allowed: Allowed) -> Vec<String> {
        let mut objections = Vec::new();
        let mut must_be_none = |n: u64, what: &str| {
            if n > 0 {
                objections.push(format!("{n} {what}"));
            }
        };
        must_be_none(self.lost, "accepted and lost");
        must_be_none(self.accepted_twice, "accepted twice");
        must_be_none(self.refused, "never accepted");
        must_be_none(self.stuck, "without an ending");
        must_be_none(self.denied, "called failed, and the provider has them");
        must_be_none(self.invented, "called sent, and the provider never saw them");
        must_be_none(self.unexplained, "copies more than the books admit");
        must_be_none(self.failed, "failed, and nothing was wrong with them");
        if !allowed.duplicates {
            must_be_none(self.duplicates, "duplicates");
        }
        match allowed.undetermined {
            Doubt::OfNothing => must_be_none(self.undetermined, "undetermined"),
            Doubt::OfTaken => must_be_none(self.doubted, "undetermined, and the provider never saw them"),
            Doubt::OfCalled => (),
        }
        objections
    }
}

/// An event that arrived at an endpoint, with all its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    pub copies: u64,
    /// Whether all copies had the same bytes.
    pub same: bool,
    /// Whether one copy was accepted with a 2xx.
    pub taken: bool,
}

/// The result of a check of an endpoint: numbers of events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EventCheck {
    pub events: u64,
    /// Events that never arrived or were never accepted. Ids have no gaps, so a gap is such an event.
    pub unheard: u64,
    /// Events that arrived but did not happen.
    pub strange: u64,
    /// Events whose copies differ.
    pub changed: u64,
    pub duplicates: u64,
    /// Events that were accepted before an earlier event of the same message, for an ordered endpoint.
    pub disordered: u64,
}

/// Compares the events that arrived with those of the accepted messages. Each message has one delivery, which is sent,
/// and so three events. `arrived`: by event id.
pub fn check_events(promises: &Promises, arrived: &HashMap<String, Arrived>) -> EventCheck {
    let ids = promises.accepted.values().flat_map(|id| ["0-1", "1-1", "0-2"].map(|event| format!("{id}-{event}")));
    let happened: HashSet<String> = ids.collect();
    let count = |so: &dyn Fn(&String, &Arrived) -> bool| arrived.iter().filter(|(id, a)| so(id, a)).count() as u64;
    EventCheck {
        events: happened.len() as u64,
        unheard: happened.iter().filter(|id| !arrived.get(*id).is_some_and(|a| a.taken)).count() as u64,
        strange: count(&|id, _| !happened.contains(id)),
        changed: count(&|_, a| !a.same),
        duplicates: arrived.values().map(|a| a.copies - 1).sum(),
        disordered: 0,
    }
}

impl EventCheck {
    /// The objections in words; empty if every promise was kept.
    pub fn objections(&self) -> Vec<String> {
        let wrong = [
            (self.unheard, "events never heard"),
            (self.strange, "events heard that never happened"),
            (self.changed, "events that were another when they came again"),
            (self.disordered, "events taken before one that precedes them"),
        ];
        wrong.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S0-46: every event at least once, by id exactly those that happened, duplicates the same.
    #[test]
    fn what_was_not_heard_as_it_happened_has_an_objection() {
        let heard = |events: &[(&str, Arrived)]| {
            let arrived = events.iter().map(|(event, a)| (format!("{}-{event}", Tsid(1)), *a)).collect();
            check_events(&promised(&["a"]), &arrived).objections().join(", ")
        };
        let once = Arrived { copies: 1, same: true, taken: true };
        let all = [("0-1", once), ("1-1", once), ("0-2", once)];
        assert_eq!(heard(&all), "");
        assert_eq!(heard(&[("0-1", Arrived { copies: 3, ..once }), all[1], all[2]]), "");
        assert_eq!(heard(&all[..2]), "1 events never heard");
        assert_eq!(heard(&[("0-1", Arrived { taken: false, ..once }), all[1], all[2]]), "1 events never heard");
        assert_eq!(heard(&[all[0], all[1], all[2], ("1-2", once)]), "1 events heard that never happened");
        let changed = Arrived { copies: 2, same: false, taken: true };
        assert_eq!(heard(&[all[0], ("1-1", changed), all[2]]), "1 events that were another when they came again");
        let disordered = EventCheck { disordered: 2, ..EventCheck::default() };
        assert_eq!(disordered.objections(), ["2 events taken before one that precedes them"]);
    }

    /// A client that gave up was not served.
    #[test]
    fn who_gave_up_counts() {
        let promises = Promises { given_up: 2, ..Promises::default() };
        assert_eq!(says(&promises, &[], &[], Allowed::default()), ["2 never accepted"]);
    }

    #[test]
    fn doubt_is_for_what_was_taken() {
        let allowed = Allowed { undetermined: Doubt::OfTaken, ..Allowed::default() };
        let endings = [ending("a", 1, Status::Undetermined, 1)];
        assert_eq!(says(&promised(&["a"]), &endings, &[("a", 1)], allowed), Vec::<String>::new());
        let objections = says(&promised(&["a"]), &endings, &[], allowed);
        assert_eq!(objections, ["1 undetermined, and the provider never saw them"]);
    }

    fn promised(tokens: &[&str]) -> Promises {
        let accepted = tokens.iter().zip(1..).map(|(t, n)| ((*t).to_owned(), Tsid(n))).collect();
        Promises { accepted, ..Promises::default() }
    }

    fn ending(token: &str, id: i64, status: Status, may_be_sent: i64) -> Ending {
        Ending { token: token.to_owned(), message_id: Tsid(id), status, may_be_sent }
    }

    fn received(tokens: &[(&str, u64)]) -> HashMap<String, u64> {
        tokens.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect()
    }

    fn says(promises: &Promises, endings: &[Ending], got: &[(&str, u64)], allowed: Allowed) -> Vec<String> {
        check(promises, endings, &received(got)).objections(allowed)
    }

    #[test]
    fn what_is_as_promised_has_no_objection() {
        let endings = [ending("a", 1, Status::Sent, 1), ending("b", 2, Status::Sent, 2)];
        let lenient = Allowed { duplicates: true, ..Allowed::default() };
        assert_eq!(says(&promised(&["a", "b"]), &endings, &[("a", 1), ("b", 2)], lenient), Vec::<String>::new());
    }

    /// Each thing that must not be is objected to, alone.
    #[test]
    fn each_wrong_is_named() {
        let sent = |id| ending("a", id, Status::Sent, 1);
        let none = Allowed::default();
        let a = promised(&["a"]);
        type Case = (Vec<Ending>, &'static [(&'static str, u64)], &'static str);
        let cases: [Case; 9] = [
            (vec![], &[], "1 accepted and lost"),
            (vec![sent(1), sent(2)], &[("a", 1)], "1 accepted twice"),
            (vec![ending("a", 1, Status::Processing, 0)], &[], "1 without an ending"),
            (
                vec![ending("a", 1, Status::Failed, 1)],
                &[("a", 1)],
                "1 called failed, and the provider has them, 1 failed, and nothing was wrong with them",
            ),
            (vec![sent(1)], &[], "1 called sent, and the provider never saw them"),
            (vec![sent(1)], &[("a", 2)], "1 copies more than the books admit, 1 duplicates"),
            (vec![sent(1)], &[("a", 1), ("b", 1)], "1 copies more than the books admit"),
            (vec![ending("a", 1, Status::Sent, 2)], &[("a", 2)], "1 duplicates"),
            (vec![ending("a", 1, Status::Undetermined, 1)], &[("a", 1)], "1 undetermined"),
        ];
        for (endings, got, objection) in cases {
            assert_eq!(says(&a, &endings, got, none).join(", "), objection);
        }
    }
}
