//! Which connections carry deliveries.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{ConnectInfo, State};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::forwarder::Forwarder;
use crate::node::NodeQueue;
use crate::stage::Stage;

const QUEUE: &str = "connected";

/// Where deliveries came from, in their order.
type Peers = Arc<Mutex<Vec<SocketAddr>>>;

async fn receive(
    State(peers): State<Peers>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Json<Value> {
    peers.lock().unwrap().push(peer);
    Json(json!({ "returnvalue": 1 }))
}

/// Servers commonly close what was idle for five seconds. A delivery written at that very moment
/// would be lost, and may not be written again: it might have begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_while_busy_and_never_when_it_was_idle_for_long() {
    let stage = Stage::new().await;
    let queue = NodeQueue::open(&stage, 6, QUEUE).await;
    let peers = Peers::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/", post(receive))
        .with_state(peers.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let forwarder = Forwarder::start(&stage, QUEUE, &url, &[]).await;
    for (id, delay) in [("one", 0), ("two", 0), ("late", 4500)] {
        let opts = json!({ "jobId": id, "delay": delay });
        queue.call("add", json!(["x", {}, opts])).await;
        queue.until_state(id, "completed").await;
    }
    let peers = peers.lock().unwrap().clone();
    assert_eq!(peers.len(), 3);
    assert_eq!(peers[0], peers[1]);
    assert_ne!(peers[1], peers[2]);
    forwarder.stop().await;
}
