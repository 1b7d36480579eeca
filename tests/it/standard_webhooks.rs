//! What we sign, judged by others: the official libraries of Standard Webhooks (Python's and JavaScript's), and a verifier of
//! ten lines that does what the seed says.

use std::fs::File;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, HEXLOWER};
use notihub::clock::Clock;
use notihub::model::signature;
use serde_json::{Value, json};

use crate::laws::root;
use crate::processes::Folder;
use crate::receiver::Recorded;
use crate::support::is_there;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const FORMER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1c0y";

/// What each verifier says of a request. The clock of the libraries stands at the time the request is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// By `webhook-signature`: the library for Python and, where there is Node, the one for JavaScript, which must agree.
    pub library: bool,
    /// By `X-Signature`, or the one that comes next.
    pub seed: bool,
}

const HOLDS: Verdict = Verdict { library: true, seed: true };
const REFUSED: Verdict = Verdict { library: false, seed: false };

/// Every request is taken by every verifier that has its secret, and by none when one bit of it is changed: of the body, of
/// its signatures, of the time; of the id, which the seed's signature does not cover, by no library.
pub fn verify_all<'r>(requests: impl IntoIterator<Item = (&'r str, &'r Recorded)>) {
    let mut cases = Vec::new();
    for (n, (secret, request)) in requests.into_iter().enumerate() {
        let at = request.header("webhook-timestamp").parse().ok();
        let mut case = |what, request, expected| cases.push((what, secret, request, at, expected));
        case("as it came", request.clone(), HOLDS);
        case("body", Recorded { body: flipped(&request.body, n * 7), ..request.clone() }, REFUSED);
        case("signatures", with_flipped_signatures(request, n), REFUSED);
        let last = |value: &str| text(flipped(value.as_bytes(), value.len() * 8 - 8));
        let time = |name: &str, value: &str| if name.ends_with("-timestamp") { last(value) } else { value.to_owned() };
        case("time", with_headers(request, time), REFUSED);
        let id = |name: &str, value: &str| if name == "webhook-id" { last(value) } else { value.to_owned() };
        case("id", with_headers(request, id), Verdict { library: false, seed: true });
    }
    assert!(!cases.is_empty(), "nothing to verify");
    let found = verdicts(cases.iter().map(|(_, secret, request, at, _)| (*secret, request, *at)));
    for ((what, secret, request, _, expected), found) in cases.iter().zip(found) {
        assert_eq!(found, *expected, "{what} ({secret}): {request:?}");
    }
}

/// `at`: what the clock says when it is verified; none: the real time.
pub fn verdicts<'r>(cases: impl Iterator<Item = (&'r str, &'r Recorded, Option<i64>)>) -> Vec<Verdict> {
    let (folder, mut lines, mut count) = (Folder::new(), String::new(), 0);
    for (secret, request, at) in cases {
        let body = BASE64.encode(&request.body);
        lines += &format!("{}\n", json!({"secret": secret, "headers": request.headers, "body": body, "at": at}));
        count += 1;
    }
    let asked = folder.path().join("requests");
    std::fs::write(&asked, lines).unwrap();
    let ask = |program: &str, script: &str, args: &[String]| -> Vec<Value> {
        let mut command = Command::new(program);
        command.arg(root().join("tests/fixtures").join(script)).args(args).stdin(File::open(&asked).unwrap());
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
        let answers = String::from_utf8(ran.stdout).unwrap();
        let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), count, "{script} answers every line");
        answers
    };
    let python = ask(python("standardwebhooks"), "standard_webhooks.py", &[]);
    if let Some(folder) = node_library() {
        let node = ask("node", "standard_webhooks.mjs", &[folder]);
        for (n, (python, node)) in python.iter().zip(node).enumerate() {
            assert_eq!(python["library"], node["library"], "the libraries disagree about the request number {n}");
        }
    }
    let verdict = |answer: &Value| Verdict {
        library: answer["library"].as_bool().unwrap(),
        seed: answer["seed"].as_bool().unwrap(),
    };
    python.iter().map(verdict).collect()
}

