//! Both stores are restarted under load, in every order.

use bullwark::stores::{Kill, StoresOptions};

use super::load::Load;
use super::site::Site;

/// Jobs that run through all of it, and jobs that come all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_restarted_in_any_order_lose_nothing() {
    // As in production: Redis has its file.
    let mut site = Site::on(StoresOptions::temporary()).await;
    let running = site.running(3, "go").await;
    let load = Load::start(&site.caller);
    for order in 0..3 {
        load.more(20).await;
        if order != 1 {
            site.stores.kill_redis(Kill::Immediately).await;
        }
        if order == 0 {
            // Accepted without Redis.
            load.more(5).await;
        }
        site.stores.kill_postgres(Kill::Immediately).await;
        if order == 1 {
            site.stores.kill_redis(Kill::Immediately).await;
        }
        let stores = &mut site.stores;
        match order {
            0 => {
                stores.start_redis().await.unwrap();
                stores.start_postgres().await.unwrap();
            }
            1 => {
                stores.start_postgres().await.unwrap();
                load.more(5).await;
                stores.start_redis().await.unwrap();
            }
            _ => {
                stores.start_postgres().await.unwrap();
                stores.start_redis().await.unwrap();
            }
        }
        load.more(20).await;
        site.until_well().await;
    }
    site.rig.probe.open("go");
    let mut ids = load.end().await;
    ids.extend(&running);
    site.until_done(&ids).await;
    // No worker died, so whoever ran kept its say: nothing is even run again.
    assert_eq!(site.repeated(), [""; 0]);
    for id in &running {
        assert!(site.rig.failures(*id).await.is_empty());
    }
    site.end().await;
}
