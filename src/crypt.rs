//! Generation, hashing and encryption at rest of secrets.
//!
//! A sealed value is bound to its place (the additional data names table, column and row), so that a value copied into
//! another row does not open there.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Length of master keys and of hashed secrets.
pub const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const ID_BYTES: usize = 4;
/// First byte of a sealed value: its format, so that another format can follow.
const FORM: u8 = 1;

/// Makes a new secret: `prefix`, and 256 random bits as base64url.
pub fn secret(prefix: &str) -> String {
    format!("{prefix}{}", BASE64URL_NOPAD.encode(&random()))
}

/// Returns 256 random bits from the operating system's generator.
pub fn random() -> [u8; KEY_BYTES] {
    rand::random()
}

/// HMAC-SHA256. Our secrets have 256 random bits and cannot be guessed, so they need no slow hash.
pub fn keyed_hash(key: &[u8], text: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any key length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// Returns the SCRAM-SHA-256 verifier (RFC 5802) by which PostgreSQL stores a password, so that the password itself is
/// neither sent nor logged. None if it has characters beyond printable ASCII, which would have to be normalised first.
pub fn scram_verifier(password: &str) -> Option<String> {
    const ITERATIONS: usize = 4096;
    if !password.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return None;
    }
    let salt = &random()[..16];
    // PBKDF2 with one block of output.
    let mut last = keyed_hash(password.as_bytes(), &[salt, &1_u32.to_be_bytes()].concat());
    let mut salted = last;
    for _ in 1..ITERATIONS {
        last = keyed_hash(password.as_bytes(), &last);
        salted.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    let stored_key = Sha256::digest(keyed_hash(&salted, b"Client Key"));
    let server_key = keyed_hash(&salted, b"Server Key");
    let [salt, stored_key, server_key] = [salt, stored_key.as_slice(), &server_key].map(|bytes| BASE64.encode(bytes));
    Some(format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored_key}:{server_key}"))
}

/// Hashes a password: bcrypt (`$2b$`) over the base64 of HMAC-SHA256(pepper, password), because bcrypt reads only 72
/// bytes and stops at NUL, and a stolen database alone is not enough to guess passwords. Takes a quarter of a second of
/// a core at cost 12: run it on a thread of its own.
///
/// # Errors
/// `Error::Internal` if the cost is out of bcrypt's range.
pub fn hash_password(pepper: &[u8], password: &str, cost: u32) -> Result<String> {
    let salt: [u8; 16] = rand::random();
    let parts = bcrypt::hash_with_salt(peppered(pepper, password), cost, salt);
    let parts = parts.map_err(|e| Error::Internal(format!("a password cannot be hashed: {e}")))?;
    Ok(parts.format_for_version(bcrypt::Version::TwoB))
}

/// Returns whether a password has this hash. Without a hash it does the work of one of that cost and returns false.
pub fn verify_password(pepper: &[u8], password: &str, hash: Option<&str>, cost: u32) -> bool {
    // A well-formed hash that no password has in practice.
    let none = format!("$2b${cost:02}${}", ".".repeat(53));
    let same = bcrypt::verify(peppered(pepper, password), hash.unwrap_or(&none)).unwrap_or(false);
    same && hash.is_some()
}

/// Returns the cost with which a password was hashed.
pub fn password_cost(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

fn peppered(pepper: &[u8], password: &str) -> String {
    BASE64.encode(&keyed_hash(pepper, password.as_bytes()))
}

/// Compares two hashes in constant time.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The master keys: the first seals, all open. To replace a key, give every process the new one behind the old one, so
/// that all can open values sealed under it; then in front of it; then run `notihub key reseal`, and remove the old
/// one.
#[derive(Clone)]
pub struct Keyring(Vec<([u8; ID_BYTES], XChaCha20Poly1305)>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring of {}", self.0.len())
    }
}

impl Keyring {
    /// Makes a keyring; the first key seals.
    pub fn new(keys: impl IntoIterator<Item = [u8; KEY_BYTES]>) -> Keyring {
        let id = |key: &[u8]| -> [u8; ID_BYTES] {
            let digest = Sha256::digest([b"notihub key id", key].concat());
            std::array::from_fn(|n| digest[n])
        };
        Keyring(keys.into_iter().map(|key| (id(&key), XChaCha20Poly1305::new(&key.into()))).collect())
    }

    /// Encrypts `plain` under the first key, bound to `place` ("table|column|row").
    ///
    /// # Errors
    /// `Error::Internal` if there is no key or the value is too large.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let (id, cipher) = self.0.first().ok_or_else(|| Error::Internal("there is no master key".into()))?;
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: plain, aad: place.as_bytes() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| Error::Internal("too large to be sealed".into()))?;
        Ok([&[FORM], id.as_slice(), &nonce, &sealed].concat())
    }

    /// Decrypts a sealed value; `place` is the one it was sealed with.
    ///
    /// # Errors
    /// `Error::Setup` if none of the keys sealed it; it opens where that key is given. `Error::Internal` if it was cut
    /// off, changed or copied from another place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let wrong = |why: &str| Error::Internal(format!("what is sealed at {place} does not open: {why}"));
        let (head, rest) = sealed.split_at_checked(1 + ID_BYTES).ok_or_else(|| wrong("it is cut off"))?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or_else(|| wrong("it is cut off"))?;
        let known = self.0.iter().find(|(id, _)| head[0] == FORM && id == &head[1..]);
        let (_, cipher) = known.ok_or_else(|| {
            Error::Setup(format!(
                "what is sealed at {place} does not open: its master key is not among those given (--master-key)"
            ))
        })?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| wrong("it is cut off"))?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| wrong("it was changed, or belongs elsewhere"))
    }

    /// Returns whether a value is sealed under the first key.
    pub fn is_fresh(&self, sealed: &[u8]) -> bool {
        self.0.first().is_some_and(|(id, _)| sealed.get(1..1 + ID_BYTES) == Some(id.as_slice()))
    }
}

