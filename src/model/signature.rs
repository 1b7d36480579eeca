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
