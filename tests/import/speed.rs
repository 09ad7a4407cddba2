//! How fast and how large: a file of many rows. Run by hand, on a release build:
//!
//! ```text
//! examples/data/generate.py --rows 1000000 --out /tmp/large.csv
//! IMPORT_FILE=/tmp/large.csv cargo test --release --test import speed -- --ignored --nocapture
//! ```

use serde_json::json;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and a large file"]
async fn rows_per_second_and_memory_of_a_large_file() {
    let file = std::env::var("IMPORT_FILE").unwrap();
    let world = World::new().await;
    let uploads = world.dir.path().join("uploads");
    std::fs::create_dir_all(&uploads).unwrap();
    std::fs::copy(file, uploads.join("large")).unwrap();
    for round in ["insert", "update"] {
        let batch = std::env::var("IMPORT_BATCH").map_or(100, |text| text.parse().unwrap());
        let options = json!({"update_existing": true, "batch_size": batch});
        let payload =
            json!({"file_url": "upload://large", "entity_type": "accounts", "options": options});
        let summary = world.run(payload).await.unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap()
            .to_owned();
        println!(
            "{round}: {} {peak}",
            serde_json::to_string(&summary).unwrap()
        );
    }
    let size: String = world
        .one("SELECT pg_size_pretty(pg_database_size(current_database()))")
        .await;
    println!("database: {size}, {}", world.url);
}
