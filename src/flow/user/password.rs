//! Password: hashes and verifies passwords on threads of their own, few at a time, so that sign-ins take no more than
//! their share of the machine.

use tokio::sync::SemaphorePermit;

use crate::crypt;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::model::access::password::weakness;

/// Hashes a password.
///
/// # Errors
/// `Error::Busy` if too many sign-ins wait.
pub async fn hash(hub: &Hub, password: String) -> Result<String> {
    let _turn = turn(hub).await?;
    let (pepper, cost) = (hub.pepper.clone(), hub.settings.users.bcrypt_cost);
    hub.shutdown.compute(move || crypt::hash_password(&pepper, &password, cost)).await?
}

/// Returns whether a password has this hash. Without a hash it takes as long and returns false, so that the time of an
/// answer does not reveal whether a user exists.
///
/// # Errors
/// `Error::Busy` if too many sign-ins wait.
pub async fn verify(hub: &Hub, password: String, hash: Option<String>) -> Result<bool> {
    let _turn = turn(hub).await?;
    let (pepper, cost) = (hub.pepper.clone(), hub.settings.users.bcrypt_cost);
    hub.shutdown.compute(move || crypt::verify_password(&pepper, &password, hash.as_deref(), cost)).await
}

async fn turn(hub: &Hub) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>)> {
    let busy = || Error::Busy("too many sign-ins at once; repeat soon");
    let place = hub.password_places.try_acquire().map_err(|_| busy())?;
    let turn = hub.password_turns.acquire().await.map_err(|_| busy())?;
    Ok((place, turn))
}

/// Checks a new password. `pointer`: its place in the body.
///
/// # Errors
/// `password_weak` if it is easy to guess.
pub fn check_new(password: &str, username: &str, pointer: &str) -> Result<()> {
    let Some(detail) = weakness(password, username) else { return Ok(()) };
    let fault = Fault { pointer: pointer.into(), reason: "password_weak", detail: detail.into(), code: Code::E001 };
    Err(Refusal::from_faults(vec![fault]).into())
}

/// The error of a name and password that do not belong together.
pub fn credentials_wrong() -> Error {
    Refusal::new(401, "credentials_wrong", "username and password do not belong together").with_code(Code::E002).into()
}
