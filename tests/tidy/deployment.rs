//! `docker-compose.yml` and `Dockerfile`: that they say what the program understands.
//!
//! Docker itself checks the compose file where it is installed with its compose plug-in. Everything
//! else is checked here, on any machine.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use saphyr::{LoadableYamlNode, Yaml};

use crate::source::{Source, files, root};
use crate::{assert_complaint, assert_tidy};

const SERVICES: [&str; 5] = ["redis", "postgres", "migrate", "serve", "worker"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every variable that the program reads: `ENVIRONMENT` in `config`.
fn known_variables() -> BTreeSet<String> {
    let config = files(&["src"], "rs")
        .into_iter()
        .filter(|s| s.module() == Some("config"));
    let text: String = config.map(|source| source.text).collect();
    let list = text.split_once("ENVIRONMENT").unwrap_or_default().1;
    list.split_once("];")
        .unwrap_or_default()
        .0
        .split('"')
        .filter_map(variable_in)
        .collect()
}

/// The names `BULLWARK_…` in a text.
fn variables(text: &str) -> BTreeSet<String> {
    text.match_indices("BULLWARK_")
        .filter_map(|(at, _)| variable_in(&text[at..]))
        .collect()
}

fn variable_in(text: &str) -> Option<String> {
    let is_part = |c: &char| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_';
    text.starts_with("BULLWARK_")
        .then(|| text.chars().take_while(is_part).collect())
}

fn unknown_variables(source: &Source, known: &BTreeSet<String>) -> Vec<String> {
    let unknown = variables(&source.text)
        .into_iter()
        .filter(|name| !known.contains(name));
    unknown
        .map(|name| format!("{}: `{name}` is not in config::ENVIRONMENT", source.path))
        .collect()
}

/// A key of a service, also when it comes from the block that services share (`<<`).
fn get<'a>(service: &'a Yaml<'a>, key: &str) -> Option<&'a Yaml<'a>> {
    let shared = || {
        service
            .as_mapping_get("<<")
            .and_then(|block| block.as_mapping_get(key))
    };
    service.as_mapping_get(key).or_else(shared)
}

/// All the texts in a value, keys included.
fn texts(value: &Yaml<'_>) -> Vec<String> {
    if let Some(text) = value.as_str() {
        return vec![text.to_owned()];
    }
    let items = value.as_sequence().into_iter().flatten();
    let pairs = value.as_mapping().into_iter().flat_map(|map| map.iter());
    items
        .chain(pairs.flat_map(|(key, value)| [key, value]))
        .flat_map(texts)
        .collect()
}

fn has_texts(service: &Yaml<'_>, key: &str, wanted: &[&str]) -> bool {
    let found = get(service, key).map(texts).unwrap_or_default();
    found.windows(wanted.len()).any(|window| window == wanted)
}

fn compose_complaints(text: &str) -> Vec<String> {
    let documents = match Yaml::load_from_str(text) {
        Ok(documents) if documents.len() == 1 => documents,
        Ok(documents) => return vec![format!("{} YAML documents", documents.len())],
        Err(error) => return vec![format!("no YAML: {error}")],
    };
    let Some(services) = documents[0].as_mapping_get("services") else {
        return vec!["no services".to_owned()];
    };
    let mut complaints = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            complaints.push(what.to_owned());
        }
    };
    for name in SERVICES {
        demand(
            services.as_mapping_get(name).is_some(),
            &format!("no service `{name}`"),
        );
    }
    for (name, service) in services.as_mapping().into_iter().flat_map(|map| map.iter()) {
        let name = name.as_str().unwrap_or_default();
        let needs = get(service, "depends_on").and_then(Yaml::as_mapping);
        for need in needs
            .into_iter()
            .flat_map(|map| map.keys())
            .filter_map(Yaml::as_str)
        {
            let exists = services.as_mapping_get(need).is_some();
            demand(
                exists,
                &format!("`{name}` needs `{need}`, which does not exist"),
            );
        }
        for mount in get(service, "volumes").map(texts).unwrap_or_default() {
            let volume = mount.split(':').next().unwrap_or_default();
            let declared = documents[0]
                .as_mapping_get("volumes")
                .map(texts)
                .unwrap_or_default();
            let exists = declared.iter().any(|name| name == volume);
            demand(
                exists,
                &format!("`{name}` mounts `{volume}`, which is not declared"),
            );
        }
    }
    let service = |name: &str| services.as_mapping_get(name).unwrap_or(&Yaml::BadValue);
    let (redis, postgres) = (service("redis"), service("postgres"));
    let (serve, worker) = (service("serve"), service("worker"));
    demand(
        has_texts(redis, "command", &["--appendonly", "yes"]),
        "Redis keeps no file",
    );
    let evicts = !has_texts(redis, "command", &["--maxmemory-policy", "noeviction"]);
    demand(!evicts, "Redis may evict jobs");
    for (name, store) in [("redis", redis), ("postgres", postgres)] {
        demand(
            get(store, "healthcheck").is_some(),
            &format!("`{name}` has no health check"),
        );
        demand(
            get(store, "volumes").is_some(),
            &format!("`{name}` loses its data"),
        );
        demand(
            get(store, "ports").is_none(),
            &format!("`{name}` is open to the network"),
        );
    }
    // Two containers of one service cannot share a name or a port of the host.
    let scales = get(worker, "container_name").is_none() && get(worker, "ports").is_none();
    demand(scales, "`worker` cannot be scaled");
    // What `serve` receives, `worker` reads.
    let data = |service| {
        let environment = get(service, "environment");
        let dir = environment.and_then(|map| map.as_mapping_get("BULLWARK_DATA_DIR"));
        let dir = dir.and_then(Yaml::as_str)?.to_owned();
        let mounts = get(service, "volumes").map(texts).unwrap_or_default();
        mounts
            .into_iter()
            .find(|mount| mount.ends_with(&format!(":{dir}")))
    };
    demand(
        data(serve).is_some() && data(serve) == data(worker),
        "uploads are not shared",
    );
    complaints
}

