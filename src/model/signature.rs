//! Webhook signatures, made and checked: the seed's (S0-45, S0-48, S0-49) and those of Standard Webhooks, over the exact
//! bytes sent.
//!
//! A secret is `whsec_` + base64 of 32 random bytes. `X-Signature` is keyed with the UTF-8 bytes of that whole text, as the
//! seed's formula reads; `webhook-signature` with the decoded bytes, as that specification says.

use data_encoding::{BASE64, HEXLOWER};

use crate::crypt;

pub const PREFIX: &str = "whsec_";
/// How far a timestamp may be off for a verifier, in seconds: what Standard Webhooks' libraries allow.
pub const TOLERANCE_SECONDS: i64 = 300;

/// A new secret.
pub fn secret(random: &[u8; crypt::KEY_BYTES]) -> String {
    format!("{PREFIX}{}", BASE64.encode(random))
}

/// Whether a text is a secret, and its decoded bytes.
pub fn decode(secret: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(secret.strip_prefix(PREFIX)?.as_bytes()).ok()?;
    (24..=64).contains(&bytes.len()).then_some(bytes)
}

/// `X-Signature`: lower-case hex of HMAC-SHA256 over `timestamp.body`.
pub fn seed(secret: &str, timestamp: i64, body: &[u8]) -> String {
    HEXLOWER.encode(&crypt::keyed_hash(secret.as_bytes(), &[format!("{timestamp}.").as_bytes(), body].concat()))
}

/// One entry of `webhook-signature`: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. None when the secret is not one.
pub fn standard(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    Some(format!("v1,{}", BASE64.encode(&crypt::keyed_hash(&decode(secret)?, &signed))))
}

/// The headers of one request: name, value.
///
/// While one secret replaces another `webhook-signature` has an entry for each, and `X-Signature` stays the former's until
/// the overlap is over, so that nobody who verifies by it breaks at the moment of the rotation; `X-Signature-Next` is the
/// new one's.
pub fn headers(
    secret: &str,
    former: Option<&str>,
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let entries: Vec<String> =
        [Some(secret), former].into_iter().flatten().filter_map(|s| standard(s, id, timestamp, body)).collect();
    let mut headers = vec![
        ("x-signature", seed(former.unwrap_or(secret), timestamp, body)),
        ("x-timestamp", timestamp.to_string()),
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", entries.join(" ")),
    ];
    if former.is_some() {
        headers.push(("x-signature-next", seed(secret, timestamp, body)));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    /// S0-45: the example that the libraries of Standard Webhooks test themselves with.
    #[test]
    fn standard_webhooks_own_example() {
        let signature = standard(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    /// S0-45, S0-48: openssl's word for it: `printf '1614265330.{"test": 2432232314}' | openssl dgst -sha256 -hmac whsec_…`
    #[test]
    fn the_seeds_signature_is_keyed_with_the_secret_as_it_is_written() {
        let hex = "2e37df5d4a028c51a7f3133d64ae1e300d2c2c900f1b1d49d4369ad2530f8964";
        assert_eq!(seed(SECRET, 1_614_265_330, br#"{"test": 2432232314}"#), hex);
    }

    /// S0-45, S0-48, S0-49: during a rotation both secrets verify.
    #[test]
    fn a_rotation_signs_with_both() {
        let alone = headers(SECRET, None, "1-2-3", 7, b"{}");
        let both = headers(OTHER, Some(SECRET), "1-2-3", 7, b"{}");
        let of = |all: &[(&'static str, String)], name: &str| all.iter().find(|h| h.0 == name).map(|h| h.1.clone());
        for (name, value) in [("x-timestamp", "7"), ("webhook-id", "1-2-3"), ("webhook-timestamp", "7")] {
            assert_eq!((of(&alone, name).as_deref(), of(&both, name).as_deref()), (Some(value), Some(value)));
        }
        assert_eq!(of(&alone, "x-signature"), of(&both, "x-signature"), "who verifies by the former secret goes on");
        assert_eq!((of(&alone, "x-signature-next"), alone.len()), (None, 5));
        assert_eq!(of(&both, "x-signature-next"), Some(seed(OTHER, 7, b"{}")));
        let [new, former] = [OTHER, SECRET].map(|secret| standard(secret, "1-2-3", 7, b"{}").unwrap());
        assert_eq!(of(&both, "webhook-signature"), Some(format!("{new} {former}")));
    }

    #[test]
    fn secrets_are_told_from_other_texts() {
        assert_eq!(decode(&secret(&[7; crypt::KEY_BYTES])), Some(vec![7; crypt::KEY_BYTES]));
        let short = format!("{PREFIX}{}", BASE64.encode(&[7; 23]));
        let long = format!("{PREFIX}{}", BASE64.encode(&[7; 65]));
        for text in ["", PREFIX, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", short.as_str(), long.as_str()] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
