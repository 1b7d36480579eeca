//! Webhook signatures, created and verified over the exact bytes sent: the seed's scheme (S0-45, S0-48, S0-49) and
//! Standard Webhooks.
//!
//! A secret is `whsec_` + base64 of 32 random bytes. `X-Signature` uses the UTF-8 bytes of that whole text as its key,
//! as the seed's formula says; `webhook-signature` uses the decoded bytes, as Standard Webhooks says.

use data_encoding::{BASE64, HEXLOWER};

use crate::crypt;

/// The beginning of every secret.
pub const SECRET_PREFIX: &str = "whsec_";
/// Tolerance of a verifier for timestamps, in seconds: the value of Standard Webhooks' libraries.
pub const TOLERANCE_SECONDS: i64 = 300;
/// Longest header that a verifier reads, in bytes: room for about eighty signatures.
const HEADER_BYTES: usize = 4 << 10;

const X_SIGNATURE: &str = "x-signature";
/// The header with the new secret's signature during a rotation.
pub const X_SIGNATURE_NEXT: &str = "x-signature-next";
const X_TIMESTAMP: &str = "x-timestamp";
const WEBHOOK_ID: &str = "webhook-id";
const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// Encodes 32 random bytes as a secret.
pub fn encode_secret(random: &[u8; crypt::KEY_BYTES]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64.encode(random))
}

/// The decoded bytes of a secret; `None` if the text is not `whsec_` and base64 of 24 to 64 bytes.
pub fn decode_secret(secret: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(secret.strip_prefix(SECRET_PREFIX)?.as_bytes()).ok()?;
    (24..=64).contains(&bytes.len()).then_some(bytes)
}

/// The value of `X-Signature`: lower-case hex of HMAC-SHA256 over `timestamp.body`. `timestamp`: Unix seconds.
pub fn seed_signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    HEXLOWER.encode(&crypt::keyed_hash(secret.as_bytes(), &[format!("{timestamp}.").as_bytes(), body].concat()))
}

/// One entry of `webhook-signature`: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. `timestamp`: Unix
/// seconds. `None` if `secret` is not a secret.
pub fn standard_signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    Some(format!("v1,{}", BASE64.encode(&crypt::keyed_hash(&decode_secret(secret)?, &signed))))
}

/// The signature headers of one request: (name, value). `former`: the previous secret during a rotation. `timestamp`:
/// Unix seconds.
///
/// During a rotation `webhook-signature` has an entry for each secret. `X-Signature` stays the previous secret's until
/// the overlap ends, so that verifiers that use it do not break at the moment of the rotation; `X-Signature-Next` is
/// the new one's.
pub fn headers(
    secret: &str,
    former: Option<&str>,
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let entries: Vec<String> = [Some(secret), former]
        .into_iter()
        .flatten()
        .filter_map(|s| standard_signature(s, id, timestamp, body))
        .collect();
    let mut headers = vec![
        (X_SIGNATURE, seed_signature(former.unwrap_or(secret), timestamp, body)),
        (X_TIMESTAMP, timestamp.to_string()),
        (WEBHOOK_ID, id.to_owned()),
        (WEBHOOK_TIMESTAMP, timestamp.to_string()),
        (WEBHOOK_SIGNATURE, entries.join(" ")),
    ];
    if former.is_some() {
        headers.push((X_SIGNATURE_NEXT, seed_signature(secret, timestamp, body)));
    }
    headers
}

/// The result of a verification for each scheme. `None`: the request has no header of that scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct SignatureChecks {
    /// The seed's scheme: a valid `X-Signature` or, of the next secret, `X-Signature-Next` is enough.
    pub seed: Option<Result<VerifiedBy, SignatureFault>>,
    /// Standard Webhooks.
    pub standard: Option<Result<VerifiedBy, SignatureFault>>,
}

impl SignatureChecks {
    /// Whether the request is signed and every signature scheme in it is valid.
    pub fn all_valid(&self) -> bool {
        let mut found = [&self.seed, &self.standard].into_iter().flatten().peekable();
        found.peek().is_some() && found.all(Result::is_ok)
    }
}

