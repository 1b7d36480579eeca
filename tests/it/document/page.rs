//! The documents that the program carries: as pages, on a terminal, whole, fresh, and with lines that work.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use notihub::config::reference::reference;
use notihub::docs::{self, COMMANDS};
use notihub::error::{CODES, DELIVERY_REASONS, REASONS};
use notihub::limits;
use notihub::model::delivery::TRANSITIONS;
use notihub::model::event::EVENT_KINDS;
use notihub::telemetry::Metrics;
use notihub::ui::generated;

use crate::laws::{files, read, root, within};
use crate::support::app::App;
use crate::support::process::{Folder, Notihub};
use crate::support::programs::is_there;

/// Status, content type, policy and text of an answer to a caller who did not sign in.
async fn page(app: &App, path: &str) -> (u16, String, String, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(app.uri(path)).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, kind, policy) = (answer.status().as_u16(), header("content-type"), header("content-security-policy"));
    (status, kind, policy, answer.text().await.unwrap())
}

/// The values of an attribute in a page.
fn attributes(html: &str, name: &str) -> BTreeSet<String> {
    let opening = format!(" {name}=\"");
    let pieces = html.split(&opening).skip(1);
    pieces.map(|piece| piece.split('"').next().unwrap().to_owned()).collect()
}

/// Each topic is a public page without scripts; each link of a page leads to a page, and to an anchor there.
#[tokio::test]
async fn pages_are_public_and_their_links_lead_somewhere() {
    let app = App::new().await;
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    let (status, kind, _, index) = page(&app, "/docs").await;
    assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
    pages.insert("/docs".into(), index);
    for topic in docs::topics() {
        let path = format!("/docs/{}", topic.name);
        let (status, kind, policy, html) = page(&app, &path).await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"), "{path}");
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{path}: {policy}");
        assert!(!html.contains("<script") && !html.contains(" style=") && !html.contains("{{"), "{path}");
        assert!(html.contains(&format!("<a href=\"{path}\" aria-current=\"page\">")), "{path} is not in its own list");
        assert!(pages["/docs"].contains(&format!("href=\"{path}\"")), "{path} is not in the list of all");
        pages.insert(path, html);
    }
    let anchors: BTreeMap<&String, BTreeSet<String>> =
        pages.iter().map(|(path, html)| (path, attributes(html, "id"))).collect();
    let mut followed = 0;
    for (path, html) in &pages {
        for link in attributes(html, "href").into_iter().filter(|link| !link.starts_with("https://")) {
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if target.is_empty() { path.clone() } else { target.to_owned() };
            match anchors.get(&target) {
                Some(there) => {
                    assert!(anchor.is_empty() || there.contains(anchor), "{path}: {link} leads to no heading")
                }
                None => assert_eq!(page(&app, &target).await.0, 200, "{path}: {link}"),
            }
            followed += 1;
        }
    }
    assert!(followed > 500, "only {followed} links were followed");
    app.done().await;
}

/// The pages with scripts contain none, and run those of the hub alone; what they load is there.
#[tokio::test]
async fn pages_with_scripts_run_only_those_of_the_hub() {
    let app = App::new().await;
    for path in ["/inbox/demo", "/chat/demo"] {
        let (status, kind, policy, html) = page(&app, path).await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"), "{path}");
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "trusted-types-for 'script'"] {
            assert!(policy.contains(rule) && !policy.contains("unsafe"), "{path}: {policy}");
        }
        for script in html.split("<script").skip(1) {
            let (tag, rest) = script.split_once('>').unwrap();
            assert!(tag.contains(" src=\"/") && rest.starts_with("</script>"), "{path}: <script{tag}");
        }
        let is_handler = |rest: &str| rest.trim_start_matches(char::is_alphabetic).starts_with('=');
        assert!(!html.split(" on").skip(1).any(is_handler), "{path} has a handler");
        assert!(!html.contains("<style") && !html.contains(" style="), "{path}");
        let named = attributes(&html, "src").into_iter().chain(attributes(&html, "href"));
        let mut wanted: Vec<String> = named.filter(|file| file.starts_with('/')).collect();
        while let Some(file) = wanted.pop() {
            let (status, kind, _, text) = page(&app, &file).await;
            assert_eq!(status, 200, "{path}: {file}");
            assert_eq!(kind.starts_with("text/javascript"), file.ends_with(".js"), "{file}: {kind}");
            if file.ends_with(".js") {
                let imported = text.split(" from \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
                wanted.extend(imported);
            }
        }
    }
    app.done().await;
}

