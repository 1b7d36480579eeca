//! The private PostgreSQL: a database server that this process starts, supervises and stops.
//!
//! Its files are in the program's data folder: `pg/` is the cluster with its passwords, `run/` the socket, `pg.log` the
//! server's log, `port` the loopback port, and `lock` marks the process that owns the folder. A start after a kill
//! continues from the files: an incomplete cluster is deleted, a server that outlived its process is adopted, and a
//! dead server's data is recovered by PostgreSQL.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::error::{Error, Result};

/// The oldest supported release.
const MAJOR_MIN: u32 = 15;
/// A socket's path holds 103 bytes on macOS (107 on Linux); `/.s.PGSQL.65535` takes 15 of them.
const SOCKET_DIR_BYTES_MAX: usize = 103 - 15;
const POLL: Duration = Duration::from_millis(20);
/// The interval of progress reports during a long recovery.
const PATIENCE: Duration = Duration::from_secs(10);
/// Replaying `max_wal_size` takes minutes on a slow disk, and giving up would only start the recovery again.
const READY_MAX: Duration = Duration::from_mins(10);
/// Backends of a killed server end within seconds; until then they hold the shared memory.
const REMAINS_MAX: Duration = Duration::from_secs(30);
const STOP_FAST_MAX: Duration = Duration::from_secs(20);
const STOP_IMMEDIATE_MAX: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Settings on the server's command line, which overrides the cluster's files, so that an edit there cannot weaken
/// them.
const SETTINGS: &[&str] = &[
    // Messages answered with 202 survive a power failure.
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    // A queue rewrites the same pages all day: fewer checkpoints, fewer full-page images.
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    // Several processes with their pools, and a person with psql beside them.
    "max_connections=200",
    // Claims skip dead rows (watermarks), so vacuum is not urgent, and it leaves disk and CPU to the queue. While a
    // session holds an old snapshot, more frequent runs would find nothing to clean.
    "autovacuum_naptime=60s",
    "autovacuum_vacuum_cost_limit=500",
    // Statements are short; compiling one costs more than running it.
    "jit=off",
    // An idle transaction prevents vacuum from cleaning.
    "idle_in_transaction_session_timeout=60s",
    // Loopback only, and with a password: other users of the machine can reach the port.
    "listen_addresses=127.0.0.1",
    "unix_socket_permissions=0700",
    // The log goes to `pg.log`: in English, because its text is parsed, and without DETAIL, which quotes rows.
    "logging_collector=off",
    "log_destination=stderr",
    "log_error_verbosity=terse",
    "log_line_prefix=%m [%p] ",
    "lc_messages=C",
    "log_timezone=UTC",
    "timezone=UTC",
];

/// The place of a server.
#[derive(Debug, Clone)]
pub struct PgPlace {
    /// The program's data folder.
    pub data_dir: PathBuf,
    /// True: the folder must not exist, and is deleted when the server stops or this process dies.
    pub throw_away: bool,
}

impl PgPlace {
    /// A new temporary folder with a short name, because the path of the socket in it is limited.
    ///
    /// # Errors
    /// `Error::Setup` if there is no randomness.
    pub fn throw_away() -> Result<PgPlace> {
        Ok(PgPlace { data_dir: PathBuf::from(format!("/tmp/notihub-pg-{}", random_hex(8)?)), throw_away: true })
    }

    /// The size of `shared_buffers` in MiB: an eighth of the memory that this process may use, from 128 to 4096.
    fn buffers_mb(&self) -> u64 {
        const LEAST: u64 = 128;
        let bytes = if self.throw_away { 0 } else { memory_bytes().unwrap_or(0) };
        ((bytes / 8) >> 20).clamp(LEAST, 4096)
    }
}

