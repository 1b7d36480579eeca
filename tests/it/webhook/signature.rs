//! What we sign, judged by others: the official libraries of Standard Webhooks (Python's and JavaScript's), and a
//! verifier of ten lines that does what the seed says.

use notihub::clock::Clock;
use notihub::model::signature;
use serde_json::json;

use crate::support::receiver::Recorded;
use crate::webhook::{FORMER, REFUSED, SECRET, flipped, verdicts, verify_all, with_flipped_signatures};

fn signed(secret: &str, former: Option<&str>, id: &str, at: i64, body: &str) -> Recorded {
    let headers = signature::headers(secret, former, id, at, body.as_bytes());
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Recorded { method: "POST".into(), path: "/".into(), headers, body: body.as_bytes().to_vec() }
}

fn without(request: &Recorded, header: &str) -> Recorded {
    let headers = request.headers.iter().filter(|(name, _)| name != header).cloned().collect();
    Recorded { headers, ..request.clone() }
}

/// S0-45, S0-49: verifiers of other authors accept our signatures, also while one secret replaces another, and refuse
/// them when any one bit of the body or of a signature is changed.
#[test]
fn signature_is_verified_by_other_implementations() {
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
fn signature_in_time_is_verified_by_official_libraries() {
    let now = Clock::system().now().timestamp();
    let at = |at: i64| signed(SECRET, None, "0ABCDEFGHJKMN-1-1", at, "{}");
    let found = |at: &Recorded| verdicts([(SECRET, at, None)].into_iter())[0].library;
    assert_eq!([0, -250, 250, -400, 400].map(|off| found(&at(now + off))), [true, true, true, false, false]);
}
