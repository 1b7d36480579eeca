//! Roles of the database. The schema's owner migrates. `notihub_app` works: it owns nothing and cannot rewrite the audit
//! log. `notihub_enqueue` enqueues. Roles belong to the server, not to a database or its dump, so each `notihub migrate`
//! makes those that are missing and repairs their grants. (Runtime queries: DDL takes no parameters; names are quoted.)

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use super::{Conn, Db, Store};
use crate::crypt;
use crate::error::{Error, Result};

/// The role that the hub works as, or the login's group.
pub const APP: &str = "notihub_app";
/// The role that may call `notihub.enqueue`.
pub const INTAKE: &str = "notihub_enqueue";
/// Owns a schema that a superuser migrates: functions that others call then run without a superuser's rights.
const OWNER: &str = "notihub_owner";

/// What a repair changed, and the statements that the role it ran as may not execute.
#[derive(Debug, Default)]
pub struct Repaired {
    pub done: Vec<String>,
    pub to_run: Vec<String>,
}

/// Who a session is, and what it could do that the hub's role should not.
pub struct RoleCheck {
    pub name: String,
    pub superuser: bool,
    pub creates_roles: bool,
    /// Of the schema; none before the first migration.
    pub owner: Option<String>,
    /// Is the owner, or a member of it.
    pub is_owner: bool,
    /// May update, delete or truncate the audit log.
    pub rewrites_audit: bool,
    /// Every login may create objects in the schema public.
    pub public_creates: bool,
}

impl RoleCheck {
    /// What is wrong with running the hub as this role; none when nothing is.
    pub fn fault(&self) -> Option<String> {
        let fault = match self {
            RoleCheck { superuser: true, .. } => "is a superuser",
            RoleCheck { is_owner: true, .. } => "owns the hub's tables",
            RoleCheck { rewrites_audit: true, .. } => "may change and delete entries of the audit log",
            _ => return None,
        };
        Some(format!("the hub's role '{}' {fault}", self.name))
    }
}

pub async fn standing(db: impl Db<'_>) -> Result<RoleCheck> {
    Ok(sqlx::query_file_as!(RoleCheck, "sql/role/standing.sql").fetch_one(db).await?)
}

/// The statements that would put the rights of `notihub_app` and `notihub_enqueue` in order.
pub async fn missing(db: impl Db<'_>) -> Result<Vec<String>> {
    Ok(sqlx::query_file_scalar!("sql/role/missing.sql").fetch_all(db).await?)
}

/// The roles that the hub needs and the server does not have.
pub async fn absent(db: impl Db<'_>) -> Result<Vec<String>> {
    let needed = [APP.to_owned(), INTAKE.to_owned()];
    Ok(sqlx::query_file_scalar!("sql/role/absent.sql", &needed).fetch_all(db).await?)
}

/// Makes this session the schema's owner for what it migrates.
///
/// # Errors
/// `Error::Setup` when it may not be the owner; names the owner.
pub(super) async fn become_owner(conn: &mut Conn) -> Result<()> {
    let me = standing(&mut *conn).await?;
    let owner = match me.owner {
        Some(owner) if owner == me.name => return Ok(()),
        Some(owner) if me.is_owner => owner,
        Some(owner) => {
            return Err(Error::Setup(format!(
                "the schema belongs to the role '{owner}', and '{}' may not migrate it: run `notihub migrate` with \
                 --migrate-database-url as '{owner}'",
                me.name
            )));
        }
        None if !me.superuser => return Ok(()),
        None => {
            make(conn, OWNER).await?;
            // A migration grants to it, and warns where it is not there.
            make(conn, INTAKE).await?;
            let database: String = sqlx::query_scalar("select current_database()::text").fetch_one(&mut *conn).await?;
            execute(conn, format!("grant usage, create on schema public to {OWNER}")).await?;
            execute(conn, format!("grant create on database {} to {OWNER}", quoted(&database))).await?;
            OWNER.to_owned()
        }
    };
    execute(conn, format!("set role {}", quoted(&owner))).await
}

/// Makes the roles that are missing and repairs every grant. Changes nothing when all is in order.
pub(super) async fn repair(conn: &mut Conn) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    sqlx::raw_sql("reset role").execute(&mut *conn).await?;
    for role in [APP, INTAKE] {
        match make(conn, role).await {
            Ok(true) => repaired.done.push(format!("create role {role} nologin")),
            Ok(false) => (),
            Err(e) if is_forbidden(&e) => repaired.to_run.push(format!("create role {role} nologin")),
            Err(e) => return Err(e.into()),
        }
    }
    let me = standing(&mut *conn).await?;
    if let Some(owner) = me.owner.filter(|owner| me.is_owner && !me.superuser && *owner != me.name) {
        execute(conn, format!("set role {}", quoted(&owner))).await?;
    }
    // Again and again: a right that stood on one of PUBLIC is missing once that is revoked, and another `migrate` may be at
    // the same tables at this moment.
    for _ in 0..REPAIR_ROUNDS {
        let statements = missing(&mut *conn).await?;
        if statements.is_empty() {
            break;
        }
        // All in one transaction, which waits for the disk once. Where one of them is refused, each for itself.
        match try_execute(conn, statements.join(";\n")).await? {
            Done::Executed => repaired.done.extend(statements),
            Done::Collided => tokio::time::sleep(COLLISION_PAUSE).await,
            Done::Forbidden => {
                for statement in statements {
                    if try_execute(conn, statement.clone()).await? == Done::Executed {
                        repaired.done.push(statement);
                    }
                }
            }
        }
    }
    // A grant by a role that may not give it is sometimes only a warning.
    let left = missing(&mut *conn).await?;
    repaired.done.retain(|statement| !left.contains(statement));
    repaired.to_run.extend(left);
    Ok(repaired)
}