/// The Markdown of each topic is served beside its page, and /llms.txt leads to all of them; any other topic is a page
/// that leads to the list.
#[tokio::test]
async fn pages_are_served_as_markdown_with_llms_txt() {
    let app = App::new().await;
    let (status, kind, _, llms) = page(&app, "/llms.txt").await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
    assert!(llms.starts_with("# notihub\n\n> "), "{llms}");
    for topic in docs::topics() {
        let path = format!("/docs/{}.md", topic.name);
        assert!(llms.contains(&format!("]({path}): ")), "/llms.txt does not name {path}");
        let (status, kind, _, text) = page(&app, &path).await;
        assert_eq!((status, kind.as_str()), (200, "text/markdown; charset=utf-8"), "{path}");
        assert_eq!(text, generated::text(topic));
    }
    for missing in ["/docs/nothing", "/docs/nothing.md", "/docs/%FF"] {
        let (status, kind, policy, html) = page(&app, missing).await;
        assert_eq!((status, kind.as_str()), (404, "text/html; charset=utf-8"), "{missing}");
        assert!(!policy.is_empty() && html.contains("<a href=\"/docs\">"), "{missing}: {html}");
    }
    let (status, kind, ..) = page(&app, "/docs/style.css").await;
    assert_eq!((status, kind.as_str()), (200, "text/css; charset=utf-8"));
    app.done().await;
}

/// The documents name all that the code has.
#[tokio::test]
async fn pages_name_all_that_the_code_has() {
    let text = |name: &str| generated::text(docs::find(name).unwrap());
    for topic in docs::topics() {
        let text = generated::text(topic);
        assert!(!text.contains("{{"), "{}: nothing fills {:?}", topic.name, text.split("{{").nth(1));
        assert!(topic.source.starts_with("# ") && !topic.summary().is_empty(), "{}: no title or summary", topic.name);
    }
    let errors = text("errors");
    let words = CODES.iter().map(|row| row.1).chain(REASONS.iter().map(|r| r.word));
    for word in words.chain(DELIVERY_REASONS.iter().map(|row| row.0)) {
        assert!(errors.contains(&format!("`{word}`")), "errors lacks {word}");
    }
    let lifecycle = text("lifecycle");
    for (from, to, why) in TRANSITIONS {
        assert!(lifecycle.contains(&format!("| `{from}` | `{to}` | {why} |\n")), "lifecycle lacks {from} to {to}");
        assert!(lifecycle.contains(&format!("\n  {from} --> {to}\n")), "the diagram lacks {from} to {to}");
    }
    let configuration = text("configuration");
    assert!(reference().len() > 60, "only {} settings are known", reference().len());
    for setting in reference() {
        assert!(configuration.contains(&format!("`{}`", setting.variable)), "configuration lacks {}", setting.name);
    }
    let (metrics, served) = (text("metrics-and-alerts"), App::new().await);
    let names: BTreeSet<String> = Metrics::new().unwrap().described.into_iter().map(|metric| metric.name).collect();
    let all = served.metrics().await.text;
    for name in all.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
        assert!(names.contains(name), "{name} is served and not described");
    }
    for name in names {
        assert!(metrics.contains(&format!("`{name}`")), "metrics-and-alerts lacks {name}");
    }
    served.done().await;
}