/// Reads a master key from the settings: 32 bytes as base64.
///
/// # Errors
/// A text for the operator that says what a master key is.
pub fn read_key(text: &str) -> std::result::Result<[u8; KEY_BYTES], String> {
    let bytes = BASE64.decode(text.trim().as_bytes()).ok();
    bytes
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| "a master key is 32 bytes as base64: `openssl rand -base64 32`".into())
}

/// Writes a master key as `read_key` reads it.
pub fn write_key(key: &[u8; KEY_BYTES]) -> String {
    BASE64.encode(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let (old, new) = ([1; KEY_BYTES], [2; KEY_BYTES]);
        let ring = Keyring::new([old]);
        let sealed = ring.seal("t|c|1", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(ring.open("t|c|1", &sealed).unwrap(), b"secret");
        assert!(ring.open("t|c|2", &sealed).is_err(), "moved to another row");
        for n in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            assert!(ring.open("t|c|1", &changed).is_err(), "byte {n}");
            assert!(ring.open("t|c|1", &sealed[..n]).is_err(), "cut at {n}");
        }
        let rotated = Keyring::new([new, old]);
        assert_eq!(rotated.open("t|c|1", &sealed).unwrap(), b"secret");
        assert!(!rotated.is_fresh(&sealed) && ring.is_fresh(&sealed));
        assert!(Keyring::new([new]).open("t|c|1", &sealed).is_err(), "its key is gone");
        assert_ne!(ring.seal("t|c|1", b"secret").unwrap(), sealed, "never the same twice");
    }

    #[test]
    fn password_is_verified_by_its_own_hash_alone() {
        let hash = hash_password(b"pepper", "correct horse", 4).unwrap();
        assert!(hash.starts_with("$2b$04$") && hash.len() == 60, "{hash}");
        assert_eq!(password_cost(&hash), Some(4));
        assert!(verify_password(b"pepper", "correct horse", Some(&hash), 4));
        assert!(!verify_password(b"pepper", "correct horsf", Some(&hash), 4));
        assert!(!verify_password(b"other", "correct horse", Some(&hash), 4), "another pepper");
        assert!(!verify_password(b"pepper", "correct horse", None, 4));
        let long = "x".repeat(100);
        let hash = hash_password(b"pepper", &long, 4).unwrap();
        assert!(!verify_password(b"pepper", &long[..99], Some(&hash), 4), "every character counts");
    }

    #[test]
    fn secrets_are_long_and_recognisable() {
        let made = secret("nhs_");
        assert!(made.starts_with("nhs_") && made.len() == 4 + 43, "256 bits: {}", made.len());
        assert!(same(&keyed_hash(b"k", b"x"), &keyed_hash(b"k", b"x")));
        assert!(!same(&keyed_hash(b"k", b"x"), &keyed_hash(b"l", b"x")) && !same(b"ab", b"a"));
    }

    #[test]
    fn a_key_is_written_as_it_is_read() {
        let key = random();
        assert_eq!(read_key(&write_key(&key)).unwrap(), key);
        assert!(read_key("c2hvcnQ=").is_err() && read_key("").is_err());
    }
}
