//! Access tokens: JSON Web Tokens with HMAC-SHA256 and no other algorithm. The algorithm is pinned three times: in the
//! check of the header, in the library's validation, and in the only implementation that the library gets.
//!
//! There are three kinds of token: a client's and a user's are signed by this hub, a subscriber token by a partner's
//! server. Keys and audiences differ, so that none is accepted in place of another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, Once, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::role::Role;
use crate::crypt::keyed_hash;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::user::User;

/// Lifetime of an access token (S0-30).
pub const ACCESS_TTL: TimeDelta = TimeDelta::days(1);
/// Lifetime of a refresh token; each refresh gives a new one.
pub const REFRESH_TTL: TimeDelta = TimeDelta::days(30);
/// Lifetime of a user's access token (S4-42).
pub const USER_ACCESS_TTL: TimeDelta = TimeDelta::hours(1);
/// Longest lifetime of a token that a partner's server signs for its user.
pub const SUBSCRIBER_TTL: TimeDelta = TimeDelta::hours(24);

const ISSUER: &str = "notihub";
const AUDIENCE: &str = "notihub/api";
const USER_AUDIENCE: &str = "notihub/user";
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

/// The claims of a user's access token. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserClaims {
    iss: String,
    aud: String,
    /// The user's id.
    pub sub: String,
    /// The name to sign in with, for clients to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// The partner's id.
    pub pid: String,
    /// The family of refresh tokens that the token belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    pub iat: i64,
    pub exp: i64,
}

impl UserClaims {
    /// Claims for a token of `user` issued at `now`, valid for `USER_ACCESS_TTL`.
    pub fn new(user: &User, sid: Option<Tsid>, now: DateTime<Utc>) -> UserClaims {
        let iat = user.issue_second(now);
        UserClaims {
            iss: ISSUER.to_owned(),
            aud: USER_AUDIENCE.to_owned(),
            sub: user.user_id.to_string(),
            username: user.username.clone(),
            pid: user.partner_id.to_string(),
            sid: sid.map(|sid| sid.to_string()),
            iat,
            exp: iat + USER_ACCESS_TTL.num_seconds(),
        }
    }
}

/// What `TokenKeys` signs and verifies.
trait HubClaims: Serialize + DeserializeOwned + Clone {
    const AUDIENCE: &'static str;
    const TTL: TimeDelta;
    /// Times of issue and expiry.
    fn times(&self) -> (i64, i64);
}

impl HubClaims for Claims {
    const AUDIENCE: &'static str = AUDIENCE;
    const TTL: TimeDelta = ACCESS_TTL;
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
    }
}

impl HubClaims for UserClaims {
    const AUDIENCE: &'static str = USER_AUDIENCE;
    const TTL: TimeDelta = USER_ACCESS_TTL;
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
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
    verified: Verified<Claims>,
    /// The same of users' tokens.
    verified_users: Verified<UserClaims>,
}

type Verified<C> = Mutex<HashMap<String, C>>;

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

    /// Signs a client's claims with the newest active key that outlives the token.
    ///
    /// # Errors
    /// `Error::Internal` if there is no such key or the library fails.
    pub fn sign(&self, claims: &Claims, now: DateTime<Utc>) -> Result<String> {
        self.sign_any(claims, now)
    }

    /// Signs a user's claims, as `sign`.
    ///
    /// # Errors
    /// `Error::Internal` if there is no such key or the library fails.
    pub fn sign_user(&self, claims: &UserClaims, now: DateTime<Utc>) -> Result<String> {
        self.sign_any(claims, now)
    }

    fn sign_any(&self, claims: &impl HubClaims, now: DateTime<Utc>) -> Result<String> {
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

    /// Verifies a client's token and returns its claims. Does not check whether its key was revoked: see
    /// `Account::accepts_epoch`.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, TokenRefusal> {
        self.verify_any(&self.verified, token, now)
    }

    /// Verifies a user's token and returns its claims. Does not check whether it was revoked: see
    /// `User::accepts_token_of` and the family of its refresh tokens.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn verify_user(&self, token: &str, now: DateTime<Utc>) -> Result<UserClaims, TokenRefusal> {
        self.verify_any(&self.verified_users, token, now)
    }

    fn verify_any<C: HubClaims>(
        &self,
        verified: &Verified<C>,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<C, TokenRefusal> {
        let known = verified.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = self.verify_signature::<C>(token, now)?;
                let mut verified = verified.lock().unwrap_or_else(PoisonError::into_inner);
                if verified.len() >= REMEMBERED {
                    verified.clear();
                }
                verified.insert(token.to_owned(), claims.clone());
                claims
            }
        };
        if claims.times().1 <= now.timestamp() { Err(TokenRefusal::Expired) } else { Ok(claims) }
    }

    /// Checks everything but the expiry. A key outlives every token that it signs.
    fn verify_signature<C: HubClaims>(&self, token: &str, now: DateTime<Utc>) -> Result<C, TokenRefusal> {
        // A header with further fields, such as embedded keys or key URLs, is not ours.
        let kid = kid_of(token, TYPE).ok_or(TokenRefusal::Invalid)?;
        let key = self.by_kid.get(&kid).ok_or(TokenRefusal::UnknownKey)?;
        if key.expires_at <= now {
            return Err(TokenRefusal::Invalid);
        }
        let claims: C = decode(token, &key.secret, ISSUER, C::AUDIENCE)?;
        let (iat, exp) = claims.times();
        check_times(iat, exp, C::TTL, now)?;
        Ok(claims)
    }
}