/// Lets the login of this URL work as the hub: makes it when there is none, with the URL's password, and makes it a member
/// of `notihub_app`. A login that owns the schema, or is a superuser, is left as it is.
pub async fn admit(owner: &Store, app_url: &str) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    let options = sign_in(app_url)?;
    let login = options.get_username().to_owned();
    let mut conn = owner.unhurried().await?;
    let me = standing(&mut conn).await?;
    let known: Option<(bool, bool, bool)> = sqlx::query_as(
        "select rolcanlogin, rolsuper or rolname = $2, pg_has_role(oid, $3, 'member') from pg_roles where rolname = $1",
    )
    .bind(&login)
    .bind(me.owner.as_deref().unwrap_or_default())
    .bind(APP)
    .fetch_optional(&mut conn)
    .await?;
    let name = quoted(&login);
    let wanted = match known {
        Some((_, true, _)) | Some((true, _, true)) => return Ok(repaired),
        Some((true, _, false)) => (format!("grant {APP} to {name}"), String::new()),
        Some((false, ..)) => (format!("alter role {name} login"), password(&options)?),
        None => (format!("create role {name} login in role {APP}"), password(&options)?),
    };
    match sqlx::raw_sql(sqlx::AssertSqlSafe(format!("{}{}", wanted.0, wanted.1))).execute(&mut conn).await {
        Ok(_) => repaired.done.push(wanted.0),
        // Another `migrate` made it at this moment.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42710" | "23505" | "XX000")) => (),
        Err(e) if is_forbidden(&e) => {
            let password = if wanted.1.is_empty() { "" } else { " password '…'" };
            repaired.to_run.push(format!("{}{password}", wanted.0));
        }
        Err(e) => return Err(e.into()),
    }
    Ok(repaired)
}

/// Makes a role a member of `notihub_enqueue`. Returns the statement where this login may not.
pub async fn join_intake(owner: &Store, role: &str) -> Result<Option<String>> {
    let mut conn = owner.unhurried().await?;
    let statement = format!("grant {INTAKE} to {}", quoted(role));
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut conn).await {
        Ok(_) => Ok(None),
        Err(e) if is_forbidden(&e) => Ok(Some(statement)),
        Err(e) => Err(e.into()),
    }
}

/// The URL's password as the server keeps it: the password itself would be in a log of statements.
fn password(options: &PgConnectOptions) -> Result<String> {
    let url = options.to_url_lossy();
    let Some(password) = url.password() else { return Ok(String::new()) };
    let password = percent_decoded(password);
    let verifier = crypt::scram_verifier(&password).ok_or_else(|| {
        Error::Usage(
            "the password in --database-url has characters beyond ASCII: make the login yourself, as a member of \
             notihub_app"
                .into(),
        )
    })?;
    Ok(format!(" password '{verifier}'"))
}

/// User and password of a URL, whatever its hosts.
fn sign_in(url: &str) -> Result<PgConnectOptions> {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
    PgConnectOptions::from_str(&format!("postgres://{user}localhost"))
        .map_err(|_| Error::Usage("the user in --database-url cannot be read; %-encode special characters".into()))
}

fn percent_decoded(text: &str) -> String {
    // A form's decoder, told that plus and ampersand mean themselves.
    let form = format!("p={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// True when there was no such role.
async fn make(conn: &mut Conn, role: &str) -> std::result::Result<bool, sqlx::Error> {
    let there: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(role)
        .fetch_one(&mut *conn)
        .await?;
    if there {
        return Ok(false);
    }
    match sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create role {role} nologin"))).execute(conn).await {
        Ok(_) => Ok(true),
        // Another database of the server made it at this moment: 42710, or 23505 while it commits.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42710" | "23505")) => Ok(false),
        Err(e) => Err(e),
    }
}

/// How often rights are looked at while they are not in order.
const REPAIR_ROUNDS: u32 = 20;
/// Before a statement is repeated that collided with the same one of another process.
const COLLISION_PAUSE: Duration = Duration::from_millis(50);

async fn execute(conn: &mut Conn, statement: String) -> Result<()> {
    for _ in 0..REPAIR_ROUNDS {
        match try_execute(conn, statement.clone()).await? {
            Done::Executed => return Ok(()),
            Done::Collided => tokio::time::sleep(COLLISION_PAUSE).await,
            Done::Forbidden => break,
        }
    }
    Err(Error::Setup(format!("this login may not: {statement}")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Executed,
    Forbidden,
    /// Two processes changed the rights of one object at the same moment; the other's change is committed.
    Collided,
}

async fn try_execute(conn: &mut Conn, statements: String) -> Result<Done> {
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut *conn).await {
        Ok(_) => Ok(Done::Executed),
        Err(e) if is_forbidden(&e) => Ok(Done::Forbidden),
        // Told as an internal error, "tuple concurrently updated".
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("XX000") => Ok(Done::Collided),
        Err(e) => Err(e.into()),
    }
}

fn is_forbidden(e: &sqlx::Error) -> bool {
    e.as_database_error().is_some_and(|e| e.code().as_deref() == Some("42501"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