/// The smallest memory limit of this process's control groups, in bytes; none without a limit. Files without a limit
/// contain `max` or a huge number.
fn container_memory_bytes() -> Option<u64> {
    let limit = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = Path::new("/sys/fs/cgroup").join(unified);
    let within = own.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    let version_2 = within.filter_map(|folder| limit(&folder.join("memory.max")));
    version_2.chain(limit(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"))).min()
}

/// The memory of the machine or the container in bytes, whichever is smaller; none if neither is known.
fn memory_bytes() -> Option<u64> {
    let of_machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kb = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(kb.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    });
    of_machine.into_iter().chain(container_memory_bytes()).min()
}

/// A PostgreSQL server that this process owns. Dropping it without `stop` signals the server to end.
pub struct PrivatePg {
    place: PgPlace,
    cluster: PathBuf,
    server: InstalledServer,
    account: Option<Account>,
    socket_dir: PathBuf,
    port: u16,
    url: String,
    app_url: String,
    /// False once another program has taken the port. The hub uses the socket, whose name keeps the port number.
    tcp: bool,
    /// `lz4`, or `on` if this build of PostgreSQL has no lz4.
    wal_compression: &'static str,
    process: Process,
    guard: Option<Child>,
    _lock: File,
}

enum Process {
    None,
    Ours(Child, Pid),
    Adopted(Pid),
}

impl PrivatePg {
    /// Finds an installed server, makes the cluster if there is none, and starts it or adopts one that still runs.
    /// Returns when the server is ready.
    ///
    /// # Errors
    /// `Error::Setup`, with the remedy, if no server can be started; the files stay as they are.
    pub async fn start(mut place: PgPlace) -> Result<PrivatePg> {
        let began = Instant::now();
        place.data_dir = make_home(&place)?;
        let home = &place.data_dir;
        let guard = if place.throw_away { Some(spawn_cleanup_guard(home)?) } else { None };
        let lock = take_lock(home)?;
        let cluster = home.join("pg");
        let account = Account::for_cluster(&cluster)?;
        let made_by = fs::read_to_string(cluster.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
        let server = InstalledServer::find(made_by)?;
        if let Some(account) = &account {
            account.check_access(home)?;
        }
        if !cluster.exists() {
            make_cluster(home, &server, account.as_ref(), place.throw_away).await?;
        }
        let socket_dir = make_socket_dir(home, account.as_ref())?;
        let mut pg = PrivatePg {
            place,
            cluster,
            server,
            account,
            socket_dir,
            port: 0,
            url: String::new(),
            app_url: String::new(),
            tcp: true,
            wal_compression: "lz4",
            process: Process::None,
            guard,
            _lock: lock,
        };
        let adopted = pg.adopt().await?;
        if !adopted {
            pg.port = choose_port(&pg.place.data_dir)?;
            pg.launch().await?;
        }
        // A cluster from before the hub had a role of its own: `migrate` makes the login with this password.
        if !pg.cluster.join(APP.password_file()).exists() {
            write_password(&pg.cluster.join(APP.password_file()), pg.account.as_ref())?;
        }
        pg.url = url(&pg.cluster, OWNER, &pg.socket_dir, pg.port)?;
        pg.app_url = url(&pg.cluster, APP, &pg.socket_dir, pg.port)?;
        info!(
            "PostgreSQL {} {} on {} port {} after {} ms",
            pg.server.version,
            if adopted { "was still running and was adopted" } else { "is ready" },
            pg.socket_dir.display(),
            pg.port,
            began.elapsed().as_millis(),
        );
        Ok(pg)
    }

    /// The URL with the superuser's login, for sqlx and libpq: over the Unix socket, or by TCP for programs that ignore
    /// `host=`. It contains the password and must not be logged.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL with the hub's login, which gets its rights from `migrate`. It contains the password.
    pub fn app_url(&self) -> &str {
        &self.app_url
    }

    /// The server's major version.
    pub fn version(&self) -> u32 {
        self.server.major
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The folder of the server's programs.
    pub fn bin_dir(&self) -> &Path {
        &self.server.bin_dir
    }

    /// The process id of the postmaster; 0 while it does not run.
    pub fn pid(&self) -> u32 {
        self.postmaster().map_or(0, |pid| pid.as_raw().unsigned_abs())
    }

    fn postmaster(&self) -> Option<Pid> {
        match self.process {
            Process::None => None,
            Process::Ours(_, pid) | Process::Adopted(pid) => Some(pid),
        }
    }

    /// Restarts the server whenever it ends by itself, until `stop` resolves. Committed data is recovered.
    pub async fn supervise(&mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => (),
            never = self.keep_alive() => match never {},
        }
    }

    async fn keep_alive(&mut self) -> Infallible {
        let mut pause = RESTART_PAUSE;
        loop {
            let began = Instant::now();
            self.wait_until_ended().await;
            if began.elapsed() > RESTART_PAUSE_MAX {
                pause = RESTART_PAUSE;
            }
            warn!("PostgreSQL ended by itself; starting it again in {} ms", pause.as_millis());
            sleep(pause).await;
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
            let began = Instant::now();
            match self.launch().await {
                Ok(()) => info!("PostgreSQL is back after {} ms", began.elapsed().as_millis()),
                Err(error) => error!("PostgreSQL did not come back: {error}"),
            }
        }
    }

    /// Stops the server: connections are closed, committed data is on disk. A throw-away server's folder is deleted.
    ///
    /// # Errors
    /// `Error::Setup` if the server does not end, or the folder cannot be deleted.
    pub async fn stop(mut self) -> Result<()> {
        let began = Instant::now();
        // A throw-away server's data does not need a last checkpoint.
        self.signal(if self.place.throw_away { Signal::SIGQUIT } else { Signal::SIGINT });
        if timeout(STOP_FAST_MAX, self.wait_until_ended()).await.is_err() {
            warn!("PostgreSQL does not stop within {} s; stopping it at once", STOP_FAST_MAX.as_secs());
            self.signal(Signal::SIGQUIT);
            timeout(STOP_IMMEDIATE_MAX, self.wait_until_ended()).await.map_err(|_| {
                Error::Setup(format!("PostgreSQL (pid {}) does not stop; end it with: kill -9 {0}", self.pid()))
            })?;
        }
        self.process = Process::None;
        // The folder may be in /tmp and would stay there. It is empty unless the server was killed.
        let _best_effort = fs::remove_dir(&self.socket_dir);
        if self.place.throw_away {
            naming_path(&self.place.data_dir, fs::remove_dir_all(&self.place.data_dir))?;
        }
        if let Some(mut guard) = self.guard.take() {
            let _best_effort = guard.kill().await;
        }
        info!("PostgreSQL stopped after {} ms", began.elapsed().as_millis());
        Ok(())
    }

    /// Adopts a server that a killed process left running. False if there is none.
    async fn adopt(&mut self) -> Result<bool> {
        let Some(file) = PidFile::read(&self.cluster) else { return Ok(false) };
        if !is_postmaster(file.pid, &self.cluster) {
            info!("PostgreSQL was not stopped in order and recovers now");
            return Ok(false);
        }
        self.process = Process::Adopted(file.pid);
        // None if the server was already stopping.
        let Some(file) = self.wait_until_ready(None).await? else { return Ok(false) };
        (self.socket_dir, self.port) = (file.socket_dir, file.port);
        Ok(true)
    }

    /// Starts the server and waits until it answers.
    async fn launch(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let stale = self.disown_pid_file()?;
            let log_start = self.spawn()?;
            if self.wait_until_ready(stale).await?.is_some() {
                return Ok(());
            }
            let output = self.log_since(log_start);
            if output.contains("still in use") && began.elapsed() < REMAINS_MAX {
                debug!("processes of the killed PostgreSQL are still ending");
                sleep(POLL * 10).await;
            } else if output.contains("\"wal_compression\"") && self.wal_compression != "on" {
                self.wal_compression = "on";
            } else if output.contains("could not create any TCP/IP sockets") && self.tcp {
                warn!("another program took port {}; PostgreSQL listens on its socket only", self.port);
                self.tcp = false;
            } else {
                return Err(self.failure("does not start", &output));
            }
        }
    }

    /// Replaces the process id in a dead server's pid file. Another process may have that id by now, and PostgreSQL
    /// does not start while the process in the file lives. It skips its own parent in this check, so our id is written
    /// there; its check for shared memory in use still applies. Returns the time of the file, to distinguish it from
    /// the next one.
    fn disown_pid_file(&self) -> Result<Option<SystemTime>> {
        let Some(file) = PidFile::read(&self.cluster) else { return Ok(None) };
        if !is_postmaster(file.pid, &self.cluster) {
            let path = self.cluster.join("postmaster.pid");
            let text = naming_path(&path, fs::read_to_string(&path))?;
            let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
            // Written elsewhere and moved: when root writes into another user's folder, a link could redirect the
            // write.
            let new = self.place.data_dir.join("postmaster.pid");
            naming_path(&new, fs::write(&new, format!("{}\n{rest}", std::process::id())))?;
            change_owner(&new, self.account.as_ref())?;
            naming_path(&path, fs::rename(&new, &path))?;
        }
        Ok(PidFile::read(&self.cluster).map(|file| file.written))
    }

    /// Starts the postmaster. Returns the length of the log before the start.
    fn spawn(&mut self) -> Result<u64> {
        let path = self.place.data_dir.join("pg.log");
        if path.metadata().is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            naming_path(&path, fs::rename(&path, path.with_extension("log.1")))?;
        }
        let log = naming_path(&path, OpenOptions::new().create(true).append(true).mode(0o600).open(&path))?;
        let log_start = naming_path(&path, log.metadata())?.len();
        // Delete sockets of a dead server: PostgreSQL would check their owner by a process id that may be reused by
        // now.
        for entry in naming_path(&self.socket_dir, fs::read_dir(&self.socket_dir))?.flatten() {
            let _best_effort = fs::remove_file(entry.path());
        }
        let mut command = self.server.command("postgres", self.account.as_ref(), &self.place.data_dir);
        command.arg("-D").arg(&self.cluster);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.arg("-c").arg(format!("shared_buffers={}MB", self.place.buffers_mb()));
        command.arg("-c").arg(format!("wal_compression={}", self.wal_compression));
        command.arg("-c").arg(format!("port={}", self.port));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.socket_dir.display()));
        if !self.tcp {
            command.args(["-c", "listen_addresses="]);
        }
        if self.place.throw_away {
            // Its data need not survive a power failure.
            command.args(["-c", "fsync=off"]);
        }
        command.kill_on_drop(false).stdout(naming_path(&path, log.try_clone())?).stderr(log);
        let child = command.spawn().map_err(|error| cannot_run(&command, &error))?;
        let pid = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
        self.process = Process::Ours(child, pid);
        Ok(log_start)
    }

    /// Waits until the server is ready; none if it ended instead. `stale`: the time of a dead server's pid file, which
    /// is ignored. Its process id alone does not distinguish it, because ids start again in every container.
    async fn wait_until_ready(&mut self, stale: Option<SystemTime>) -> Result<Option<PidFile>> {
        let began = Instant::now();
        let mut next_report = PATIENCE;
        while began.elapsed() < READY_MAX {
            if let Some(file) = PidFile::read(&self.cluster)
                && file.status == "ready"
                && self.postmaster() == Some(file.pid)
                && Some(file.written) != stale
            {
                return Ok(Some(file));
            }
            if timeout(POLL, self.wait_until_ended()).await.is_ok() {
                self.process = Process::None;
                return Ok(None);
            }
            if began.elapsed() > next_report {
                info!("PostgreSQL is not ready after {} s: {}", next_report.as_secs(), tail(&self.log_since(0), 1));
                next_report += PATIENCE;
            }
        }
        Err(self.failure("is still not ready", &self.log_since(0)))
    }

    /// Resolves when the server process has ended.
    async fn wait_until_ended(&mut self) {
        match &mut self.process {
            Process::None => (),
            Process::Ours(child, _) => {
                // Cannot fail: no other code waits for this child.
                let _best_effort = child.wait().await;
            }
            Process::Adopted(pid) => {
                while is_postmaster(*pid, &self.cluster) {
                    sleep(POLL * 5).await;
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // The process id may belong to another process by now.
        if let Some(pid) = self.postmaster()
            && is_postmaster(pid, &self.cluster)
        {
            let _best_effort = kill(pid, signal);
        }
    }

    fn failure(&self, how: &str, output: &str) -> Error {
        Error::Setup(format!(
            "PostgreSQL {how}. Its log {} ends:\n{}\nCorrect the cause that it names, or use another server with \
                --database-url",
            self.place.data_dir.join("pg.log").display(),
            tail(output, 12),
        ))
    }

    fn log_since(&self, start: u64) -> String {
        let mut output = Vec::new();
        if let Ok(mut log) = File::open(self.place.data_dir.join("pg.log")) {
            let length = log.metadata().map_or(0, |log| log.len());
            let _best_effort = log.seek(SeekFrom::Start(start.max(length.saturating_sub(16 << 10))));
            let _best_effort = log.read_to_end(&mut output);
        }
        String::from_utf8_lossy(&output).into_owned()
    }
}

impl Drop for PrivatePg {
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

/// The URL with the hub's login of a server that runs in this data folder; none if there is none.
///
/// # Errors
/// `Error::Setup` if the password file cannot be read.
pub fn running_url(data_dir: &Path) -> Result<Option<String>> {
    running(data_dir, APP)
}

/// Like [`running_url`], with the superuser's login.
///
/// # Errors
/// `Error::Setup` if the password file cannot be read.
pub fn running_owner_url(data_dir: &Path) -> Result<Option<String>> {
    running(data_dir, OWNER)
}

fn running(data_dir: &Path, login: Login) -> Result<Option<String>> {
    let cluster = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned()).join("pg");
    match PidFile::read(&cluster) {
        Some(file) if file.status == "ready" && is_postmaster(file.pid, &cluster) => {
            // A server that an earlier version started has only the superuser.
            let known = cluster.join(login.password_file()).exists();
            url(&cluster, if known { login } else { OWNER }, &file.socket_dir, file.port).map(Some)
        }
        _ => Ok(None),
    }
}

/// A login of the private server. Its password is in a file of the cluster.
#[derive(Clone, Copy)]
struct Login(&'static str);

/// The superuser that initdb makes; it migrates.
const OWNER: Login = Login("notihub");
const APP: Login = Login(crate::store::role::APP_ROLE);

impl Login {
    fn password_file(self) -> String {
        format!("{}.password", self.0)
    }
}

/// Writes a new password into a file, atomically.
fn write_password(path: &Path, account: Option<&Account>) -> Result<String> {
    let password = random_hex(24)?;
    let new = path.with_added_extension("new");
    let _best_effort = fs::remove_file(&new);
    let mut file = naming_path(&new, OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new))?;
    naming_path(&new, writeln!(file, "{password}"))?;
    if let Some(account) = account {
        naming_path(&new, fchown(&file, Some(account.uid), Some(account.gid)))?;
    }
    naming_path(path, fs::rename(&new, path))?;
    Ok(password)
}

/// The URL for a login. The socket folder needs no escaping (see `make_socket_dir`).
fn url(cluster: &Path, login: Login, socket_dir: &Path, port: u16) -> Result<String> {
    let path = cluster.join(login.password_file());
    let password = naming_path(&path, fs::read_to_string(&path))?;
    let (user, password, socket_dir) = (login.0, password.trim(), socket_dir.display());
    Ok(format!("postgres://{user}:{password}@localhost:{port}/notihub?host={socket_dir}"))
}

// ---- the pid file

/// The content of `postmaster.pid`, which the server keeps up to date.
struct PidFile {
    pid: Pid,
    port: u16,
    socket_dir: PathBuf,
    status: String,
    written: SystemTime,
}

impl PidFile {
    fn read(cluster: &Path) -> Option<PidFile> {
        let path = cluster.join("postmaster.pid");
        let text = fs::read_to_string(&path).ok()?;
        let line = |no: usize| text.lines().nth(no - 1).unwrap_or_default().trim();
        Some(PidFile {
            // A single-user server writes a negative number, which `kill` would take as a process group.
            pid: Pid::from_raw(line(1).parse().ok().filter(|pid| *pid > 0)?),
            port: line(4).parse().unwrap_or_default(),
            socket_dir: PathBuf::from(line(5)),
            status: line(8).to_owned(),
            written: path.metadata().and_then(|file| file.modified()).ok()?,
        })
    }
}

/// Whether the process lives and is the server of this cluster, judged by its command line (a zombie has none). True if
/// the command line cannot be read, because two servers would destroy the cluster.
fn is_postmaster(pid: Pid, cluster: &Path) -> bool {
    if kill(pid, None) == Err(nix::Error::ESRCH) {
        return false;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).or_else(|_| {
        let ps = std::process::Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output();
        ps.map(|output| output.stdout)
    });
    let sought = [b"-D\0", cluster.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let same = |(byte, sought): (&u8, &u8)| byte == sought || (*byte == b' ' && *sought == 0);
    line.map_or(true, |line| line.windows(sought.len()).any(|part| part.iter().zip(&sought).all(same)))
}

// ---- the installed server

struct InstalledServer {
    bin_dir: PathBuf,
    major: u32,
    minor: u32,
    version: String,
}

impl InstalledServer {
    /// The newest installed server that is supported; for an existing cluster, the newest of its major version.
    fn find(made_by: Option<u32>) -> Result<InstalledServer> {
        let all: Vec<InstalledServer> = bin_dirs().into_iter().filter_map(InstalledServer::inspect).collect();
        let seen: Vec<&str> = all.iter().map(|server| server.version.as_str()).collect();
        let seen = if seen.is_empty() { "none is installed".to_owned() } else { format!("found: {}", seen.join(", ")) };
        let fits = |server: &InstalledServer| made_by.map_or(server.major >= MAJOR_MIN, |major| server.major == major);
        all.into_iter().filter(fits).max_by_key(|server| (server.major, server.minor)).ok_or_else(|| {
            Error::Setup(match made_by {
                Some(major) => format!(
                    "the data were made by PostgreSQL {major}, which is not here ({seen}). Install it again (for \
                     example: apt-get install postgresql-{major}), move the data with pg_upgrade, or choose another \
                     folder with --data-dir"
                ),
                None => format!(
                    "notihub needs a PostgreSQL server, {MAJOR_MIN} or newer; {seen}. Install one (apt-get install \
                     postgresql, dnf install postgresql-server, apk add postgresql, brew install postgresql@17) or \
                     name a running one with --database-url"
                ),
            })
        })
    }

    /// The server in this folder, if it is complete.
    fn inspect(bin_dir: PathBuf) -> Option<InstalledServer> {
        bin_dir.join("initdb").metadata().ok()?;
        let output = std::process::Command::new(bin_dir.join("postgres")).arg("--version").output().ok()?;
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "postgres (PostgreSQL) 19beta1"
        let version = String::from_utf8_lossy(&output.stdout).split_whitespace().nth(2)?.to_owned();
        let mut numbers = version.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse().ok());
        let (major, minor) = (numbers.next()??, numbers.next().flatten().unwrap_or(0));
        Some(InstalledServer { bin_dir, major, minor, version })
    }

    /// A command with an empty environment: ours contains secrets, and `PG*` variables would change the program's
    /// behaviour.
    fn command(&self, program: &str, account: Option<&Account>, home: &Path) -> Command {
        let mut command = Command::new(self.bin_dir.join(program));
        command.env_clear().env("LC_ALL", "C").current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
        // A process group of its own, so that Ctrl-C reaches only this process, which then stops the server in order.
        command.process_group(0);
        if let Some(account) = account {
            // The standard library drops root's supplementary groups with these.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

/// The folders of all installed servers, with links resolved: only there all programs of a server are together.
fn bin_dirs() -> BTreeSet<PathBuf> {
    let mut dirs = path_dirs();
    if let Ok(output) = std::process::Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, prefix, rest) in [
        ("/usr/lib/postgresql", "", "bin"),                          // Debian, Ubuntu
        ("/usr", "pgsql-", "bin"),                                   // RHEL, Fedora
        ("/usr/lib", "postgresql", "bin"),                           // SUSE
        ("/usr/libexec", "postgresql", ""),                          // Alpine
        ("/opt/homebrew/opt", "postgresql@", "bin"),                 // Homebrew on Apple silicon
        ("/usr/local/opt", "postgresql@", "bin"),                    // Homebrew on Intel
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
    ] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
                dirs.push(entry.path().join(rest));
            }
        }
    }
    let real = |dir: PathBuf| Some(dir.join("postgres").canonicalize().ok()?.parent()?.to_owned());
    dirs.into_iter().filter_map(real).collect()
}

/// The folders in `PATH`. This is the only variable read outside `config`: it is not a setting of the program, and the
/// result must match the shell's.
fn path_dirs() -> Vec<PathBuf> {
    std::env::var_os("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect())
}

// ---- root

/// The user that the server runs as when this process is root, because PostgreSQL refuses to run as root.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The owner of an existing cluster, otherwise the user `postgres`, or the unprivileged user of the system. None if
    /// this process is not root.
    fn for_cluster(cluster: &Path) -> Result<Option<Account>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        if let Ok(owner) = cluster.metadata()
            && owner.uid() != 0
        {
            return Ok(Some(Account { name: format!("uid {}", owner.uid()), uid: owner.uid(), gid: owner.gid() }));
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.ok_or_else(|| {
            Error::Setup(
                "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as. Run notihub \
                 as an ordinary user, or make one: useradd --system postgres"
                    .to_owned(),
            )
        })?;
        Ok(Some(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    /// Checks that this user can enter the folder, by trying it: modes alone do not decide (ACLs, network disks).
    fn check_access(&self, home: &Path) -> Result<()> {
        match home.ancestors().take_while(|dir| !self.can_enter(dir)).last() {
            None => Ok(()),
            Some(barrier) => Err(Error::Setup(format!(
                "PostgreSQL refuses to run as root, and the user it would run as ({}) may not enter {}. Choose a \
                 folder it can reach with --data-dir, for example /var/lib/notihub, or open the way: chmod o+x {1}",
                self.name,
                barrier.display(),
            ))),
        }
    }

    fn can_enter(&self, dir: &Path) -> bool {
        use std::os::unix::process::CommandExt;
        let mut probe = std::process::Command::new("/bin/sh");
        probe.args(["-c", ":"]).uid(self.uid).gid(self.gid).current_dir(dir);
        probe.status().is_ok_and(|status| status.success())
    }
}

fn change_owner(path: &Path, account: Option<&Account>) -> Result<()> {
    account.map_or(Ok(()), |account| naming_path(path, chown(path, Some(account.uid), Some(account.gid))))
}

// ---- the folder

fn make_home(place: &PgPlace) -> Result<PathBuf> {
    let home = &place.data_dir;
    let there = home.exists();
    if there && place.throw_away {
        return Err(Error::Setup(format!("{} exists; a throw-away server removes its folder", home.display())));
    }
    if !there {
        naming_path(home, fs::create_dir_all(home.parent().unwrap_or(home)))?;
        naming_path(home, fs::create_dir(home))?;
        // The server's user must pass through root's folder; secret files in it have modes of their own.
        let mode = if Uid::effective().is_root() { 0o711 } else { 0o700 };
        naming_path(home, fs::set_permissions(home, fs::Permissions::from_mode(mode)))?;
    }
    naming_path(home, home.canonicalize())
}

/// Takes the lock on the folder. The kernel releases it when this process ends in any way.
fn take_lock(home: &Path) -> Result<File> {
    let path = home.join("lock");
    let mut lock = naming_path(
        &path,
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path),
    )?;
    match lock.try_lock() {
        Ok(()) => {
            naming_path(&path, lock.set_len(0))?;
            naming_path(&path, writeln!(lock, "{}", std::process::id()))?;
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _best_effort = lock.read_to_string(&mut pid);
            Err(Error::Setup(format!(
                "another notihub (pid {}) runs with the folder {}. Stop it, or give this one a folder of its own with \
                 --data-dir",
                pid.trim(),
                home.display(),
            )))
        }
        Err(TryLockError::Error(error)) => naming_path(&path, Err(error)),
    }
}

/// Makes the socket folder: `run` in the data folder, or a folder in /tmp if that path is too long for a socket or
/// needs escaping.
fn make_socket_dir(home: &Path, account: Option<&Account>) -> Result<PathBuf> {
    let run = home.join("run");
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let bytes = run.as_os_str().as_encoded_bytes();
    let dir = if bytes.len() <= SOCKET_DIR_BYTES_MAX && bytes.iter().all(plain) {
        run
    } else {
        let mut hasher = DefaultHasher::new();
        home.hash(&mut hasher);
        PathBuf::from(format!("/tmp/notihub-{:016x}", hasher.finish()))
    };
    let made = DirBuilder::new().mode(0o700).create(&dir);
    if made.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        naming_path(&dir, made)?;
    }
    // In /tmp another user may have made it first.
    let found = naming_path(&dir, dir.symlink_metadata())?;
    let owner = found.uid();
    if !found.is_dir() || (owner != Uid::effective().as_raw() && account.is_none_or(|account| account.uid != owner)) {
        return Err(Error::Setup(format!("{} belongs to another user. Remove it, or use --data-dir", dir.display())));
    }
    naming_path(&dir, fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)))?;
    change_owner(&dir, account)?;
    Ok(dir)
}