/// The key id of a token whose header names that type, HS256, the key id and nothing else.
fn kid_of(token: &str, typ: &str) -> Option<String> {
    provide();
    if token.len() > MOST_BYTES {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    let plain = Header { typ: Some(typ.to_owned()), kid: header.kid.clone(), ..Header::new(Algorithm::HS256) };
    if header == plain { header.kid } else { None }
}

/// Verifies signature, issuer and audience. Times are checked by the caller, by the hub's clock.
fn decode<C: DeserializeOwned + Clone>(
    token: &str,
    secret: &[u8],
    issuer: &str,
    audience: &str,
) -> Result<C, TokenRefusal> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_exp = false;
    let decoded = jsonwebtoken::decode::<C>(token, &DecodingKey::from_secret(secret), &validation);
    Ok(decoded.map_err(|_| TokenRefusal::Invalid)?.claims)
}

/// Checks that a token was issued in the past and is not valid for longer than `longest`.
fn check_times(iat: i64, exp: i64, longest: TimeDelta, now: DateTime<Utc>) -> Result<(), TokenRefusal> {
    let lasts = exp.checked_sub(iat);
    let is_right = iat <= now.timestamp() + LEEWAY_S && lasts.is_some_and(|s| (0..=longest.num_seconds()).contains(&s));
    if is_right { Ok(()) } else { Err(TokenRefusal::Invalid) }
}

/// Type in the header of a subscriber token; the usual one of libraries.
const SUBSCRIBER_TYPE: &str = "JWT";

/// The partner and the number of its user key that a subscriber token names: `u.{partnerId}.{number}`. None for any
/// other token.
pub fn subscriber_key_of(token: &str) -> Option<(Tsid, i16)> {
    let kid = kid_of(token, SUBSCRIBER_TYPE)?;
    let (partner, number) = kid.strip_prefix("u.")?.split_once('.')?;
    Some((partner.parse().ok()?, number.parse().ok()?))
}

/// The key id of a partner's user key.
pub fn subscriber_kid(partner_id: Tsid, number: i16) -> String {
    format!("u.{partner_id}.{number}")
}

/// The claims of a token that a partner's server signed for its user. Further claims are ignored, as RFC 7519 asks.
#[derive(Debug, Clone, Deserialize)]
pub struct SubscriberClaims {
    /// The partner's own id of the user.
    pub sub: String,
    pub nickname: Option<String>,
    /// Web address of the user's picture.
    pub picture: Option<String>,
    pub locale: Option<String>,
    iat: f64,
    exp: f64,
    nbf: Option<f64>,
}

impl SubscriberClaims {
    /// The Unix second of expiry.
    pub fn expires_at(&self) -> i64 {
        second(self.exp)
    }

    /// The Unix second of issue.
    pub fn issued_at(&self) -> i64 {
        second(self.iat)
    }
}

/// A time of a token in whole seconds. RFC 7519 allows fractions.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and such a time is refused")]
fn second(time: f64) -> i64 {
    time.floor() as i64
}

/// Verifies a subscriber token by the partner's user key `secret`.
///
/// # Errors
/// Why the token is not accepted.
pub fn verify_subscriber(
    token: &str,
    partner_id: Tsid,
    secret: &str,
    now: DateTime<Utc>,
) -> Result<SubscriberClaims, TokenRefusal> {
    let claims: SubscriberClaims = decode(token, secret.as_bytes(), &partner_id.to_string(), USER_AUDIENCE)?;
    let (iat, exp) = (second(claims.iat), second(claims.exp));
    check_times(iat, exp, SUBSCRIBER_TTL, now)?;
    if claims.nbf.is_some_and(|from| second(from) > now.timestamp() + LEEWAY_S) {
        return Err(TokenRefusal::Invalid);
    }
    if exp <= now.timestamp() { Err(TokenRefusal::Expired) } else { Ok(claims) }
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
