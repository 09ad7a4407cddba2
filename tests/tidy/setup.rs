//! `scripts/setup.sh`, with a `PATH` of our own: it installs what is missing and nothing else.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::source::root;

/// What the script itself needs of any system.
const BASICS: [&str; 4] = ["id", "tr", "env", "chmod"];

/// A machine that has `programs`, and `apt-get` if `apt` says what it does.
struct Machine {
    bin: tempfile::TempDir,
}

impl Machine {
    fn new(programs: &[&str]) -> Self {
        let bin = tempfile::tempdir().unwrap();
        for name in BASICS {
            let found = ["/usr/bin", "/bin"]
                .iter()
                .map(|dir| Path::new(dir).join(name));
            symlink(
                found.into_iter().find(|path| path.exists()).unwrap(),
                bin.path().join(name),
            )
            .unwrap();
        }
        let machine = Self { bin };
        for name in programs {
            machine.add(name, "exit 0");
        }
        machine
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.bin.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn set_up(&self) -> Output {
        self.set_up_for(&[])
    }

    fn set_up_for(&self, purpose: &[&str]) -> Output {
        Command::new("/bin/sh")
            .arg(root().join("scripts/setup.sh"))
            .args(purpose)
            .env_clear()
            .env("PATH", self.bin.path())
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn nothing_happens_when_nothing_is_missing() {
    let output = Machine::new(&["cargo", "cc", "redis-server", "initdb", "postgres"]).set_up();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
}

#[test]
fn the_tests_need_node_and_python_besides() {
    let programs = ["cargo", "cc", "redis-server", "initdb", "postgres"];
    let output = Machine::new(&programs).set_up_for(&["tests"]);
    assert_eq!(output.status.code(), Some(1));
    let words = said(&output);
    assert!(words.contains("missing: node python"), "{words}");

    let others = ["node", "npm", "python3"];
    let output = Machine::new(&[&programs[..], &others].concat()).set_up_for(&["tests"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
}

#[test]
fn a_missing_rust_toolchain_is_named_with_the_way_to_get_it() {
    let output = Machine::new(&["cc", "redis-server", "initdb", "postgres"]).set_up();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("https://sh.rustup.rs"),
        "{}",
        said(&output)
    );
}

#[test]
fn without_a_package_manager_the_missing_things_are_named() {
    let output = Machine::new(&["cargo", "initdb", "postgres"]).set_up();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("missing: compiler redis"), "{said}");
}

#[test]
fn apt_installs_exactly_what_is_missing() {
    let machine = Machine::new(&["cargo", "cc", "initdb", "postgres"]);
    // Answers like the real one: the program is there afterwards.
    let redis = machine.bin.path().join("redis-server");
    machine.add("sudo", "exec \"$@\"");
    machine.add(
        "apt-get",
        &format!(
            "echo \"apt-get $*\"\ncase $1 in install) : >'{0}'; chmod +x '{0}' ;; esac",
            redis.display()
        ),
    );
    let output = machine.set_up();
    assert!(output.status.success(), "{}", said(&output));
    let commands = String::from_utf8(output.stdout).unwrap();
    let expected = "apt-get update -q\n\
        apt-get install -q -y --no-install-recommends redis-server\n";
    assert_eq!(commands, expected);
}

#[test]
fn an_installation_that_did_not_help_is_an_error() {
    let machine = Machine::new(&["cargo", "cc", "initdb", "postgres", "apt-get"]);
    machine.add("sudo", "exec \"$@\"");
    let output = machine.set_up();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("still missing after the installation: redis"));
}