/// The header and secret that proved a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedBy {
    pub header: &'static str,
    /// Index of the secret.
    pub secret: usize,
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is given more than once")]
    Repeated(&'static str),
    #[error("{0} is longer than {HEADER_BYTES} bytes")]
    TooLong(&'static str),
    #[error("{0} is not {1}")]
    Malformed(&'static str, &'static str),
    #[error("no signature in {0} matches: a different secret, or the {1} was changed in transit")]
    Differs(&'static str, &'static str),
    /// The signature is valid; its time, this many seconds off, is not.
    #[error("the signature matches, but its time is {} s {} and at most {TOLERANCE_SECONDS} s are accepted: \
        a replayed request, or a clock is wrong",
        .0.unsigned_abs(), if *.0 < 0 { "ago" } else { "ahead" })]
    Time(i64),
}

/// Verifies every signature scheme of a request. `secrets`: any may match. `headers`: (name in any case, value). `now`:
/// Unix seconds; `None` skips the check of the time.
///
/// A signature is compared before its time is checked, so the fault tells which of the two is wrong.
pub fn verify(secrets: &[&str], headers: &[(&str, &[u8])], body: &[u8], now: Option<i64>) -> SignatureChecks {
    let has = |names: &[&str]| headers.iter().any(|(name, _)| names.iter().any(|n| name.eq_ignore_ascii_case(n)));
    let seed = has(&[X_SIGNATURE, X_SIGNATURE_NEXT, X_TIMESTAMP]);
    let standard = has(&[WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE]);
    SignatureChecks {
        seed: seed.then(|| verify_seed(secrets, headers, body, now)),
        standard: standard.then(|| verify_standard(secrets, headers, body, now)),
    }
}

fn verify_seed(
    secrets: &[&str],
    headers: &[(&str, &[u8])],
    body: &[u8],
    now: Option<i64>,
) -> Result<VerifiedBy, SignatureFault> {
    let timestamp = timestamp(headers, X_TIMESTAMP)?;
    let first = needed(headers, X_SIGNATURE)?;
    let next = header(headers, X_SIGNATURE_NEXT)?;
    for (header, given) in [(X_SIGNATURE, Some(first)), (X_SIGNATURE_NEXT, next)] {
        let Some(given) = given else { continue };
        if given.len() != 64 || !given.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(SignatureFault::Malformed(header, "64 lower-case hexadecimal digits"));
        }
        let fits = |secret: &&str| crypt::same(seed_signature(secret, timestamp, body).as_bytes(), given.as_bytes());
        if let Some(secret) = secrets.iter().position(fits) {
            return in_time(timestamp, now).map(|()| VerifiedBy { header, secret });
        }
    }
    Err(SignatureFault::Differs(X_SIGNATURE, "time or the body"))
}

fn verify_standard(
    secrets: &[&str],
    headers: &[(&str, &[u8])],
    body: &[u8],
    now: Option<i64>,
) -> Result<VerifiedBy, SignatureFault> {
    let id = needed(headers, WEBHOOK_ID)?;
    // With a dot in the id, `a.1` at time 2 and `a` at time 1 could sign two different bodies alike.
    if id.is_empty() || id.contains('.') {
        return Err(SignatureFault::Malformed(WEBHOOK_ID, "an id without a dot"));
    }
    let timestamp = timestamp(headers, WEBHOOK_TIMESTAMP)?;
    // Entries of other versions prove nothing to this verifier.
    let entries = needed(headers, WEBHOOK_SIGNATURE)?.split(' ').filter(|entry| entry.starts_with("v1,"));
    let entries: Vec<&str> = entries.filter(|entry| entry.len() == "v1,".len() + 44).collect();
    if entries.is_empty() {
        return Err(SignatureFault::Malformed(WEBHOOK_SIGNATURE, "`v1,` and 32 bytes as base64, or several such"));
    }
    let fits = |secret: &&str| {
        let Some(right) = standard_signature(secret, id, timestamp, body) else { return false };
        entries.iter().any(|entry| crypt::same(entry.as_bytes(), right.as_bytes()))
    };
    let secret =
        secrets.iter().position(fits).ok_or(SignatureFault::Differs(WEBHOOK_SIGNATURE, "id, the time or the body"))?;
    in_time(timestamp, now).map(|()| VerifiedBy { header: WEBHOOK_SIGNATURE, secret })
}

fn in_time(timestamp: i64, now: Option<i64>) -> Result<(), SignatureFault> {
    let off = now.map_or(0, |now| timestamp.saturating_sub(now));
    if off.unsigned_abs() <= TOLERANCE_SECONDS.unsigned_abs() { Ok(()) } else { Err(SignatureFault::Time(off)) }
}

