//! Calls, against a small server of this test.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers every request with this, then goes on with `more` as long as anybody reads.
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
async fn serve(answer: &'static str, more: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            while !more.is_empty() && socket.write_all(more).await.is_ok() {}
        }
    });
    format!("http://{address}/?key=hush")
}

async fn call(url: &str, allow_private: bool) -> Result<Answer, CallFailure> {
    let call = Call::post(url.to_owned(), HeaderMap::new(), "{}".to_owned());
    Caller::new(allow_private).call(&call).await
}

#[tokio::test]
async fn of_an_answer_without_end_the_beginning_is_kept() {
    let endless = "HTTP/1.1 200 OK\r\n\r\n";
    let url = serve(endless, &[b'x'; 700]).await;
    let answer = call(&url, true).await.unwrap();
    assert_eq!((answer.status, answer.bytes.len()), (200, ANSWER_MAX_BYTES));
    assert!(!answer.is_whole);
}

#[tokio::test]
async fn an_answer_is_given_as_it_came_and_no_redirect_is_followed() {
    let moved = "HTTP/1.1 307 Moved\r\nlocation: http://169.254.169.254/\r\n\
                 retry-after: 7\r\ncontent-length: 5\r\n\r\na\0bcd";
    let url = serve(moved, b"").await;
    let answer = call(&url, true).await.unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
    // What the record can not hold is replaced, and what breaks off is kept.
    assert!(answer.text().starts_with("a\u{fffd}b"), "{answer:?}");
}

#[tokio::test]
async fn what_can_not_be_reached_or_must_not_be_tells_no_secret() {
    let url = serve("", b"").await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/?key=hush", listener.local_addr().unwrap())
    };
    for (url, allow_private) in [
        (closed, true),
        (url.clone(), false),
        (url.replace("http://127.0.0.1", "https://localhost"), false),
        ("https://user:hush@example.com/".to_owned(), true),
    ] {
        let failure = call(&url, allow_private).await.unwrap_err();
        let text = failure.to_string();
        assert!(!text.contains("hush"), "{text}");
        let is_forbidden = matches!(failure, CallFailure::Forbidden(_));
        assert_eq!(is_forbidden, !url.contains("127.0.0.1") || !allow_private);
    }
}