/// The numbers that documents repeat are those of the code.
#[test]
fn pages_have_the_limits_of_the_code() {
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    for (topic, printed) in [
        ("sending", format!("up to {} characters", limits::KIND_CHARS)),
        ("sending", format!("up to {} objects", limits::CHANNELS)),
        ("sending", format!("A title has up to {} characters", limits::TITLE_CHARS)),
        ("sending", format!("a body up to {}", kib(limits::TEXT_BYTES))),
        ("sending", format!("a flat object of up to {}", kib(limits::METADATA_BYTES))),
        ("sending", format!("up to {},000, all or none", limits::BATCH_MESSAGES / 1_000)),
        ("sending", format!("up to {},000 deliveries in all", limits::DELIVERIES / 1_000)),
        ("sending", format!("up to {} and", limits::SCHEDULE_AHEAD.as_secs() / 86_400)),
        ("channels", format!("HTML of an e-mail up to {}", kib(limits::HTML_BYTES))),
        ("channels", format!("LMS or MMS has up to {} bytes", limits::MOBILE_SUBJECT_BYTES)),
        ("webhooks", format!("up to {} endpoints", limits::ENDPOINTS)),
        ("webhooks", format!("The first {} of each response", kib(limits::WEBHOOK_ANSWER_BYTES))),
        ("access", format!("may hold {} connections", limits::STRANGERS_OF_ADDRESS)),
        ("access", format!("reads nothing for {} s", limits::WRITE_TIMEOUT.as_secs())),
        ("errors", format!("{} at most", limits::FAULTS)),
    ] {
        let text = generated::text(docs::find(topic).unwrap()).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&printed), "{topic} does not say \"{printed}\"");
    }
    let webhooks = docs::find("webhooks").unwrap().source;
    for kind in EVENT_KINDS {
        assert!(webhooks.contains(&format!("`{}`", kind.as_str())), "webhooks lacks {}", kind.as_str());
    }
    let retries = generated::text(docs::find("lifecycle").unwrap());
    assert!(retries.contains("| `EMAIL` | 13 | 4 days | 5 s, 1 m, 5 m, 30 m, 1 h,"), "{retries}");
    assert!(retries.contains("| `WEBHOOK` | 10 | counts as a refusal | 5 s, 5 m,"), "{retries}");
}

/// The commands in the documents are those of the program.
#[tokio::test]
async fn pages_of_commands_are_fresh() {
    let folder = Folder::new();
    let to = folder.path().display().to_string();
    Notihub::new(&folder, &["docs", "--generate", &to]).run().await.expect(0);
    let fresh = read(&folder.path().join("commands.txt"));
    assert!(fresh.matches("\n## notihub ").count() > 15, "{fresh}");
    assert!(COMMANDS == fresh, "commands.txt is stale: run `cargo run -- docs --generate src/docs` and build again");
}

/// `notihub docs` lists the topics and prints each of them, in text and in JSON; an unknown topic is a usage error that
/// lists all.
#[tokio::test]
async fn docs_command_prints_each_topic() {
    let folder = Folder::new();
    let run = async |args: &[&str]| Notihub::new(&folder, args).run().await;
    let list = run(&["docs"]).await.expect(0).stdout;
    let listed = run(&["docs", "--output=json"]).await.expect(0).json();
    for (n, topic) in docs::topics().enumerate() {
        assert!(list.contains(&format!("  {} ", topic.name)), "{}: {list}", topic.name);
        assert_eq!(listed["topics"][n]["topic"], topic.name);
    }
    for topic in docs::topics() {
        let shown = run(&["docs", topic.name]).await.expect(0).stdout;
        assert!(shown.starts_with(&format!("{}\n\n", topic.title())), "{}: {shown}", topic.name);
        assert!(!shown.contains('\u{1b}'), "{}: colours are for terminals", topic.name);
        let report = run(&["docs", topic.name, "--output=json"]).await.expect(0).json();
        let wanted = (topic.name, topic.title(), generated::text(topic));
        assert_eq!((report["topic"].as_str(), report["title"].as_str()), (Some(wanted.0), Some(wanted.1)));
        assert_eq!(report["text"].as_str(), Some(wanted.2.as_str()));
    }
    let unknown = run(&["docs", "nothing"]).await.expect(2);
    assert!(unknown.stderr.contains("quickstart, concepts, lifecycle"), "{}", unknown.stderr);
}

