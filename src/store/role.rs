//! Database roles. The schema's owner migrates. `notihub_app` is the hub's role: it owns nothing and cannot rewrite the
//! audit log. `notihub_enqueue` may enqueue. Roles belong to the server, not to a database or its dump, so each
//! `notihub migrate` creates missing ones and repairs their grants. (Runtime queries: DDL takes no parameters; names
//! are quoted.)

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use super::{Conn, Db, Store};
use crate::crypt;
use crate::error::{Error, Result};

/// The hub's role, or the group of its login.
pub const APP_ROLE: &str = "notihub_app";
/// The role that may call `notihub.enqueue`.
pub const ENQUEUE_ROLE: &str = "notihub_enqueue";
/// Owns a schema that a superuser migrates, so that functions called by others run without a superuser's rights.
const OWNER_ROLE: &str = "notihub_owner";

/// Result of a repair of roles and grants.
#[derive(Debug, Default)]
pub struct GrantRepair {
    /// Statements that were executed.
    pub done: Vec<String>,
    /// Statements that the session's role may not execute; an administrator has to run them.
    pub to_run: Vec<String>,
}

/// The role of a session, and its rights that the hub's role should not have.
pub struct RoleCheck {
    pub name: String,
    pub superuser: bool,
    pub creates_roles: bool,
    /// The schema's owner; None before the first migration.
    pub owner: Option<String>,
    /// The role is the owner, or a member of it.
    pub is_owner: bool,
    /// The role may update, delete or truncate the audit log.
    pub rewrites_audit: bool,
    /// Every login may create objects in the schema public.
    pub public_creates: bool,
}

impl RoleCheck {
    /// Why the hub should not run as this role; None if nothing is wrong.
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

/// Checks the role of this session.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn check(db: impl Db<'_>) -> Result<RoleCheck> {
    Ok(sqlx::query_file_as!(RoleCheck, "sql/role/check.sql").fetch_one(db).await?)
}

/// The statements that would give `notihub_app` and `notihub_enqueue` exactly the rights they should have.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn missing_grants(db: impl Db<'_>) -> Result<Vec<String>> {
    Ok(sqlx::query_file_scalar!("sql/role/missing_grants.sql").fetch_all(db).await?)
}

/// The hub's roles that the server does not have.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn missing_roles(db: impl Db<'_>) -> Result<Vec<String>> {
    let needed = [APP_ROLE.to_owned(), ENQUEUE_ROLE.to_owned()];
    Ok(sqlx::query_file_scalar!("sql/role/missing_roles.sql", &needed).fetch_all(db).await?)
}

/// Makes this session act as the schema's owner, for migrations. Creates an owner role if a superuser migrates for the
/// first time.
///
/// # Errors
/// `Error::Setup` if the session's role may not act as the owner; names the owner.
pub(super) async fn become_owner(conn: &mut Conn) -> Result<()> {
    let me = check(&mut *conn).await?;
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
            make(conn, OWNER_ROLE).await?;
            // A migration grants to it, and warns if it does not exist.
            make(conn, ENQUEUE_ROLE).await?;
            let database: String = sqlx::query_scalar("select current_database()::text").fetch_one(&mut *conn).await?;
            execute(conn, format!("grant usage, create on schema public to {OWNER_ROLE}")).await?;
            execute(conn, format!("grant create on database {} to {OWNER_ROLE}", quoted(&database))).await?;
            OWNER_ROLE.to_owned()
        }
    };
    execute(conn, format!("set role {}", quoted(&owner))).await
}

/// Creates missing roles and repairs every grant. Changes nothing if all is in order.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; grants repaired before stay so. A statement that this role
/// may not execute is no error: see `GrantRepair::to_run`.
pub(super) async fn repair(conn: &mut Conn) -> Result<GrantRepair> {
    let mut repaired = GrantRepair::default();
    sqlx::raw_sql("reset role").execute(&mut *conn).await?;
    for role in [APP_ROLE, ENQUEUE_ROLE] {
        match make(conn, role).await {
            Ok(true) => repaired.done.push(format!("create role {role} nologin")),
            Ok(false) => (),
            Err(e) if is_forbidden(&e) => repaired.to_run.push(format!("create role {role} nologin")),
            Err(e) => return Err(e.into()),
        }
    }
    let me = check(&mut *conn).await?;
    if let Some(owner) = me.owner.filter(|owner| me.is_owner && !me.superuser && *owner != me.name) {
        execute(conn, format!("set role {}", quoted(&owner))).await?;
    }
    // In rounds: a right that depended on a grant to PUBLIC is missing once that is revoked, and another `migrate` may
    // change the same tables at this moment.
    for _ in 0..REPAIR_ROUNDS {
        let statements = missing_grants(&mut *conn).await?;
        if statements.is_empty() {
            break;
        }
        // All in one transaction, which waits for the disk once. If one is forbidden, each by itself.
        match try_execute(conn, statements.join(";\n")).await? {
            Execution::Executed => repaired.done.extend(statements),
            Execution::Collided => tokio::time::sleep(COLLISION_PAUSE).await,
            Execution::Forbidden => {
                for statement in statements {
                    if try_execute(conn, statement.clone()).await? == Execution::Executed {
                        repaired.done.push(statement);
                    }
                }
            }
        }
    }
    // PostgreSQL sometimes only warns about a grant that the role may not give.
    let left = missing_grants(&mut *conn).await?;
    repaired.done.retain(|statement| !left.contains(statement));
    repaired.to_run.extend(left);
    Ok(repaired)
}

