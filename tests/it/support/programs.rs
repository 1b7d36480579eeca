//! Programs that a machine may lack.

use std::process::{Command, Stdio};

use crate::laws::root;

/// A Python that has this package. The system's is asked too: a distribution's package serves that one, whichever comes
/// first in PATH.
pub fn python(package: &str) -> &'static str {
    let has = |python: &&str| {
        let import = format!("import {package}");
        let asked = Command::new(python).args(["-c", &import]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    found.unwrap_or_else(|| panic!("this test needs a Python package: `pip install {package}`, as .ci/run does"))
}

/// Where `.ci/run` puts the library for JavaScript; none on a machine without Node and npm.
#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
pub fn node_library() -> Option<String> {
    let folder = root().join("target/npm");
    if !is_there("node") || !is_there("npm") {
        println!("the library for JavaScript is skipped: there is no node with npm here");
        return None;
    }
    assert!(
        folder.join("node_modules/standardwebhooks").is_dir(),
        "this test needs a package: `npm install --prefix target/npm standardwebhooks@1.1.1`, as .ci/run does"
    );
    Some(folder.to_str().unwrap().to_owned())
}

/// Programs that a machine may lack: tests that need one are left out there.
pub const OPTIONAL: [&str; 8] = ["curl", "openssl", "python3", "node", "npm", "javac", "kotlinc", "chromium"];

/// Whether one of the optional programs is in PATH. Where `TEST_REQUIRE` names it, as `.ci/run` does (`openssl,javac`),
/// a program that is missing fails the test. The variable does not begin with `NOTIHUB_`: those are settings, and the
/// program warns of others.
pub fn is_there(program: &str) -> bool {
    let required = std::env::var("TEST_REQUIRE").unwrap_or_default();
    let required: Vec<&str> = required.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert!(required.iter().all(|name| OPTIONAL.contains(name)), "TEST_REQUIRE names one that is none of {OPTIONAL:?}");
    assert!(OPTIONAL.contains(&program), "{program} is none of {OPTIONAL:?}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(found || !required.contains(&program), "TEST_REQUIRE names {program}, and it is not in PATH");
    found
}
