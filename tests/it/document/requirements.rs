//! src/docs/requirements.md is true: each item of the seeds stands in one of its lists, and what it says of tests is
//! so.

use std::collections::{BTreeMap, BTreeSet};

use notihub::error::REASONS;

use crate::laws::{files, read, root};

/// The items of the requirements that the tests of a source name, with the tests that name them: `/// S3-1, S3-2: …`
/// above a test.
fn named_items(source: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut lines = source.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some(doc) = line.strip_prefix("///") else { continue };
        let mut doc = doc.to_owned();
        while let Some(more) = lines.peek().and_then(|l| l.strip_prefix("///")) {
            doc.push_str(more);
            lines.next();
        }
        let is_test = lines.peek().is_some_and(|l| l.starts_with("#[test]") || l.starts_with("#[tokio::test"));
        if !is_test {
            continue;
        }
        let test = lines.clone().find_map(|l| Some(l.split_once("fn ")?.1.split('(').next()?.to_owned()));
        for item in doc.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|word| is_item(word)) {
            named.entry(item.to_owned()).or_default().extend(test.clone());
        }
    }
    named
}

/// `S3-28`.
fn is_item(word: &str) -> bool {
    let number = word.strip_prefix('S').and_then(|rest| rest.split_once('-'));
    number.is_some_and(|(seed, n)| seed.len() == 1 && seed.parse::<u8>().is_ok() && n.parse::<u16>().is_ok())
}

/// The lists of src/docs/requirements.md: (list, item, what stands beside it).
fn requirements(text: &str) -> Vec<(String, String, String)> {
    let (mut list, mut found) = ("", Vec::new());
    for line in text.lines() {
        list = line.strip_prefix("## ").unwrap_or(list);
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() > 2 && is_item(cells[1]) {
            found.push((list.to_owned(), cells[1].to_owned(), cells.get(3).copied().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// What is wrong with these lists, beside what tests name.
fn misstated(
    lists: &[(String, String, String)],
    all: &BTreeSet<String>,
    named: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let (mut listed, mut wrong) = (BTreeMap::new(), Vec::new());
    for (list, item, beside) in lists {
        if listed.insert(item, list).is_some() {
            wrong.push(format!("{item} is listed twice"));
        }
        match list.as_str() {
            "Built" if named.get(item).is_some_and(|tests| tests.contains(beside)) => (),
            "Built" => wrong.push(format!("{item}: there is no test {beside} whose comment names it")),
            // A word between backticks is the reason that the answer names.
            "Refused" => match beside.split('`').nth(1) {
                Some(reason) if !REASONS.iter().any(|r| r.word == reason) => {
                    wrong.push(format!("{item}: no answer has the reason {reason}"));
                }
                None if beside.is_empty() => wrong.push(format!("{item}: what is the answer?")),
                _ => (),
            },
            "Not built yet" => (),
            other => wrong.push(format!("{item} is in the list {other:?}")),
        }
    }
    let found: BTreeSet<String> = listed.keys().map(|item| (*item).clone()).collect();
    wrong.extend(all.symmetric_difference(&found).map(|item| format!("{item} is missing, or no item")));
    for (item, tests) in named {
        if listed.get(item).is_none_or(|list| *list != "Built") {
            wrong.push(format!("{item} is named by {tests:?}, and not listed as built"));
        }
    }
    wrong
}

/// Each item of the seeds stands in one list of src/docs/requirements.md: built, beside a test that names it; refused,
/// beside the answer; or not built yet. Tests name built items alone.
#[test]
fn requirements_are_built_with_a_test_or_refused_or_open() {
    let all: BTreeSet<String> = [("S0", 81), ("S1", 55), ("S2", 98), ("S3", 45), ("S4", 213)]
        .into_iter()
        .flat_map(|(seed, items)| (1..=items).map(move |n| format!("{seed}-{n}")))
        .collect();
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files("tests", ".rs").into_iter().chain(files("src", ".rs")) {
        for (item, tests) in named_items(&read(&path)) {
            named.entry(item).or_default().extend(tests);
        }
    }
    let lists = requirements(&read(&root().join("src/docs/requirements.md")));
    let wrong = misstated(&lists, &all, &named);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let source =
        "/// S3-1: x\nstruct A;\n/// S3-2, S3-3:\n/// and S3-4.\n#[tokio::test(flavor = \"x\")]\nasync fn t() {}";
    let named = named_items(source);
    assert_eq!(named.keys().collect::<Vec<_>>(), ["S3-2", "S3-3", "S3-4"]);
    assert_eq!(named["S3-4"], BTreeSet::from(["t".to_owned()]));
    let lists = "## Built\n| S3-2 | a | t |\n| S3-3 | b | u |\n## Refused\n| S3-5 | c | `no_such_reason` |\n| S3-6 | \
        d | |\n\
                 ## Not built yet\n| S3-2 | a |\n| S3-4 | e |";
    let all = ["S3-2", "S3-3", "S3-4", "S3-5", "S3-6", "S3-7"].map(str::to_owned);
    let wrong = misstated(&requirements(lists), &all.into(), &named);
    let of: Vec<&str> = wrong.iter().map(|w| w.split([' ', ':']).next().unwrap()).collect();
    assert_eq!(of, ["S3-3", "S3-5", "S3-6", "S3-2", "S3-7", "S3-2", "S3-4"], "{wrong:#?}");
}
