//! Devices of users: platforms of pushes, and the form of their tokens.

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

/// Bytes of a token; those of the platforms have a few hundred.
pub const TOKEN_BYTES: usize = 4_096;
/// Characters of an app's name.
pub const APP_CHARS: usize = 100;

/// A platform of pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    Fcm,
    Apns,
    Webpush,
}

/// Every platform.
pub const PLATFORMS: [Platform; 3] = [Platform::Fcm, Platform::Apns, Platform::Webpush];

impl Platform {
    /// The stable word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Platform::Fcm => "FCM",
            Platform::Apns => "APNS",
            Platform::Webpush => "WEBPUSH",
        }
    }

    /// Why a text is no token of this platform, as a sentence about it without its subject. None: it is one.
    pub fn token_fault(self, token: &str) -> Option<&'static str> {
        match self {
            Platform::Fcm | Platform::Apns if token.bytes().all(|b| b.is_ascii_graphic()) => None,
            Platform::Fcm | Platform::Apns => Some("has characters that no token of the platform has"),
            Platform::Webpush if is_subscription(token) => None,
            Platform::Webpush => {
                Some("is not the JSON of a PushSubscription: {endpoint: https URL, keys: {p256dh, auth}}")
            }
        }
    }
}

/// Whether a text is the JSON of a browser's PushSubscription: 65 bytes of a public key and 16 of a secret.
fn is_subscription(text: &str) -> bool {
    let Ok(subscription) = serde_json::from_str::<Value>(text) else { return false };
    let is_key = |name: &str, bytes: usize| {
        let key = subscription["keys"][name].as_str().map(|key| key.trim_end_matches('='));
        key.and_then(|key| BASE64URL_NOPAD.decode(key.as_bytes()).ok()).is_some_and(|key| key.len() == bytes)
    };
    let endpoint = subscription["endpoint"].as_str().and_then(|url| url::Url::parse(url).ok());
    endpoint.is_some_and(|url| url.scheme() == "https") && is_key("p256dh", 65) && is_key("auth", 16)
}

impl std::str::FromStr for Platform {
    type Err = ();
    fn from_str(text: &str) -> Result<Platform, ()> {
        PLATFORMS.into_iter().find(|p| p.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscription_of_a_browser_is_a_token() {
        let key = |bytes| BASE64URL_NOPAD.encode(&vec![4; bytes]);
        let right = format!(
            "{{\"endpoint\": \"https://push.example/x\", \"keys\": {{\"p256dh\": \"{}\", \"auth\": \"{}\"}}}}",
            key(65),
            key(16)
        );
        assert_eq!(Platform::Webpush.token_fault(&right), None);
        for wrong in
            [right.replace("https", "http"), right.replace("auth", "oath"), right.replace(&key(65), "BA"), "x".into()]
        {
            assert!(Platform::Webpush.token_fault(&wrong).is_some(), "{wrong}");
        }
        assert_eq!(Platform::Fcm.token_fault("abc:DEF-123_x"), None);
        assert!(Platform::Apns.token_fault("a b").is_some());
    }
}
