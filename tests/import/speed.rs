//! How fast and how large. With a file of a million rows, on a release build:
//!
//! ```text
//! examples/data/generate.py --rows 1000000 --out /tmp/large.csv
//! IMPORT_FILE=/tmp/large.csv cargo test --release --test import speed -- --nocapture
//! ```
//!
//! Without a file it takes the example, so that it stays right.

use serde_json::json;

use crate::support::World;

/// Most memory of the test process, its other tests included.
const PEAK_KB_MAX: u64 = 100 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_needs_little_memory() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/accounts.csv");
    let file = std::env::var("IMPORT_FILE").unwrap_or_else(|_| example.to_owned());
    let world = World::new().await;
    let uploads = world.dir.path().join("uploads");
    std::fs::create_dir_all(&uploads).unwrap();
    std::fs::copy(file, uploads.join("large")).unwrap();
    for round in ["insert", "compare"] {
        let options = json!({"update_existing": true});
        let payload =
            json!({"file_url": "upload://large", "entity_type": "accounts", "options": options});
        let summary = world.run(payload).await.unwrap();
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        println!("{round}: {} peak {}", json!(summary), peak.trim());
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < PEAK_KB_MAX, "{peak} kB");
    }
}