fn dockerfile_complaints(text: &str) -> Vec<String> {
    let last_stage = text.rsplit("\nFROM ").next().unwrap_or_default();
    let value = |word: &str| {
        let lines = last_stage.lines().map(str::trim_start);
        lines
            .filter_map(|line| line.strip_prefix(word))
            .next_back()
            .map(str::trim)
    };
    let mut complaints = Vec::new();
    if matches!(value("USER "), None | Some("root" | "0")) {
        complaints.push("the image runs as root".to_owned());
    }
    if !last_stage.contains("HEALTHCHECK") || value("CMD [\"bullwark\"").is_none() {
        complaints.push("no health check by `bullwark`".to_owned());
    }
    complaints
}

#[test]
fn the_compose_file_is_complete_and_safe() {
    assert_tidy(&compose_complaints(&read("docker-compose.yml")));
}

#[test]
fn the_image_does_not_run_as_root_and_tells_its_health() {
    assert_tidy(&dockerfile_complaints(&read("Dockerfile")));
}

#[test]
fn every_variable_in_the_deployment_files_is_known() {
    let known = known_variables();
    assert!(!known.is_empty(), "src/config has no list ENVIRONMENT");
    for path in ["docker-compose.yml", "Dockerfile"] {
        assert_tidy(&unknown_variables(&Source::new(path, &read(path)), &known));
    }
}

#[test]
fn docker_accepts_the_compose_file() {
    let compose = || {
        let mut command = Command::new("docker");
        command
            .arg("compose")
            .current_dir(root())
            .stdin(Stdio::null());
        command
    };
    let version = compose().arg("version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("docker compose is not installed: only our own checks ran");
        return;
    }
    let secret = ("BULLWARK_JWT_SECRET", "for this test only");
    let output = compose()
        .args(["config", "--quiet"])
        .env(secret.0, secret.1)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_fault_of_a_compose_file_is_found() {
    let good = read("docker-compose.yml");
    for (from, to, expected) in [
        ("noeviction", "allkeys-lru", "Redis may evict jobs"),
        ("- \"yes\"", "- \"no\"", "Redis keeps no file"),
        ("  worker:\n", "  laborer:\n", "no service `worker`"),
        (
            "      - redis:/data\n",
            "      - reddis:/data\n",
            "`redis` mounts `reddis`",
        ),
        (
            "  migrate:\n    <<",
            "  migration:\n    <<",
            "no service `migrate`",
        ),
        (
            "  worker:\n",
            "  worker:\n    ports: [\"1:1\"]\n",
            "`worker` cannot be scaled",
        ),
        (
            "    image: redis:7\n",
            "    image: redis:7\n    ports: [\"1:1\"]\n",
            "open to the network",
        ),
        (
            "  worker:\n",
            "  worker:\n    volumes: [\"redis:/data\"]\n",
            "uploads are not shared",
        ),
        ("    <<: *bullwark\n", "    <<: *nobody\n", "no YAML"),
    ] {
        assert!(good.contains(from), "{from}");
        let complaints = compose_complaints(&good.replacen(from, to, 1));
        assert!(
            complaints.iter().any(|found| found.contains(expected)),
            "{to}: {complaints:?}"
        );
    }
}

#[test]
fn faults_of_an_image_and_unknown_variables_are_found() {
    let good = read("Dockerfile");
    assert_complaint(
        &dockerfile_complaints(&good.replace("USER bullwark", "USER root")),
        "as root",
    );
    let unhealthy = good.replace("HEALTHCHECK", "# HEALTH");
    assert_complaint(&dockerfile_complaints(&unhealthy), "no health check");

    let known = BTreeSet::from(["BULLWARK_LOG".to_owned()]);
    let source = Source::new("x.yml", "BULLWARK_LOG: ${BULLWARK_LOUD:-1}");
    assert_complaint(
        &unknown_variables(&source, &known),
        "`BULLWARK_LOUD` is not in",
    );
}