/// A Python that has this package. The system's is asked too: a distribution's package serves that one, whichever comes first
/// in PATH.
pub fn python(package: &str) -> &'static str {
    let has = |python: &&str| {
        let import = format!("import {package}");
        let asked = Command::new(python).args(["-c", &import]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    found.unwrap_or_else(|| panic!("this test needs a Python package: `pip install {package}`, as .ci/run does"))
}

/// Where `.ci/run` puts the library for JavaScript; none on a machine without Node and npm.
#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn node_library() -> Option<String> {
    let folder = root().join("target/npm");
    if !is_there("node") || !is_there("npm") {
        println!("the library for JavaScript is skipped: there is no node with npm here");
        return None;
    }
    assert!(
        folder.join("node_modules/standardwebhooks").is_dir(),
        "this test needs a package: `npm install --prefix target/npm standardwebhooks@1.1.1`, as .ci/run does"
    );
    Some(folder.to_str().unwrap().to_owned())
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let (mut flipped, bit) = (bytes.to_vec(), bit % (bytes.len() * 8));
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn with_headers(request: &Recorded, change: impl Fn(&str, &str) -> String) -> Recorded {
    let headers = request.headers.iter().map(|(name, value)| (name.clone(), change(name, value))).collect();
    Recorded { headers, ..request.clone() }
}

/// With one bit changed of every MAC: the bits that were computed, not those of how they are written, of which base64 has two
/// that mean nothing.
fn with_flipped_signatures(request: &Recorded, bit: usize) -> Recorded {
    let entry = |entry: &str| {
        let mac = BASE64.decode(entry.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
        format!("v1,{}", BASE64.encode(&flipped(&mac, bit)))
    };
    with_headers(request, |name, value| match name {
        "x-signature" | "x-signature-next" => {
            HEXLOWER.encode(&flipped(&HEXLOWER.decode(value.as_bytes()).unwrap(), bit))
        }
        "webhook-signature" => value.split(' ').map(entry).collect::<Vec<_>>().join(" "),
        _ => value.to_owned(),
    })
}

fn signed(secret: &str, former: Option<&str>, id: &str, at: i64, body: &str) -> Recorded {
    let headers = signature::headers(secret, former, id, at, body.as_bytes());
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Recorded { method: "POST".into(), path: "/".into(), headers, body: body.as_bytes().to_vec() }
}

fn without(request: &Recorded, header: &str) -> Recorded {
    let headers = request.headers.iter().filter(|(name, _)| name != header).cloned().collect();
    Recorded { headers, ..request.clone() }
}

/// S0-45, S0-49: what we sign is taken by verifiers that others wrote, also while one secret replaces another, and is not when
/// any one bit of the body or of a signature is changed.
#[test]
fn others_verify_what_we_sign() {
    let at = 1_800_000_000;
    let korean = json!({"event": "delivery.failed", "errorReason": "한글 🎉 \u{0} \" \\ \u{2028}"}).to_string();
    let ordinary = signed(SECRET, None, "0ABCDEFGHJKMN-1-1", at, &korean);
    let rotating = signed(SECRET, Some(FORMER), "0ABCDEFGHJKMN-1-1", at, &korean);
    let later = signed(SECRET, Some(FORMER), "0ABCDEFGHJKMN-1-1", at + 86_400, &korean);
    verify_all([(SECRET, &ordinary), (SECRET, &rotating), (FORMER, &rotating), (SECRET, &later), (FORMER, &later)]);

    // The former's own header stays X-Signature; the new one's is the next.
    let by_seed = |secret, request: &Recorded| verdicts([(secret, request, Some(at))].into_iter())[0].seed;
    assert!(by_seed(FORMER, &without(&rotating, "x-signature-next")));
    assert!(!by_seed(SECRET, &without(&rotating, "x-signature-next")));
    assert!(by_seed(SECRET, &without(&rotating, "x-signature")));
    assert!(!by_seed(FORMER, &without(&rotating, "x-signature")));

    // Every bit of a small one.
    let small = signed(SECRET, Some(FORMER), "a-1-1", at, "{\"n\":1}");
    let mut changed: Vec<Recorded> =
        (0..small.body.len() * 8).map(|bit| Recorded { body: flipped(&small.body, bit), ..small.clone() }).collect();
    changed.extend((0..256).map(|bit| with_flipped_signatures(&small, bit)));
    for secret in [SECRET, FORMER] {
        let found = verdicts(changed.iter().map(|request| (secret, request, Some(at))));
        assert!(found.iter().all(|verdict| *verdict == REFUSED) && found.len() == 7 * 8 + 256);
    }
    assert_eq!(verdicts([("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &small, Some(at))].into_iter()), [REFUSED]);
}

/// The libraries as they are, with the real clock: they take what is signed now, and nothing five minutes off.
#[test]
fn libraries_take_what_is_signed_in_time() {
    let now = Clock::system().now().timestamp();
    let at = |at: i64| signed(SECRET, None, "0ABCDEFGHJKMN-1-1", at, "{}");
    let found = |at: &Recorded| verdicts([(SECRET, at, None)].into_iter())[0].library;
    assert_eq!([0, -250, 250, -400, 400].map(|off| found(&at(now + off))), [true, true, true, false, false]);
}
