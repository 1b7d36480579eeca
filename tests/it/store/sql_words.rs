//! The numbers of lanes and the words that SQL spells out are the model's.

use std::collections::{BTreeMap, BTreeSet};

use notihub::error::DELIVERY_REASONS;
use notihub::model::access::role::{ROLES, Role};
use notihub::model::channel::{CHANNELS, Channel};
use notihub::model::delivery::{STATUSES, Status};
use notihub::model::endpoint::{ENDPOINT_STATUSES, EndpointStatus};
use notihub::model::event::{EVENT_KINDS, EventKind};
use notihub::model::inbox::{INBOX_FILTERS, ITEM_CHANGES, InboxFilter};
use notihub::model::lane::{Lane, PRIORITIES, Priority};
use notihub::model::receipt::{RECEIPT_OUTCOMES, ReceiptOutcome};
use notihub::model::redrive::{REDRIVE_KINDS, REDRIVE_STATUSES, RedriveKind, RedriveStatus};
use notihub::model::user::{USER_STATES, UserState};
use sqlx::{Connection as _, PgConnection};

use crate::laws::{files, read, within};
use crate::support::database::fresh_database;

/// SQL's words, numbers and signs in small letters, without comments and casts. A text is one token, quotes included.
fn sql_tokens(source: &str) -> Vec<String> {
    let source: String =
        source.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut i) = (Vec::<String>::new(), 0);
    while i < chars.len() {
        let word = |c: &char| c.is_alphanumeric() || matches!(*c, '_' | '$');
        let length = match chars[i] {
            '\'' => 2 + chars[i + 1..].iter().take_while(|c| **c != '\'').count(),
            c if word(&c) => chars[i..].iter().take_while(|c| word(c)).count(),
            '<' | '>' | '|' | ':' => {
                chars[i..].iter().take_while(|c| matches!(**c, '<' | '>' | '|' | ':' | '=')).count()
            }
            _ => 1,
        };
        let token: String = chars[i..(i + length).min(chars.len())].iter().collect();
        i += length;
        match tokens.last().map(String::as_str) {
            Some("::") => drop(tokens.pop()),
            _ if token.trim().is_empty() => (),
            _ if token.starts_with('\'') => tokens.push(token),
            _ => tokens.push(token.to_lowercase()),
        }
    }
    tokens
}

/// Each place where a lane meets a number: `lane not between 66 and 71`, `66 + lane % 6`.
fn lane_terms(tokens: &[String]) -> Vec<String> {
    const JOINS: [&str; 20] = [
        "<", "<=", ">", ">=", "=", "<>", "+", "-", "*", "/", "%", "|", "(", "[", "in", "any", "array", "not",
        "between", "when",
    ];
    let is_number = |token: &str| token.starts_with(|c: char| c.is_ascii_digit());
    let mut terms = Vec::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at] == "lane") {
        let mut term = vec!["lane"];
        for token in &tokens[at + 1..] {
            let goes_on = JOINS.contains(&token.as_str()) || token == "and" && term.contains(&"between");
            if !goes_on && !is_number(token) {
                break;
            }
            term.push(token);
            if is_number(token) && term.contains(&"and") {
                break;
            }
        }
        while term.last().is_some_and(|token| !is_number(token) && *token != "lane") {
            term.pop();
        }
        let first = if at >= 2 && tokens[at - 1] == "." { at - 2 } else { at };
        if first >= 2 && is_number(&tokens[first - 2]) && JOINS.contains(&tokens[first - 1].as_str()) {
            term.splice(0..0, [tokens[first - 2].as_str(), tokens[first - 1].as_str()]);
        }
        if term.iter().any(|token| is_number(token)) {
            terms.push(term.join(" "));
        }
    }
    terms
}

/// What the text at `n` is compared with: `reason` of `reason = '…'` and of `coalesce(reason, '') not in ('…', '…')`.
fn compared(tokens: &[String], n: usize) -> Option<&str> {
    const BETWEEN: [&str; 6] = ["(", ")", ",", "not", "is", "from"];
    const BY: [&str; 6] = ["=", "<>", "in", "any", "all", "distinct"];
    let mut is_compared = false;
    for token in tokens[..n].iter().rev().map(String::as_str) {
        is_compared |= BY.contains(&token);
        if !token.starts_with('\'') && !BETWEEN.contains(&token) && !BY.contains(&token) {
            return is_compared.then_some(token);
        }
    }
    None
}