/// The code blocks of a document in a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Every line of the quickstart does what it says, in their order, beside the hub of its first line.
#[tokio::test]
async fn quickstart_works_line_by_line() {
    let text = read(&root().join("src/docs/quickstart.md"));
    let lines = blocks(&text, "sh");
    assert_eq!(lines[0], "bin/up --demo\n");
    assert!(read(&root().join("bin/up")).contains("exec target/release/notihub up \"$@\""), "bin/up is another");
    if !is_there("curl") {
        println!("skipped: there is no curl here");
        return;
    }
    let folder = Folder::new();
    let data = format!("--data-dir={}", folder.data().display());
    let mut up = Notihub::new(&folder, &["up", "--demo", "--listen=127.0.0.1:0", &data]).start();
    let url = format!("http://{}", up.address().await);
    up.says("Ctrl-C stops everything").await;

    // The program where the lines look for it.
    std::fs::create_dir_all(folder.path().join("target/release")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_notihub"), folder.path().join("target/release/notihub")).unwrap();
    let script = lines[1..].concat().replace("http://127.0.0.1:8080", &url);
    let kept = ["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let ran = tokio::process::Command::new("sh")
        .args(["-euc", &script])
        .current_dir(folder.path())
        .env_clear()
        .envs(kept)
        .env("NOTIHUB_URL", &url)
        .env("NOTIHUB_DATA_DIR", folder.data())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{stdout}\n{stderr}");
    for report in [
        "\"messageId\":\"",
        "\"clientMsgId\":\"order-2026-1234\"",
        "\"what\":\"accepted\"",
        "COMPLETED",
        "\"ready\":true",
    ] {
        assert!(stdout.contains(report), "{report}: {stdout}\n{stderr}");
    }
    up.stop().await.expect(0);
}

/// Whether a document may call this so: a file of the repository, or a module of the code with perhaps one item of it.
fn exists(named: &str) -> bool {
    if named.ends_with(".rs") || named.ends_with(".sql") || named.ends_with(".yaml") {
        return root().join(named).is_file() || root().join("src").join(named).is_file();
    }
    let steps: Vec<&str> = named.split("::").collect();
    let file = |steps: &[&str]| {
        let path = format!("src/{}", steps.join("/"));
        [format!("{path}.rs"), format!("{path}/mod.rs")].into_iter().map(|p| root().join(p)).find(|p| p.is_file())
    };
    match (file(&steps), steps.split_last()) {
        (Some(_), _) => true,
        (None, Some((item, module))) => file(module).is_some_and(|file| {
            let source = read(&file);
            source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *item)
        }),
        (None, None) => false,
    }
}

/// Files and modules that documents name are there.
#[test]
fn pages_name_files_and_modules_that_exist() {
    let mut seen = 0;
    for topic in docs::topics().filter(|topic| topic.name != "requirements") {
        // Every second piece between backticks is code; blocks of it are left out.
        let prose: String = topic.source.split("```").step_by(2).collect();
        for named in prose.split('`').skip(1).step_by(2) {
            let is_file = [".rs", ".sql", ".yaml"].iter().any(|end| named.ends_with(end));
            let is_module = named.contains("::") && named.starts_with(char::is_lowercase);
            let is_a_pattern =
                named.starts_with('.') || named.contains(|c: char| c.is_whitespace()) || named.contains("NOUN");
            if (is_file || is_module) && !is_a_pattern && !named.contains("VENDOR") {
                assert!(exists(named), "{}: `{named}` does not exist", topic.name);
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "only {seen} names were checked");
    for gone in ["flow::nothing", "clock::Sundial", "src/nothing.rs", "worker/nothing.rs", "nothing::at_all"] {
        assert!(!exists(gone), "{gone}");
    }
}

/// README is short, and says nothing that is not so: its links lead to files, it leads to every document, and its first
/// message is the one that the quickstart posts.
#[test]
fn readme_is_short_and_leads_to_the_pages() {
    let readme = read(&root().join("README.md"));
    assert!(readme.lines().count() <= 150, "README.md has {} lines", readme.lines().count());
    for line in readme.lines() {
        assert!(line.chars().count() <= 100, "README.md: {line}");
    }
    let links = readme.split("](").skip(1).map(|piece| piece.split(')').next().unwrap());
    let links: BTreeSet<&str> = links.filter(|link| !link.starts_with("https://")).collect();
    for link in &links {
        assert!(root().join(link).is_file(), "README.md: {link} is no file");
    }
    for topic in docs::topics() {
        assert!(links.contains(format!("src/docs/{}.md", topic.name).as_str()), "README.md lacks {}", topic.name);
    }
    let first = blocks(&readme, "sh").into_iter().find(|block| block.starts_with("curl ")).expect("the first message");
    assert!(read(&root().join("src/docs/quickstart.md")).contains(first.trim_end()), "the quickstart posts another");
    let known: BTreeSet<String> = docs::topics().map(|topic| format!("{}.md", topic.name)).collect();
    let there: BTreeSet<String> =
        files("src/docs", ".md").iter().map(|path| within(path, "src/docs").to_owned()).collect();
    assert_eq!(there, known, "the files on the left, src/docs/mod.rs on the right");
}