/// The port of the last start if it is free, so that noted addresses stay valid; otherwise any free port.
fn choose_port(home: &Path) -> Result<u16> {
    let path = home.join("port");
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, last));
    let listener = listener.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let port = listener.and_then(|listener| listener.local_addr()).map_err(|error| {
        Error::Setup(format!("no free port on 127.0.0.1: {error}. Use another server with --database-url"))
    })?;
    naming_path(&path, fs::write(&path, format!("{}\n", port.port())))?;
    Ok(port.port())
}

/// Makes the cluster beside its place and moves it there when it is complete and on disk, so that `pg` is never
/// incomplete.
async fn make_cluster(
    home: &Path,
    server: &InstalledServer,
    account: Option<&Account>,
    throw_away: bool,
) -> Result<()> {
    let began = Instant::now();
    for entry in naming_path(home, fs::read_dir(home))?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"pg.new") {
            let _best_effort = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
        }
    }
    // A new name, because the initdb of a killed process may still be writing to the earlier one.
    let new = home.join(format!("pg.new-{}", random_hex(4)?));
    let password = new.with_added_extension("password");
    write_password(&password, account)?;

    // Text is sorted by bytes, an order that no system upgrade can change under an index. With C.UTF-8, where the
    // system has it, letters of all scripts are classified as letters.
    let mut result = Ok(());
    for letters in ["C.UTF-8", "C"] {
        let mut initdb = server.command("initdb", account, home);
        naming_path(&new, DirBuilder::new().mode(0o700).create(&new))?;
        change_owner(&new, account)?;
        initdb.arg("-D").arg(&new).arg("--pwfile").arg(&password);
        initdb.args(["-U", "notihub", "-A", "scram-sha-256", "-E", "UTF8", "--data-checksums"]);
        initdb.args(["--locale=C", &format!("--lc-ctype={letters}"), "--no-sync", "--no-instructions"]);
        result = run(initdb, "").await;
        if result.is_ok() {
            break;
        }
        let _best_effort = fs::remove_dir_all(&new);
    }
    result?;
    let mut single = server.command("postgres", account, home);
    single.arg("--single").arg("-D").arg(&new);
    single.args(["-c", "fsync=off", "-c", "exit_on_error=on", "-c", "log_checkpoints=off", "template1"]);
    let app_password = write_password(&new.join(APP.password_file()), account)?;
    let sql = format!("create database notihub;\ncreate role {} login password '{app_password}';\n", APP.0);
    run(single, &sql).await?;
    let kept = new.join(OWNER.password_file());
    naming_path(&kept, fs::rename(&password, &kept))?;
    if !throw_away {
        let mut sync = server.command("initdb", account, home);
        sync.arg("--sync-only").arg("-D").arg(&new);
        run(sync, "").await?;
    }
    naming_path(home, fs::rename(&new, home.join("pg")))?;
    naming_path(home, File::open(home).and_then(|folder| folder.sync_all()))?;
    info!("made a PostgreSQL {} cluster in {} in {} ms", server.version, home.display(), began.elapsed().as_millis());
    Ok(())
}

