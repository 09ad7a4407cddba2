//! Downloads, against a small server of this test.

use std::time::Duration;

use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::import_csv::source::{self, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Answers every request with what `answer` says about its path.
pub(crate) async fn serve(mut answer: impl FnMut(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 8192];
            let n = socket.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..n]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
            let text = answer(&path);
            let _ = socket.write_all(text.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

pub(crate) fn reply(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

pub(crate) fn answer(path: &str) -> String {
    match path.split('?').next().unwrap_or(path) {
        "/list.csv" => reply("200 OK", "", "name\nAcme\n"),
        "/moved" => reply("302 Found", "Location: /list.csv\r\n", ""),
        "/inside" => reply(
            "302 Found",
            "Location: http://169.254.169.254/latest\r\n",
            "",
        ),
        "/scheme" => reply("302 Found", "Location: file:///etc/passwd\r\n", ""),
        "/loop" => reply("302 Found", "Location: /loop\r\n", ""),
        "/page" => reply("200 OK", "", "<!DOCTYPE html><html>Log in</html>"),
        "/unauthorized" => reply("401 Unauthorized", "", ""),
        "/forbidden" => reply("403 Forbidden", "", ""),
        "/throttled" => reply("429 Too Many Requests", "Retry-After: 11\r\n", ""),
        "/busy" => reply("503 Service Unavailable", "Retry-After: 7\r\n", ""),
        "/down" => reply("500 Internal Server Error", "", ""),
        "/large" => reply("200 OK", "", &"x".repeat(5000)),
        "/endless" => {
            format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
                "x".repeat(5000)
            )
        }
        "/cut" => {
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nname\n".to_owned()
        }
        _ => reply("404 Not Found", "", ""),
    }
}

#[tokio::test]
async fn answers_are_sorted_into_files_refusals_and_retries() {
    let server = serve(answer).await;
    let dir = tempfile::tempdir().unwrap();
    let mut options = SourceOptions::new(dir.path());
    options.allow_private_addresses = true;
    options.max_bytes = 1000;
    for (path, expected) in [
        ("/list.csv?token=secret", "ok list.csv"),
        ("/moved", "ok moved"),
        ("/loop", "refused"),
        ("/scheme", "refused"),
        ("/large", "refused"),
        ("/endless", "refused"),
        ("/gone?token=secret", "refused"),
        ("/busy", "after 7s"),
        ("/down", "retry"),
        ("/cut?token=secret", "retry"),
    ] {
        let address = format!("{server}{path}");
        let spool = tempfile::tempdir().unwrap();
        let opened = source::open(
            &address,
            &options,
            None,
            spool.path(),
            &CancellationToken::new(),
        )
        .await;
        let found = match &opened {
            Ok(file) => format!("ok {}", file.name.as_deref().unwrap_or_default()),
            Err(SourceError::Refused(_)) => "refused".to_owned(),
            Err(SourceError::Unavailable {
                after: Some(after), ..
            }) => format!("after {after:?}"),
            Err(SourceError::Unavailable { after: None, .. }) => "retry".to_owned(),
            Err(SourceError::Cancelled) => "cancelled".to_owned(),
        };
        assert_eq!(found, expected, "{path}: {opened:?}");
        if let Err(error) = opened {
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

#[tokio::test]
async fn the_own_network_is_out_of_reach_by_name_by_number_and_by_redirect() {
    let server = serve(answer).await;
    let port = server.rsplit(':').next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = SourceOptions::new(dir.path());
    for address in [
        format!("{server}/list.csv"),
        format!("http://localhost:{port}/list.csv"),
        format!("http://[::ffff:127.0.0.1]:{port}/list.csv"),
    ] {
        let found = source::open(
            &address,
            &options,
            None,
            dir.path(),
            &CancellationToken::new(),
        )
        .await;
        assert!(
            matches!(found, Err(SourceError::Refused(_))),
            "{address}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_download_ends_when_the_job_is_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/x", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut options = SourceOptions::new(dir.path());
    options.allow_private_addresses = true;
    let token = CancellationToken::new();
    let stop = token.clone();
    let accepted = async {
        let (_socket, _) = listener.accept().await.unwrap();
        stop.cancel();
        // Keeps the connection open, silently.
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    tokio::select! {
        found = source::open(&address, &options, None, dir.path(), &token) => {
            assert!(matches!(found, Err(SourceError::Cancelled)), "{found:?}");
        }
        () = accepted => panic!("the download did not end"),
    }
}
