//! `notihub webhook verify`: verifies the signatures of a pasted request, and explains a failure.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use clap::Args;
use serde_json::{Value, json};

use super::{Output, print};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::model::signature::{self, SignatureChecks, SignatureFault, VerifiedBy};

/// The greatest size of a pasted request, so that a wrong file does not fill the memory.
const PASTED_BYTES: u64 = 4 << 20;

/// The secrets to verify with.
#[derive(Args)]
pub struct Secrets {
    /// An endpoint's secret, whsec_…; may be given several times, for a rotation.
    #[arg(
        long,
        env = "NOTIHUB_WEBHOOK_SECRET",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "SECRET",
        value_parser = parse_secret
    )]
    secret: Vec<String>,
    /// A file with one secret per line, in addition to --secret.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

fn parse_secret(text: &str) -> Result<String, String> {
    let secret = text.trim().to_owned();
    let valid = signature::decode_secret(&secret).is_some();
    valid.then_some(secret).ok_or_else(|| "a secret is whsec_ and 24 to 64 bytes as base64".to_owned())
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.secret.len())
    }
}

impl Secrets {
    /// The secrets of the flags and of the file.
    ///
    /// # Errors
    /// `Error::Usage` if the file cannot be read or a line is not a secret.
    pub fn read(&self) -> Result<Vec<String>> {
        let Some(path) = &self.secret_file else { return Ok(self.secret.clone()) };
        let wrong = |why: &dyn std::fmt::Display| Error::Usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let read: Result<Vec<String>> = lines.map(|line| parse_secret(line).map_err(|why| wrong(&why))).collect();
        Ok([self.secret.clone(), read?].concat())
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all signatures are valid, 1 not valid, 2 the request cannot be read.\n\nExample:\n  \
        pbpaste | \
NOTIHUB_WEBHOOK_SECRET=whsec_… notihub webhook verify --ignore-time"
)]
pub struct Verify {
    #[command(flatten)]
    secrets: Secrets,
    /// Accept any timestamp: a pasted request is usually older than five minutes.
    #[arg(long)]
    ignore_time: bool,
    /// Verify as of this time: Unix seconds, or a time like 2026-12-24T09:00:00+09:00.
    #[arg(long, value_name = "TIME", conflicts_with = "ignore_time", value_parser = parse_time)]
    at: Option<i64>,
    /// The request, as `webhook listen --save` writes it [default: standard input].
    file: Option<PathBuf>,
}

fn parse_time(text: &str) -> Result<i64, String> {
    let seconds = text.parse().ok().or_else(|| Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp()));
    seconds.ok_or_else(|| "a time is Unix seconds or RFC 3339 with offset".to_owned())
}

/// `notihub webhook verify`: prints the result for each signature. Returns the exit code: 1 if one is not valid.
///
/// # Errors
/// `Error::Usage` (exit code 2) without a secret, or if the request cannot be read.
pub fn run(args: Verify, output: Output) -> Result<u8> {
    let secrets = args.secrets.read()?;
    if secrets.is_empty() {
        return Err(Error::Usage("no secret: give --secret, NOTIHUB_WEBHOOK_SECRET or --secret-file".into()));
    }
    let pasted = read(args.file.as_deref())?;
    let Some(request) = PastedRequest::parse(&pasted) else {
        return Err(Error::Usage(
            "this is not a request: paste start line, headers, an empty line and the body".into(),
        ));
    };
    let now = if args.ignore_time { None } else { Some(args.at.unwrap_or(Clock::system().now().timestamp())) };
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let (findings, cut) = request.verify(&secrets, now);
    let valid = findings.all_valid();
    let hints = hints(&findings, &request);
    match output {
        Output::Json => print::json(&json!({
            "valid": valid,
            "signatures": findings_json(&findings),
            "lastNewlineTakenAway": cut,
            "hints": hints,
        })),
        Output::Text => {
            let mut text = findings_text(&findings);
            if cut {
                text.push("the last newline of the body was ignored, because pasting added it".to_owned());
            }
            text.extend(hints.into_iter().map(|hint| format!("→ {hint}")));
            let verdict =
                if valid { print::paint(print::GOOD, "valid") } else { print::paint(print::BAD, "not valid") };
            anstream::println!("{}\n{verdict}", text.join("\n"));
        }
    }
    Ok(u8::from(!valid))
}

