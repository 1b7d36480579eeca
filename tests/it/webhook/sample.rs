//! The samples of the document verify-webhooks: they stand there as they are tested here, and each whose runtime is on
//! this machine judges real requests.

use std::process::{Command, Stdio};

use notihub::clock::Clock;
use notihub::model::signature;

use crate::laws::{files, read, root};
use crate::support::process::Folder;
use crate::support::programs::{is_there, python};
use crate::webhook::SECRET;

const FOLDER: &str = "tests/fixtures/webhook_samples";

/// (sample, what runs it, what must be on the machine for that)
const SAMPLES: [(&str, &[&str], &str); 5] = [
    ("verify.sh", &["sh"], "openssl"),
    ("verify.py", &["python3"], "python3"),
    ("verify.mjs", &["node"], "node"),
    ("Verify.java", &["sh", "-c", JAVA], "javac"),
    ("Verify.kt", &["sh", "-c", KOTLIN], "kotlinc"),
];

/// Compiled once.
const JAVA: &str = r#"
    [ -f Verify.class ] || javac -d . "$0"
    java -cp . Verify "$1" "$2""#;

const KOTLIN: &str = r#"
    [ -f "sample.jar" ] || kotlinc "$0" -include-runtime -d "sample.jar" 2>/dev/null
    java -jar "sample.jar" "$1" "$2""#;

/// The samples that people copy are the ones that are tested.
#[test]
fn webhook_samples_in_the_document_are_the_tested_ones() {
    let document = read(&root().join("src/docs/verify-webhooks.md"));
    let section = document.split("\n## ").find(|section| section.starts_with("Samples\n")).expect("the section");
    // Every second piece between fences is code; its first line names the language.
    let blocks: Vec<&str> =
        section.split("```").skip(1).step_by(2).filter_map(|b| Some(b.split_once('\n')?.1)).collect();
    let samples = files(FOLDER, "");
    assert_eq!(samples.len(), SAMPLES.len() + 1);
    for sample in samples {
        assert!(blocks.contains(&read(&sample).as_str()), "the document does not have {} as it is", sample.display());
    }
}

/// S0-45, S0-49: each sample takes a request that is as it was signed, and none with a bit changed, sent late, signed
/// with another secret, or with none where the sample was given none.
#[test]
fn webhook_sample_accepts_a_signed_request_alone() {
    let (folder, now) = (Folder::new(), Clock::system().now().timestamp());
    let body = "{\"event\":\"delivery.sent\",\"title\":\"한글 🎉\\n\\u0000\"}\r\n".as_bytes();
    let signed = signature::seed_signature(SECRET, now, body);
    let at = now.to_string();
    let flipped = |text: &[u8], byte: usize, bit: u8| {
        let mut flipped = text.to_vec();
        flipped[byte] ^= 1 << bit;
        flipped
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    // A signature with an empty secret is refused, also by a receiver that forgot to set its secret.
    let forged = signature::seed_signature("", now, body);
    let mut requests = vec![("as it was signed", at.clone(), signed.clone(), body.to_vec(), true)];
    for (byte, bit) in [(0, 0), (20, 5), (body.len() - 1, 2)] {
        requests.push(("a bit of the body", at.clone(), signed.clone(), flipped(body, byte, bit), false));
    }
    requests.push((
        "a bit of the time",
        text(flipped(at.as_bytes(), at.len() - 1, 0)),
        signed.clone(),
        body.to_vec(),
        false,
    ));
    for (byte, bit) in [(0, 0), (63, 1)] {
        requests.push((
            "a bit of the signature",
            at.clone(),
            text(flipped(signed.as_bytes(), byte, bit)),
            body.to_vec(),
            false,
        ));
    }
    requests.push(("a signature cut off", at.clone(), signed[..63].to_owned(), body.to_vec(), false));
    requests.push(("no signature", at.clone(), String::new(), body.to_vec(), false));
    let other = signature::seed_signature(&SECRET[..37], now, body);
    requests.push(("another secret", at, other, body.to_vec(), false));
    for late in [now - 400, now + 400] {
        requests.push((
            "sent late",
            late.to_string(),
            signature::seed_signature(SECRET, late, body),
            body.to_vec(),
            false,
        ));
    }
    let odd = "a[$(touch${IFS}owned)]";
    requests.push(("a time that is none", odd.to_owned(), "0".repeat(64), body.to_vec(), false));

    for (sample, command, needed) in SAMPLES {
        if !is_there(needed) {
            println!("{sample} is skipped: there is no {needed} here");
            continue;
        }
        let run = |secret: Option<&str>, at: &str, signature: &str, body: &[u8]| {
            let file = folder.path().join("body");
            std::fs::write(&file, body).unwrap();
            let mut command_line = Command::new(command[0]);
            command_line.args(&command[1..]).arg(root().join(FOLDER).join(sample)).args([at, signature]);
            match secret {
                Some(secret) => command_line.env("WEBHOOK_SECRET", secret),
                None => command_line.env_remove("WEBHOOK_SECRET"),
            };
            command_line.current_dir(folder.path()).stdin(std::fs::File::open(&file).unwrap()).output().unwrap()
        };
        for secret in [Some(""), None] {
            let ran = run(secret, &now.to_string(), &forged, body);
            assert_eq!((ran.status.code(), ran.stderr.len()), (Some(1), 0), "{sample}, {secret:?}: {ran:?}");
        }
        for (name, at, signature, body, valid) in &requests {
            let ran = run(Some(SECRET), at, signature, body);
            let code = ran.status.code();
            assert_eq!(code, Some(i32::from(!valid)), "{sample}: {name}: {}", String::from_utf8_lossy(&ran.stderr));
            assert!(ran.stderr.is_empty() && !folder.path().join("owned").exists(), "{sample}: {name}: {ran:?}");
        }
    }
}

/// The two lines with the official library do the same.
#[test]
fn webhook_sample_with_the_library_verifies() {
    let (folder, now) = (Folder::new(), Clock::system().now().timestamp());
    let sample = root().join(FOLDER).join("verify_standard.py");
    let body = "{\"event\": \"delivery.sent\"}";
    let cases = [
        (SECRET, body, true),
        (SECRET, "{\"event\": \"delivery.Sent\"}", false),
        ("", body, false),
        ("whsec_", body, false),
    ];
    for (secret, sent, valid) in cases {
        let headers: serde_json::Map<String, serde_json::Value> =
            signature::headers(secret, None, "id-1", now, body.as_bytes())
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
        let with = serde_json::json!({"secret": secret, "body": sent, "headers": headers}).to_string();
        let program = "import json, sys; names = json.loads(sys.argv[2]); exec(open(sys.argv[1]).read(), names); \
            print(names['event']['event'])";
        let ran = Command::new(python("standardwebhooks"))
            .args(["-c", program])
            .arg(&sample)
            .arg(with)
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert_eq!((ran.status.success(), ran.stdout == b"delivery.sent\n"), (valid, valid));
    }
}