/// Starts a shell that deletes a throw-away server when this process dies: the pipe between them closes in every case.
fn spawn_cleanup_guard(home: &Path) -> Result<Child> {
    const CLEAN: &str = r#"
        read -r _
        pid=$(head -n 1 "$0/pg/postmaster.pid") && kill -QUIT "$pid"
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            sleep 0.2
            kill -0 "$pid" && continue
            rm -rf "$0" && exit
        done
        rm -rf "$0"
    "#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", CLEAN]).arg(home).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| cannot_run(&command, &error))
}

// ---- `notihub pg -- CMD`

/// `notihub pg`: runs a command with a temporary server, whose URLs are in DATABASE_URL and
/// NOTIHUB_MIGRATE_DATABASE_URL (superuser) and in NOTIHUB_DATABASE_URL (the hub's role). The server is deleted
/// afterwards. Returns the command's exit code, or 128 + n if signal n ended it.
///
/// # Errors
/// `Error::Usage` without a command; `Error::Setup` if the server or the command cannot start.
pub async fn run_throw_away(command: Vec<OsString>) -> Result<i32> {
    let Some((program, args)) = command.split_first() else {
        return Err(Error::Usage("name the command to run: notihub pg -- psql".to_owned()));
    };
    let listen = |kind| signal(kind).map_err(|error| Error::Setup(format!("cannot listen for signals: {error}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let pg = tokio::select! {
        pg = PrivatePg::start(PgPlace::throw_away()?) => pg?,
        _ = term.recv() => return Ok(128 + Signal::SIGTERM as i32),
        _ = int.recv() => return Ok(128 + Signal::SIGINT as i32),
    };
    let spawned = Command::new(program)
        .args(args)
        .env("DATABASE_URL", pg.url())
        .env("NOTIHUB_MIGRATE_DATABASE_URL", pg.url())
        .env("NOTIHUB_DATABASE_URL", pg.app_url())
        .kill_on_drop(true)
        .spawn();
    let status = match spawned {
        Ok(mut child) => loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = term.recv() => forward_signal(&child, Signal::SIGTERM),
                // On a terminal the command has received Ctrl-C itself; a second signal means "at once" to many
                // programs.
                _ = int.recv() => if !io::stdin().is_terminal() { forward_signal(&child, Signal::SIGINT) },
            }
        },
        Err(error) => Err(error),
    };
    pg.stop().await?;
    let status = status.map_err(|error| {
        Error::Setup(format!("cannot run {}: {error}. Name a program that is installed", program.display()))
    })?;
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

fn forward_signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id() {
        // Fails only if the command has just ended.
        let _best_effort = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

// ---- small things

/// Runs a program of PostgreSQL to its end, with `input` on its standard input.
async fn run(mut command: Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_run(&command, &error))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends before reading reports the reason itself.
        let _best_effort = pipe.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| cannot_run(&command, &error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(cannot_run(&command, &tail(&String::from_utf8_lossy(&output.stderr), 12)))
}

fn cannot_run(command: &Command, why: &dyn Display) -> Error {
    let program = Path::new(command.as_std().get_program()).display();
    Error::Setup(format!(
        "cannot run {program}: {why}\nCorrect the cause that it names, or use another server with --database-url"
    ))
}

fn naming_path<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| {
        Error::Setup(format!(
            "cannot use {}: {error}. Give it to the user who runs notihub, or choose another folder with --data-dir",
            path.display(),
        ))
    })
}

fn random_hex(bytes: usize) -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut random = vec![0; bytes];
    naming_path(path, File::open(path).and_then(|mut source| source.read_exact(&mut random)))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn tail(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}