fn read(file: Option<&Path>) -> Result<Vec<u8>> {
    let wrong = |e: std::io::Error| Error::Usage(format!("the request cannot be read: {e}"));
    let mut bytes = Vec::new();
    let read = match file {
        Some(path) if path.as_os_str() != "-" => {
            std::fs::File::open(path).map_err(wrong)?.take(PASTED_BYTES + 1).read_to_end(&mut bytes)
        }
        _ => std::io::stdin().take(PASTED_BYTES + 1).read_to_end(&mut bytes),
    };
    read.map_err(wrong)?;
    if bytes.len() as u64 > PASTED_BYTES {
        return Err(Error::Usage("the request is larger than 4 MiB".into()));
    }
    Ok(bytes)
}

/// A pasted request. The start line may be missing, and lines may end in LF alone.
struct PastedRequest<'p> {
    headers: Vec<(&'p str, &'p [u8])>,
    body: &'p [u8],
}

impl<'p> PastedRequest<'p> {
    fn parse(pasted: &'p [u8]) -> Option<PastedRequest<'p>> {
        let (mut headers, mut rest, mut first) = (Vec::new(), pasted.trim_ascii_start(), true);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            rest = &rest[end + 1..];
            if line.is_empty() {
                return (!headers.is_empty()).then_some(PastedRequest { headers, body: rest });
            }
            match header(line) {
                Some(header) => headers.push(header),
                None if first => (),
                None => return None,
            }
            first = false;
        }
        // An empty body may have lost its empty line; the last header, its newline.
        headers.extend(header(rest.strip_suffix(b"\r").unwrap_or(rest)));
        (!headers.is_empty()).then_some(PastedRequest { headers, body: &[] })
    }

