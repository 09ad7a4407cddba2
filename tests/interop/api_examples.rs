//! The examples of `docs/api.md`, run as they stand there, against `bullwark dev`.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::driver::clients;
use crate::wait::within;

const DOCS: &str = include_str!("../../docs/api.md");

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

/// The longest block of this language.
fn example(language: &str) -> String {
    let opening = format!("```{language}\n");
    let blocks = DOCS.split(&opening).skip(1);
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

    let shell = example("sh");
    let mut program = Command::new("bash");
    let out = printed(program.args(["-eu", "-c", &shell]), &dev).await;
    assert!(out.contains("\"inserted\":2"), "{out}");
    assert!(
        out.contains("nameless.com") && out.contains("REQUIRED_MISSING"),
        "{out}"
    );
    assert!(out.contains("\"code\":\"unknown_job_type\""), "{out}");

    let script = example("js");
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

    let script = example("python");
    let mut program = Command::new(clients().join("schemathesis/bin/python"));
    let out = printed(program.args(["-c", &script]), &dev).await;
    let told = promised(&script, "#");
    assert_eq!(told, ["2 0", "completed", "1", "404 job_not_found"]);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.dedup();
    assert_eq!(lines, told);
    dev.stop().await;
}
