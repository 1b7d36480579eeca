//! Access tokens: JSON Web Tokens with HMAC-SHA256 and no other algorithm. The algorithm is pinned three times: in the
//! check of the header, in the library's validation, and in the only implementation that the library gets.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, Once, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::role::Role;
use crate::crypt::keyed_hash;
use crate::error::{Error, Result};

/// Lifetime of an access token (S0-30).
pub const ACCESS_TTL: TimeDelta = TimeDelta::days(1);
/// Lifetime of a refresh token; each refresh gives a new one.
pub const REFRESH_TTL: TimeDelta = TimeDelta::days(30);

const ISSUER: &str = "notihub";
const AUDIENCE: &str = "notihub/api";
const TYPE: &str = "at+jwt";
/// Longest token that is decoded; ours are shorter.
const MOST_BYTES: usize = 4096;
/// How far ahead `iat` may be, in seconds: clocks of processes differ.
const LEEWAY_S: i64 = 60;

/// The claims of an access token. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    iss: String,
    aud: String,
    /// The client id.
    pub sub: String,
    pub role: String,
    /// The key's epoch at sign-in; a later epoch of the key invalidates the token.
    pub epoch: i32,
    pub iat: i64,
    pub exp: i64,
}

impl Claims {
    /// Claims for a token issued at `now`, valid for `ACCESS_TTL`.
    pub fn new(client_id: &str, role: Role, epoch: i32, now: DateTime<Utc>) -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: client_id.to_owned(),
            role: role.as_str().to_owned(),
            epoch,
            iat: now.timestamp(),
            exp: (now + ACCESS_TTL).timestamp(),
        }
    }
}

/// Why a token is not accepted. Callers only learn that it is invalid or expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    Invalid,
    /// Signed by a key that this process does not have (yet).
    UnknownKey,
    Expired,
}

/// The signing keys, by key id.
#[derive(Default)]
pub struct TokenKeys {
    by_kid: BTreeMap<String, VerifyingKey>,
    /// Claims of tokens with a valid signature: a service sends the same token with each request of a day.
    verified: Mutex<HashMap<String, Claims>>,
}

/// Most verified tokens kept; when reached, all are dropped and verified anew.
const REMEMBERED: usize = 4096;

struct VerifyingKey {
    secret: Vec<u8>,
    active_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl TokenKeys {
    /// Adds a key. It signs from `active_at` on and verifies until `expires_at`.
    pub fn add(&mut self, kid: String, secret: Vec<u8>, active_at: DateTime<Utc>, expires_at: DateTime<Utc>) {
        self.by_kid.insert(kid, VerifyingKey { secret, active_at, expires_at });
    }

    /// Signs claims with the newest active key that outlives the token.
    ///
    /// # Errors
    /// `Error::Internal` if there is no such key or the library fails.
    pub fn sign(&self, claims: &Claims, now: DateTime<Utc>) -> Result<String> {
        provide();
        let lasting = || self.by_kid.iter().filter(|(_, key)| key.expires_at > now + ACCESS_TTL);
        let active = lasting().filter(|(_, key)| key.active_at <= now).max_by_key(|(_, key)| key.active_at);
        // After a clock was set back no key may be active yet; then the first one to become active signs.
        let (kid, key) = active
            .or_else(|| lasting().min_by_key(|(_, key)| key.active_at))
            .ok_or_else(|| Error::Internal("there is no key to sign tokens with".into()))?;
        let header = Header { typ: Some(TYPE.to_owned()), kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&key.secret))
            .map_err(|e| Error::Internal(format!("a token cannot be signed: {e}")))
    }

    /// Verifies a token and returns its claims. Does not check whether its key was revoked: see
    /// `Account::accepts_epoch`.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, TokenRefusal> {
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = self.verify_signature(token, now)?;
                let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
                if verified.len() >= REMEMBERED {
                    verified.clear();
                }
                verified.insert(token.to_owned(), claims.clone());
                claims
            }
        };
        if claims.exp <= now.timestamp() { Err(TokenRefusal::Expired) } else { Ok(claims) }
    }

    /// Checks everything but the expiry. A key outlives every token that it signs.
    fn verify_signature(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, TokenRefusal> {
        provide();
        if token.len() > MOST_BYTES {
            return Err(TokenRefusal::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenRefusal::Invalid)?;
        // A header with further fields, such as embedded keys or key URLs, is not ours.
        let plain = Header { typ: Some(TYPE.to_owned()), kid: header.kid.clone(), ..Header::new(Algorithm::HS256) };
        if header != plain {
            return Err(TokenRefusal::Invalid);
        }
        let key = header.kid.and_then(|kid| self.by_kid.get(&kid)).ok_or(TokenRefusal::UnknownKey)?;
        if key.expires_at <= now {
            return Err(TokenRefusal::Invalid);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        // Times are checked below, by the hub's clock.
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&key.secret), &validation);
        let claims = decoded.map_err(|_| TokenRefusal::Invalid)?.claims;
        let lasts = claims.exp.checked_sub(claims.iat);
        if claims.iat > now.timestamp() + LEEWAY_S || lasts.is_none_or(|s| !(0..=ACCESS_TTL.num_seconds()).contains(&s))
        {
            return Err(TokenRefusal::Invalid);
        }
        Ok(claims)
    }
}

/// Installs the only algorithm that the library may use.
fn provide() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| match (algorithm, key.family()) {
            (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256(key.as_bytes().to_vec()))),
            _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
        },
        verifier_factory: |algorithm, key| match (algorithm, key.family()) {
            (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256(key.try_get_as_bytes()?.to_vec()))),
            _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // No other code installs a provider, so this succeeds.
        let _only = PROVIDER.install_default();
    });
}

struct Hs256(Vec<u8>);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(keyed_hash(&self.0, message).to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let right = crate::crypt::same(&keyed_hash(&self.0, message), signature);
        right.then_some(()).ok_or_else(signature::Error::new)
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}