    /// Verifies the body as pasted and without its last newline, which editors and `echo` add. Returns the better
    /// result, and whether the newline was ignored.
    fn verify(&self, secrets: &[&str], now: Option<i64>) -> (SignatureChecks, bool) {
        let whole = signature::verify(secrets, &self.headers, self.body, now);
        let cut = self.body.strip_suffix(b"\n").map(|body| body.strip_suffix(b"\r").unwrap_or(body));
        let cut = cut.map(|body| signature::verify(secrets, &self.headers, body, now));
        match cut.filter(|cut| matching_signatures(cut) > matching_signatures(&whole)) {
            Some(cut) => (cut, true),
            None => (whole, false),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// The number of signatures that match the body, whether or not the timestamp is accepted.
fn matching_signatures(findings: &SignatureChecks) -> usize {
    let found = [&findings.seed, &findings.standard].into_iter().flatten();
    found.filter(|found| matches!(found, Ok(_) | Err(SignatureFault::Time(_)))).count()
}

/// `Name: value`; a start line has a space before its first colon, or no colon.
fn header(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    token.then(|| (name, line[colon + 1..].trim_ascii()))
}

/// The result for each signature as a line for people.
pub fn findings_text(findings: &SignatureChecks) -> Vec<String> {
    let line = |name: &str, found: &Option<Result<VerifiedBy, SignatureFault>>| {
        let (style, text) = match found {
            None => (print::DIM, "not there".to_owned()),
            Some(Ok(VerifiedBy { header, secret })) if *secret == 0 && *header != signature::X_SIGNATURE_NEXT => {
                (print::GOOD, "holds".to_owned())
            }
            Some(Ok(VerifiedBy { header, secret })) => {
                (print::GOOD, format!("holds ({header}, secret {})", secret + 1))
            }
            Some(Err(fault)) => (print::BAD, format!("does not hold: {fault}")),
        };
        format!("{name:<18} {}", print::paint(style, &text))
    };
    vec![line("X-Signature", &findings.seed), line("webhook-signature", &findings.standard)]
}

/// The result for each signature as JSON.
pub fn findings_json(findings: &SignatureChecks) -> Value {
    let one = |found: &Option<Result<VerifiedBy, SignatureFault>>| match found {
        None => Value::Null,
        Some(Ok(VerifiedBy { header, secret })) => json!({"holds": true, "header": header, "secret": secret + 1}),
        Some(Err(fault)) => json!({"holds": false, "why": fault.to_string()}),
    };
    json!({"xSignature": one(&findings.seed), "webhookSignature": one(&findings.standard)})
}

/// Hints for a failed verification.
fn hints(findings: &SignatureChecks, request: &PastedRequest<'_>) -> Vec<&'static str> {
    let faults: Vec<&SignatureFault> =
        [&findings.seed, &findings.standard].into_iter().flatten().filter_map(|f| f.as_ref().err()).collect();
    let mut hints = Vec::new();
    if findings.seed.is_none() && findings.standard.is_none() {
        hints.push("there is no signature header: check that this is a whole request of notihub");
    }
    if faults.iter().any(|f| matches!(f, SignatureFault::Time(_))) {
        hints.push(
            "a pasted request is older than the tolerance: --ignore-time accepts any time, --at sets the time \
            of receipt",
        );
    }
    if faults.iter().any(|f| matches!(f, SignatureFault::Differs(..))) {
        hints.push(
            "use the secret of this endpoint, complete with whsec_; it is shown once, and rotating makes a new one",
        );
        hints.push("use the exact bytes of the body: JSON that was parsed and serialised again has other bytes");
        if request.header("transfer-encoding").is_some() {
            hints.push("this body has chunked encoding: paste it without the chunk sizes");
        }
        let length = request.header("content-length").and_then(|length| length.parse::<usize>().ok());
        if length.is_some_and(|length| length != request.body.len()) {
            hints.push("the body does not have the length of its Content-Length: it was cut, or changed by pasting");
        }
    }
    if faults
        .iter()
        .any(|f| matches!(f, SignatureFault::Missing(_) | SignatureFault::Repeated(_) | SignatureFault::Malformed(..)))
    {
        hints.push("a proxy may drop, join or repeat headers: compare with what `notihub webhook listen` receives");
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn pasted(secret: &str, body: &str, newline: &str) -> String {
        let headers = signature::headers(secret, None, "0ABCDEFGHJKMN-1-1", NOW, body.as_bytes());
        let headers: String = headers.iter().map(|(n, v)| format!("{n}:  {v}{newline}")).collect();
        format!("POST /a:b HTTP/1.1{newline}Host: x:1{newline}{headers}{newline}{body}")
    }

    #[test]
    fn what_people_paste_is_read() {
        let key = signature::encode_secret(&[3; 32]);
        let body = "{\"n\": 1,\n \"s\": \"가\"}";
        for newline in ["\n", "\r\n"] {
            let plain = pasted(&key, body, newline);
            let headless = plain.split_once(newline).unwrap().1.to_owned();
            let above = format!("\r\n\n{plain}");
            for (text, cut) in [(&plain, false), (&headless, false), (&above, false)]
                .into_iter()
                .map(|(text, cut)| (text.clone(), cut))
                .chain([(format!("{plain}\n"), true), (format!("{plain}\r\n"), true)])
            {
                let request = PastedRequest::parse(text.as_bytes()).unwrap();
                let (findings, was_cut) = request.verify(&[&key], Some(NOW));
                assert!(findings.all_valid() && was_cut == cut, "{text:?}");
                assert_eq!(request.verify(&[&key], Some(NOW + 9999)).1, cut, "also when it is late");
            }
            assert!(
                !PastedRequest::parse(format!("{plain}\n\n").as_bytes())
                    .unwrap()
                    .verify(&[&key], Some(NOW))
                    .0
                    .all_valid()
            );
            let empty = pasted(&key, "", newline);
            for end in [empty.as_str(), empty.trim_end()] {
                assert!(
                    PastedRequest::parse(end.as_bytes()).unwrap().verify(&[&key], Some(NOW)).0.all_valid(),
                    "{end:?}"
                );
            }
        }
        for nonsense in ["", "\n\n", "hello", "{\"a\": 1}", "POST / HTTP/1.1\n\nbody", "A: b\nno header\n\nbody"] {
            assert!(PastedRequest::parse(nonsense.as_bytes()).is_none(), "{nonsense:?}");
        }
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!((parse_time("1800000000"), parse_time("2027-01-15T17:00:00+09:00")), (Ok(NOW), Ok(NOW)));
        assert!(parse_time("yesterday").is_err());
    }
}
