//! An independent mail server (aiosmtpd), in a process of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use notihub::clock::Clock;
use notihub::provider::smtp::{Smtp, SmtpSettings, Tls};
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::support::app::start_time;

pub const BUDGET: Duration = Duration::from_secs(20);

/// Peers started by this process: each has its own folder.
pub static STARTED: AtomicU32 = AtomicU32::new(0);

pub struct Peer {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: BufReader<ChildStdout>,
    pub ports: Value,
    pub folder: PathBuf,
}

impl Peer {
    pub fn start() -> Peer {
        let python = python();
        let _already = rustls::crypto::ring::default_provider().install_default();
        let name = format!("notihub-peer-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        certificates(&folder);
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/smtp_peer.py"))
            .args([folder.join("server.pem"), folder.join("server.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It tells of every handshake that fails, as many here are meant to.
            .stderr(File::create(folder.join("said")).unwrap())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Peer { child, stdin: Some(stdin), stdout, ports: Value::Null, folder };
        peer.ports = peer.line();
        peer
    }

    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("the peer ended:\n{}", std::fs::read_to_string(self.folder.join("said")).unwrap_or_default())
        })
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports[name].as_u64().unwrap().try_into().unwrap()
    }

    pub fn settings(&self, tls: Tls) -> SmtpSettings {
        SmtpSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port(if tls == Tls::Implicit { "implicit" } else { "starttls" }),
            tls,
            username: Some("hub".to_owned()),
            password: Some("s3cret 비밀".to_owned()),
            from: "알림 센터 <hub@example.net>".to_owned(),
            call_budget: BUDGET,
            connect_budget: BUDGET,
            data_timeout: BUDGET,
            ca_file: Some(self.folder.join("ca.pem")),
            helo: None,
            allow_plaintext: false,
            throttled_pause: Duration::from_mins(5),
            clock: Clock::manual(start_time()),
            shutdown: Shutdown::new(),
        }
    }

    pub fn smtp(&self, tls: Tls) -> Smtp {
        Smtp::new(self.settings(tls)).unwrap()
    }

    /// What has arrived, and how connections went.
    pub fn arrived(&mut self) -> Value {
        self.order(&json!({}))
    }

    /// Changes the peer's rules, as the fixture describes them.
    pub fn order(&mut self, rules: &Value) -> Value {
        self.stdin.as_mut().unwrap().write_all(format!("{rules}\n").as_bytes()).unwrap();
        self.line()
    }

    pub fn only_mail(&mut self) -> Value {
        let mails = self.arrived()["mails"].take();
        assert_eq!(mails.as_array().unwrap().len(), 1, "{mails}");
        mails[0].clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its stdin.
        drop(self.stdin.take());
        let _ended = self.child.wait();
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// The system's Python is asked too: a distribution's package serves that one, whichever comes first in PATH.
pub fn python() -> &'static str {
    let has = |python: &&str| {
        let asked = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has).expect(
        "this test needs the Python package aiosmtpd: install it with `apt-get install python3-aiosmtpd` or `pip \
            install aiosmtpd`",
    )
}

/// An authority, and a server of its at 127.0.0.1 and at no other name.
pub fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in [("ca.pem", ca.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

pub fn header<'a>(mail: &'a Value, name: &str) -> Option<&'a str> {
    let mut headers = mail["headers"].as_array().unwrap().iter().filter(|header| header[0] == name);
    let found = headers.next().and_then(|header| header[1].as_str());
    assert!(headers.next().is_none(), "{name} stands twice in {mail}");
    found
}
