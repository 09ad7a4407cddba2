//! The examples of `docs/api.md` and `docs/webhooks.md`, run as they stand there, against
//! `bullwark dev`.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::driver::clients;
use crate::wait::within;

const DOCS: &str = include_str!("../../docs/api.md");
const WEBHOOKS: &str = include_str!("../../docs/webhooks.md");

/// Everything on one machine, as `make run` starts it.
struct Dev {
    _data_dir: TempDir,
    child: Child,
    url: String,
    key: String,
}

impl Dev {
    async fn start() -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bullwark"))
            .args([
                "dev",
                "--json",
                "--no-example",
                "--http-addr",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(data_dir.path())
            // The receivers of webhooks are on this machine.
            .env("BULLWARK_ALLOW_PRIVATE_ADDRESSES", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("the address of the server", output.next_line()).await;
        let line: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        Self {
            _data_dir: data_dir,
            child,
            url: line["http_url"].as_str().unwrap().to_owned(),
            key: line["api_key"].as_str().unwrap().to_owned(),
        }
    }

    /// Asked to stop, so that its servers do too.
    async fn stop(mut self) {
        let id = self.child.id().unwrap().cast_signed();
        let id = nix::unistd::Pid::from_raw(id);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        within("the end of the server", self.child.wait())
            .await
            .unwrap();
    }
}

/// The longest block of this language in this section of the API's page.
fn example(section: &str, language: &str) -> String {
    let (_, rest) = DOCS.split_once(&format!("\n## {section}\n")).unwrap();
    longest(rest.split("\n## ").next().unwrap(), language)
}

/// The longest block of this language in a text.
fn longest(text: &str, language: &str) -> String {
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    blocks.max_by_key(|block| block.len()).unwrap().to_owned()
}

/// What an example says that it prints: the ends of its lines.
fn promised(example: &str, comment: &str) -> Vec<String> {
    let lines = example.lines().filter(|line| !line.starts_with(comment));
    lines
        .filter_map(|line| line.split_once(&format!(" {comment} ")))
        .map(|(_, told)| told.trim().to_owned())
        .collect()
}

async fn printed(program: &mut Command, dev: &Dev) -> String {
    let directory = tempfile::tempdir().unwrap();
    program
        .current_dir(directory.path())
        .env("BULLWARK_URL", &dev.url)
        .env("BULLWARK_API_KEY", &dev.key)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within("the end of the example", program.output())
        .await
        .unwrap();
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{errors}");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_api_do_what_they_say() {
    let dev = Dev::start().await;

    let shell = example("Examples", "sh");
    let mut program = Command::new("bash");
    let out = printed(program.args(["-eu", "-c", &shell]), &dev).await;
    assert!(out.contains("\"inserted\":2"), "{out}");
    assert!(
        out.contains("nameless.com") && out.contains("REQUIRED_MISSING"),
        "{out}"
    );
    assert!(out.contains("\"code\":\"unknown_job_type\""), "{out}");

    let script = example("Examples", "js");
    let mut program = Command::new("node");
    let out = printed(program.args(["--input-type=module", "-e", &script]), &dev).await;
    let told = promised(&script, "//");
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        out.contains("name -> name") && out.contains("domain -> domain"),
        "{out}"
    );
    for line in &told[1..] {
        assert!(out.lines().any(|printed| printed == line), "{line}: {out}");
    }

    let script = example("Examples", "python");
    let mut program = Command::new(clients().join("schemathesis/bin/python"));
    let out = printed(program.args(["-c", &script]), &dev).await;
    let told = promised(&script, "#");
    assert_eq!(told, ["2 0", "completed", "1", "404 job_not_found"]);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.dedup();
    assert_eq!(lines, told);

    // Receivers of webhooks, which check who tells them.
    let script = longest(WEBHOOKS, "js");
    assert_eq!(promised(&script, "//"), ["webhook.test"]);
    let mut program = Command::new("node");
    let out = printed(program.args(["--input-type=module", "-e", &script]), &dev).await;
    assert_eq!(out, "webhook.test\n");
    let script = longest(WEBHOOKS, "python");
    assert_eq!(promised(&script, "#"), ["webhook.test"]);
    let mut program = Command::new(clients().join("schemathesis/bin/python"));
    let out = printed(program.args(["-c", &script]), &dev).await;
    assert_eq!(out, "webhook.test\n");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_exports_do_what_they_say() {
    let dev = Dev::start().await;

    let shell = example("Exports", "sh");
    let mut program = Command::new("bash");
    let out = printed(program.args(["-eu", "-c", &shell]), &dev).await;
    let mut lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    // How `sort` sorts is up to the locale.
    lines[..3].sort_unstable();
    let expected = [
        "'=1+1,sum.com",
        "Stark,stark.com",
        "name,domain",
        "name,domain",
        "{\"revoked\":1}",
        "\"code\":\"link_not_found\"",
    ];
    assert_eq!(lines, expected);

    // The same by the command line.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stark.csv");
    for output in ["-", file.to_str().unwrap()] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_bullwark"));
        program.args([
            "export",
            "--entity",
            "accounts",
            "--filter",
            "domain=stark.com",
        ]);
        program.args(["--fields", "name,domain", "--output", output]);
        program.args(["--server", &dev.url, "--api-key", &dev.key]);
        let out = printed(&mut program, &dev).await;
        let content = "name,domain\r\nStark,stark.com\r\n";
        match output {
            "-" => assert_eq!(out, content),
            _ => {
                assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
                assert!(out.starts_with("1 accounts, 30 bytes: "), "{out}");
            }
        }
    }

    let script = example("Exports", "js");
    let mut program = Command::new("node");
    let out = printed(program.args(["--input-type=module", "-e", &script]), &dev).await;
    let told = promised(&script, "//");
    assert_eq!(out.lines().collect::<Vec<_>>(), told[1..], "{told:?}");

    let script = example("Exports", "python");
    let mut program = Command::new(clients().join("schemathesis/bin/python"));
    let out = printed(program.args(["-c", &script]), &dev).await;
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["completed", "['email', 'company']"]
    );
    dev.stop().await;
}