/// A number that SQL names beside a lane, and a word of an event, a status or a reason, is the model's. A channel that
/// is added behind WEBHOOK then needs no change in SQL.
#[tokio::test]
async fn sql_lane_numbers_and_words_are_the_models() {
    let (first, last) = Lane::range_of(Channel::Webhook);
    let in_app = Lane::range_of(Channel::Inapp);
    let lanes = Lane::range_of(Channel::Email).1 + 1;
    let (priority, overflow) =
        (Lane::new(Channel::Email, Priority::Normal, false).0, Lane::new(Channel::Email, Priority::Urgent, true).0);
    let terms = [
        format!("lane between {first} and {last}"),
        format!("lane not between {first} and {last}"),
        format!("lane between {} and {}", in_app.0, in_app.1),
        // A webhook goes in the lane of what it tells of.
        format!("{first} + lane % {lanes}"),
        // Positions in an array begin with 1: of priorities, of all lanes.
        format!("lane % {lanes} / {priority} + 1"),
        "lane + 1".to_owned(),
        format!("lane % {priority}"),
        format!("lane | {overflow}"),
    ];
    let mut conn = PgConnection::connect(&fresh_database().await).await.unwrap();
    let labels = "select t.typname::text, array_agg(e.enumlabel::text order by e.enumsortorder)
        from pg_enum e join pg_type t on t.oid = e.enumtypid group by 1";
    let labels: BTreeMap<String, Vec<String>> =
        sqlx::query_as(labels).fetch_all(&mut conn).await.unwrap().into_iter().collect();
    for (name, words) in [
        ("delivery_status", STATUSES.map(Status::as_str).to_vec()),
        ("receipt_outcome", RECEIPT_OUTCOMES.map(ReceiptOutcome::as_str).to_vec()),
        ("endpoint_status", ENDPOINT_STATUSES.map(EndpointStatus::as_str).to_vec()),
        ("redrive_kind", REDRIVE_KINDS.map(RedriveKind::as_str).to_vec()),
        ("redrive_status", REDRIVE_STATUSES.map(RedriveStatus::as_str).to_vec()),
        ("user_state", USER_STATES.map(UserState::as_str).to_vec()),
        ("key_role", ROLES.map(Role::as_str).to_vec()),
    ] {
        assert_eq!(labels[name], words, "the type {name}");
    }
    let words: BTreeSet<&str> = labels
        .values()
        .flatten()
        .map(String::as_str)
        .chain(PRIORITIES.map(Priority::as_str))
        .chain(CHANNELS.map(Channel::as_str))
        .chain(INBOX_FILTERS.map(InboxFilter::as_str))
        .chain(ITEM_CHANGES)
        .collect();
    let events = EVENT_KINDS.map(EventKind::as_str);
    let reasons: BTreeSet<&str> = DELIVERY_REASONS.iter().map(|reason| reason.0).collect();
    let is_event =
        |text: &str| text.split_once('.').is_some_and(|(of, _)| matches!(of, "delivery" | "message" | "endpoint"));
    let is_word = |text: &str| text.len() > 2 && text.chars().all(|c| c.is_ascii_uppercase() || c == '_');

    let (mut wrong, mut seen) = (Vec::new(), [0; 4]);
    for path in files("sql", ".sql") {
        let name = format!("sql/{}", within(&path, "sql"));
        let tokens = sql_tokens(&read(&path));
        for term in lane_terms(&tokens) {
            seen[0] += 1;
            if !terms.contains(&term) {
                wrong.push(format!("{name}: {term}"));
            }
        }
        for (n, token) in tokens.iter().enumerate().filter(|(_, token)| token.starts_with('\'')) {
            // Of rights, the words are PostgreSQL's.
            let is_right = name.starts_with("sql/role/");
            let of_reason = compared(&tokens, n) == Some("reason");
            for word in token.trim_matches(|c| matches!(c, '\'' | '{' | '}')).split(',') {
                let (kind, known) = match word {
                    word if is_event(word) => {
                        (1, events.iter().any(|e| *e == word || word.ends_with('.') && e.starts_with(word)))
                    }
                    word if is_word(word) && !is_right => (2, words.contains(word)),
                    "" => continue,
                    word if of_reason => (3, reasons.contains(word)),
                    _ => continue,
                };
                seen[kind] += 1;
                if !known {
                    wrong.push(format!("{name}: '{word}'"));
                }
            }
        }
    }
    // The indexes as the migrations leave them.
    let indexes = "select indexname::text, indexdef from pg_indexes where schemaname = 'public'";
    let indexes: Vec<(String, String)> = sqlx::query_as(indexes).fetch_all(&mut conn).await.unwrap();
    for (name, definition) in indexes {
        let terms = lane_terms(&sql_tokens(&definition));
        seen[0] += terms.len();
        if !terms.is_empty() && terms != [format!("lane >= {first}"), format!("lane <= {last}")] {
            wrong.push(format!("the index {name}: {terms:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen[0] > 25 && seen[1] > 40 && seen[2] > 100 && seen[3] > 10, "the reader has gone blind: {seen:?}");
    let example =
        "select 66 <= d.lane, lane in (1, 2), lane = 5::smallint, lane not between 0 and 3 and x = 7 -- lane < 4";
    assert_eq!(lane_terms(&sql_tokens(example)), ["66 <= lane", "lane in ( 1", "lane = 5", "lane not between 0 and 3"]);
}