/// Accepted only in the form that we write, because the text itself is signed.
fn timestamp(headers: &[(&str, &[u8])], name: &'static str) -> Result<i64, SignatureFault> {
    let text = needed(headers, name)?;
    let read = text.parse().ok().filter(|n: &i64| n.to_string() == text);
    read.ok_or(SignatureFault::Malformed(name, "a time in Unix seconds"))
}

fn needed<'h>(headers: &[(&str, &'h [u8])], name: &'static str) -> Result<&'h str, SignatureFault> {
    header(headers, name)?.ok_or(SignatureFault::Missing(name))
}

/// A header that may be given once: of two, the verifier and a later reader might use different ones.
fn header<'h>(headers: &[(&str, &'h [u8])], name: &'static str) -> Result<Option<&'h str>, SignatureFault> {
    let mut found = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    let value = found.next();
    if found.next().is_some() {
        return Err(SignatureFault::Repeated(name));
    }
    let Some(value) = value else { return Ok(None) };
    if value.len() > HEADER_BYTES {
        return Err(SignatureFault::TooLong(name));
    }
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| matches!(b, b' '..=b'~')));
    text.map(Some).ok_or(SignatureFault::Malformed(name, "visible ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const ID: &str = "0ABCDEFGHJKMN-1-1";
    const BODY: &[u8] = b"{\"event\":\"delivery.sent\"}";

    type Headers = Vec<(&'static str, Vec<u8>)>;

    fn secrets() -> (String, String) {
        (encode_secret(&[7; crypt::KEY_BYTES]), encode_secret(&[8; crypt::KEY_BYTES]))
    }

    fn signed(secret: &str, former: Option<&str>) -> Headers {
        headers(secret, former, ID, NOW, BODY).into_iter().map(|(n, v)| (n, v.into_bytes())).collect()
    }

    fn found(secret: &str, headers: &Headers, body: &[u8]) -> SignatureChecks {
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        verify(&[secret], &headers, body, Some(NOW))
    }

    fn with(headers: &Headers, name: &str, value: &[u8]) -> Headers {
        headers.iter().map(|(n, v)| (*n, if *n == name { value.to_vec() } else { v.clone() })).collect()
    }

    fn without(headers: &Headers, name: &str) -> Headers {
        headers.iter().filter(|(n, _)| *n != name).cloned().collect()
    }

    fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..bytes.len() * 8).map(move |bit| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
    }

    /// S0-45, S0-49: a signed request verifies, and does not with any one bit changed.
    #[test]
    fn flipped_bit_breaks_every_signature() {
        let (key, _) = secrets();
        let good = signed(&key, None);
        let by = |header| Some(Ok(VerifiedBy { header, secret: 0 }));
        let held = SignatureChecks { seed: by(X_SIGNATURE), standard: by(WEBHOOK_SIGNATURE) };
        assert_eq!(found(&key, &good, BODY), held);
        assert!(held.all_valid());
        for body in flips(BODY) {
            let findings = found(&key, &good, &body);
            assert_eq!(findings.seed, Some(Err(SignatureFault::Differs(X_SIGNATURE, "time or the body"))));
            assert_eq!(
                findings.standard,
                Some(Err(SignatureFault::Differs(WEBHOOK_SIGNATURE, "id, the time or the body")))
            );
        }
        let mut tried = 0;
        for (name, value) in &good {
            for flipped in flips(value) {
                let findings = found(&key, &with(&good, name, &flipped), BODY);
                let mine = if name.starts_with("x-") { &findings.seed } else { &findings.standard };
                assert!(matches!(mine, Some(Err(_))), "{name}: {flipped:?}");
                assert!(!findings.all_valid());
                tried += 1;
            }
        }
        assert_eq!(tried, 8 * (64 + 10 + ID.len() + 10 + 47));
    }

    /// S0-45: while one secret replaces another each holder is served: the former's by `X-Signature`, the new one's by
    /// `X-Signature-Next`, both by `webhook-signature`.
    #[test]
    fn during_a_rotation_both_secrets_verify() {
        let (new, old) = secrets();
        let headers = signed(&new, Some(&old));
        for (key, seed) in [(&old, X_SIGNATURE), (&new, X_SIGNATURE_NEXT)] {
            let findings = found(key, &headers, BODY);
            assert_eq!(findings.seed, Some(Ok(VerifiedBy { header: seed, secret: 0 })));
            assert!(findings.all_valid());
        }
        let stranger = encode_secret(&[9; crypt::KEY_BYTES]);
        let findings = found(&stranger, &headers, BODY);
        assert_eq!(findings.seed, Some(Err(SignatureFault::Differs(X_SIGNATURE, "time or the body"))));
        assert_eq!(
            findings.standard,
            Some(Err(SignatureFault::Differs(WEBHOOK_SIGNATURE, "id, the time or the body")))
        );
        let plain: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        assert_eq!(
            verify(&[&stranger, &old], &plain, BODY, Some(NOW)).standard,
            Some(Ok(VerifiedBy { header: WEBHOOK_SIGNATURE, secret: 1 }))
        );
        assert!(!verify(&[], &plain, BODY, Some(NOW)).all_valid(), "without a secret nothing is proven");
    }

    /// A wrong time is distinguished from a wrong signature, with its difference, exact to the second.
    #[test]
    fn timestamp_fault_names_the_difference() {
        let (key, other) = secrets();
        let signed = signed(&key, None);
        let headers: Vec<(&str, &[u8])> = signed.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        for (now, off) in
            [(NOW, None), (NOW + 300, None), (NOW - 300, None), (NOW + 301, Some(-301)), (NOW - 301, Some(301))]
        {
            let findings = verify(&[&key], &headers, BODY, Some(now));
            for one in [&findings.seed, &findings.standard] {
                assert_eq!(one.as_ref().unwrap().as_ref().err(), off.map(SignatureFault::Time).as_ref(), "{now}");
            }
        }
        assert!(verify(&[&key], &headers, BODY, None).all_valid());
        assert!(matches!(verify(&[&other], &headers, BODY, Some(0)).seed, Some(Err(SignatureFault::Differs(..)))));
        assert!(SignatureFault::Time(-412).to_string().contains("412 s ago"));
        for end in [i64::MAX, i64::MIN] {
            assert!(matches!(verify(&[&key], &headers, BODY, Some(end)).seed, Some(Err(SignatureFault::Time(_)))));
        }
    }

    /// Headers that are ambiguous, truncated or of a weaker version prove nothing.
    #[test]
    fn ambiguous_headers_are_refused() {
        let (key, _) = secrets();
        let good = signed(&key, None);
        let value = |name: &str| String::from_utf8(good.iter().find(|(n, _)| *n == name).unwrap().1.clone()).unwrap();
        let entry = value(WEBHOOK_SIGNATURE);
        let malformed = |headers: &Headers, name: &str| {
            let findings = found(&key, headers, BODY);
            let mine = if name.starts_with("x-") { findings.seed } else { findings.standard };
            assert!(matches!(&mine, Some(Err(SignatureFault::Malformed(at, _))) if *at == name), "{name}: {mine:?}");
        };

        for (name, value) in &good {
            let mut twice = good.clone();
            twice.push((name, value.clone()));
            let findings = found(&key, &twice, BODY);
            let mine = if name.starts_with("x-") { findings.seed } else { findings.standard };
            assert_eq!(mine, Some(Err(SignatureFault::Repeated(name))));
            let gone = found(&key, &without(&good, name), BODY);
            let mine = if name.starts_with("x-") { gone.seed } else { gone.standard };
            assert_eq!(mine, Some(Err(SignatureFault::Missing(name))));
        }
        let none: Headers = Vec::new();
        assert_eq!(found(&key, &none, BODY), SignatureChecks { seed: None, standard: None });
        assert!(!found(&key, &none, BODY).all_valid(), "what is not signed is not proven");

        // A MAC that is cut off would be easier to guess.
        for (name, length) in [(X_SIGNATURE, 64), (WEBHOOK_SIGNATURE, 47)] {
            for cut in 0..length {
                malformed(&with(&good, name, &value(name).as_bytes()[..cut]), name);
            }
        }
        malformed(&with(&good, X_SIGNATURE, value(X_SIGNATURE).to_uppercase().as_bytes()), X_SIGNATURE);
        malformed(&with(&good, WEBHOOK_SIGNATURE, entry.trim_end_matches('=').as_bytes()), WEBHOOK_SIGNATURE);
        for downgraded in ["v0,", "v2,", "v1a,", "V1,", ",", ""] {
            let entry = format!("{downgraded}{}", &entry[3..]);
            malformed(&with(&good, WEBHOOK_SIGNATURE, entry.as_bytes()), WEBHOOK_SIGNATURE);
        }
        // A valid entry counts among others at any position; a header that is too long is not read.
        let noise = format!("v1,{} v0,x v1a,{} junk", BASE64.encode(&[0; 32]), "A".repeat(88));
        for entries in [format!("{entry} {noise}"), format!("{noise} {entry}")] {
            assert!(found(&key, &with(&good, WEBHOOK_SIGNATURE, entries.as_bytes()), BODY).all_valid());
        }
        let thousand = [entry.as_str()].repeat(1000).join(" ");
        let findings = found(&key, &with(&good, WEBHOOK_SIGNATURE, thousand.as_bytes()), BODY);
        assert_eq!(findings.standard, Some(Err(SignatureFault::TooLong(WEBHOOK_SIGNATURE))));

        for time in ["", "+1800000000", "01800000000", "1800000000.0", "1.8e9", " 1800000000", "18446744073709551616"] {
            malformed(&with(&good, X_TIMESTAMP, time.as_bytes()), X_TIMESTAMP);
            malformed(&with(&good, WEBHOOK_TIMESTAMP, time.as_bytes()), WEBHOOK_TIMESTAMP);
        }
        malformed(&with(&good, WEBHOOK_ID, "é".as_bytes()), WEBHOOK_ID);
        let upper: Vec<(&str, &[u8])> =
            good.iter().map(|(n, v)| (if *n == X_SIGNATURE { "X-Signature" } else { *n }, v.as_slice())).collect();
        assert!(verify(&[&key], &upper, BODY, Some(NOW)).all_valid(), "names of headers have no case");
    }

    /// A point in an id would let one signature stand for two requests.
    #[test]
    fn signature_does_not_fit_two_requests() {
        let (key, _) = secrets();
        let honest = headers(&key, None, "a.1", NOW, b"x");
        let stolen = headers(&key, None, "a", 1, format!("{NOW}.x").as_bytes());
        assert_eq!(honest[4], stolen[4], "the same text is signed");
        for (headers, body) in [(&honest, b"x".to_vec()), (&stolen, format!("{NOW}.x").into_bytes())] {
            let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
            let standard = verify(&[&key], &headers, &body, None).standard;
            assert_eq!(standard.is_some_and(|found| found.is_ok()), headers[2].1 == b"a");
        }
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    /// S0-45: the example that the libraries of Standard Webhooks test themselves with.
    #[test]
    fn standard_webhooks_example_verifies() {
        let signature =
            standard_signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    /// S0-45, S0-48: openssl's word for it: `printf '1614265330.{"test": 2432232314}' | openssl dgst -sha256 -hmac
    /// whsec_…`
    #[test]
    fn seed_signature_uses_the_whole_secret_text() {
        let hex = "2e37df5d4a028c51a7f3133d64ae1e300d2c2c900f1b1d49d4369ad2530f8964";
        assert_eq!(seed_signature(SECRET, 1_614_265_330, br#"{"test": 2432232314}"#), hex);
    }

    /// S0-45, S0-48, S0-49: during a rotation both secrets verify.
    #[test]
    fn rotation_signs_with_both_secrets() {
        let alone = headers(SECRET, None, "1-2-3", 7, b"{}");
        let both = headers(OTHER, Some(SECRET), "1-2-3", 7, b"{}");
        let of = |all: &[(&'static str, String)], name: &str| all.iter().find(|h| h.0 == name).map(|h| h.1.clone());
        for (name, value) in [("x-timestamp", "7"), ("webhook-id", "1-2-3"), ("webhook-timestamp", "7")] {
            assert_eq!((of(&alone, name).as_deref(), of(&both, name).as_deref()), (Some(value), Some(value)));
        }
        assert_eq!(of(&alone, "x-signature"), of(&both, "x-signature"), "who verifies by the former secret goes on");
        assert_eq!((of(&alone, "x-signature-next"), alone.len()), (None, 5));
        assert_eq!(of(&both, "x-signature-next"), Some(seed_signature(OTHER, 7, b"{}")));
        let [new, former] = [OTHER, SECRET].map(|secret| standard_signature(secret, "1-2-3", 7, b"{}").unwrap());
        assert_eq!(of(&both, "webhook-signature"), Some(format!("{new} {former}")));
    }

    #[test]
    fn secrets_decode_and_other_texts_do_not() {
        assert_eq!(decode_secret(&encode_secret(&[7; crypt::KEY_BYTES])), Some(vec![7; crypt::KEY_BYTES]));
        let short = format!("{SECRET_PREFIX}{}", BASE64.encode(&[7; 23]));
        let long = format!("{SECRET_PREFIX}{}", BASE64.encode(&[7; 65]));
        for text in ["", SECRET_PREFIX, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", short.as_str(), long.as_str()] {
            assert_eq!(decode_secret(text), None, "{text}");
        }
    }
}