/// Lets the login of `app_url` work as the hub: creates it with the URL's password if there is none, and makes it a
/// member of `notihub_app`. A login that is a superuser or owns the schema is left as it is.
///
/// # Errors
/// `Error::Usage` if the URL's user or password cannot be used. `Error::Unavailable` if the database cannot be reached.
/// A statement that `owner` may not execute is no error: see `GrantRepair::to_run`.
pub async fn grant_app_login(owner: &Store, app_url: &str) -> Result<GrantRepair> {
    let mut repaired = GrantRepair::default();
    let options = sign_in(app_url)?;
    let login = options.get_username().to_owned();
    let mut conn = owner.connect_without_timeout().await?;
    let me = check(&mut conn).await?;
    let known: Option<(bool, bool, bool)> = sqlx::query_as(
        "select rolcanlogin, rolsuper or rolname = $2, pg_has_role(oid, $3, 'member') from pg_roles where rolname = $1",
    )
    .bind(&login)
    .bind(me.owner.as_deref().unwrap_or_default())
    .bind(APP_ROLE)
    .fetch_optional(&mut conn)
    .await?;
    let name = quoted(&login);
    let wanted = match known {
        Some((_, true, _)) | Some((true, _, true)) => return Ok(repaired),
        Some((true, _, false)) => (format!("grant {APP_ROLE} to {name}"), String::new()),
        Some((false, ..)) => (format!("alter role {name} login"), password(&options)?),
        None => (format!("create role {name} login in role {APP_ROLE}"), password(&options)?),
    };
    match sqlx::raw_sql(sqlx::AssertSqlSafe(format!("{}{}", wanted.0, wanted.1))).execute(&mut conn).await {
        Ok(_) => repaired.done.push(wanted.0),
        // Another `migrate` created it at this moment.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42710" | "23505" | "XX000")) => (),
        Err(e) if is_forbidden(&e) => {
            let password = if wanted.1.is_empty() { "" } else { " password '…'" };
            repaired.to_run.push(format!("{}{password}", wanted.0));
        }
        Err(e) => return Err(e.into()),
    }
    Ok(repaired)
}

/// Makes a role a member of `notihub_enqueue`. Returns the statement if this login may not execute it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, `Error::Internal` if there is no such role.
pub async fn grant_enqueue(owner: &Store, role: &str) -> Result<Option<String>> {
    let mut conn = owner.connect_without_timeout().await?;
    let statement = format!("grant {ENQUEUE_ROLE} to {}", quoted(role));
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut conn).await {
        Ok(_) => Ok(None),
        Err(e) if is_forbidden(&e) => Ok(Some(statement)),
        Err(e) => Err(e.into()),
    }
}

/// The password clause for the URL's password, as a SCRAM verifier: the password itself would appear in a log of
/// statements.
fn password(options: &PgConnectOptions) -> Result<String> {
    let url = options.to_url_lossy();
    let Some(password) = url.password() else { return Ok(String::new()) };
    let password = percent_decoded(password);
    let verifier = crypt::scram_verifier(&password).ok_or_else(|| {
        Error::Usage(
            "the password in --database-url has characters beyond ASCII: create the login yourself, as a member of \
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
    // The decoder of forms, with plus and ampersand escaped so that they mean themselves.
    let form = format!("p={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Creates a role. False if it exists already.
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
        // A `migrate` of another database created it at this moment: 42710, or 23505 while it commits.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42710" | "23505")) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Rounds of a repair while rights are not in order.
const REPAIR_ROUNDS: u32 = 20;
/// Pause before a statement is repeated that collided with one of another process.
const COLLISION_PAUSE: Duration = Duration::from_millis(50);

async fn execute(conn: &mut Conn, statement: String) -> Result<()> {
    for _ in 0..REPAIR_ROUNDS {
        match try_execute(conn, statement.clone()).await? {
            Execution::Executed => return Ok(()),
            Execution::Collided => tokio::time::sleep(COLLISION_PAUSE).await,
            Execution::Forbidden => break,
        }
    }
    Err(Error::Setup(format!("this login may not run `{statement}`: run it as the schema's owner or a superuser")))
}

/// Result of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Execution {
    Executed,
    /// The session's role may not execute it.
    Forbidden,
    /// Two processes changed the rights of one object at the same time; the other's change is committed.
    Collided,
}

async fn try_execute(conn: &mut Conn, statements: String) -> Result<Execution> {
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut *conn).await {
        Ok(_) => Ok(Execution::Executed),
        Err(e) if is_forbidden(&e) => Ok(Execution::Forbidden),
        // PostgreSQL reports this as an internal error, "tuple concurrently updated".
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("XX000") => Ok(Execution::Collided),
        Err(e) => Err(e.into()),
    }
}

fn is_forbidden(e: &sqlx::Error) -> bool {
    e.as_database_error().is_some_and(|e| e.code().as_deref() == Some("42501"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
